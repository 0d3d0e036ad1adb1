"""Engines in child processes: they answer, they wait stopped, and when they fail they say why."""

import sys
from pathlib import Path

import pytest

from race.children import Child, Failed


def state(child):
    return Path(f"/proc/{child.process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_an_order_is_answered_with_seconds_and_memory(start):
    child = start("100")
    assert child.run("prefill", 50) == pytest.approx(0.5)
    assert child.run("decode", 10, 8) == pytest.approx(0.8)
    assert child.peak_rss_bytes > 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_waits_stopped(start):
    child = start("100")
    assert state(child) == "T"
    child.run("prefill", 1)
    assert state(child) == "T"
    child.close()
    assert child.process.returncode == 0


def test_a_failed_operation_says_why_and_the_next_one_works(start):
    child = start("100-decode")
    with pytest.raises(Failed, match="no decode today"):
        child.run("decode", 1)
    assert child.alive
    assert child.run("prefill", 100) == pytest.approx(1.0)


def test_an_operation_that_the_engine_lacks_is_named(start):
    with pytest.raises(Failed, match="'sing'"):
        start("100").run("sing", 1)


def test_a_death_is_reported_with_the_last_words(start):
    with pytest.raises(Failed, match="exit code 1: out of luck"):
        start("100-load")
    child = start("100-die")
    with pytest.raises(Failed, match="died in decode"):
        child.run("decode", 1)
    assert not child.alive


def test_silence_ends_the_child(tmp_path):
    with pytest.raises(Failed, match="mute gave no answer within 0 s"):
        Child("mute", [sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2)


def test_a_program_that_does_not_exist_is_a_failure():
    with pytest.raises(Failed, match="No such file"):
        Child("absent", ["/nowhere/at/all"])
