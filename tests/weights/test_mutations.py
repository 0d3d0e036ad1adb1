"""Rows R01 to R04 in small: the documented full-size commands run the same code with more files."""

import os
import signal
import time
from pathlib import Path

import pytest

from edgewise.testing.hostile.__main__ import hostile
from edgewise.testing.hostile.bundles import BUNDLES
from edgewise.testing.hostile.watch import Audit, Inotify
from edgewise.testing.mutate import forks, gguf
from edgewise.testing.mutate.__main__ import mutate
from edgewise.testing.mutate.truncate import truncations

pytestmark = pytest.mark.native
RSS = "libasan" not in os.environ.get("LD_PRELOAD", "")  # a sanitizer takes memory of its own


@pytest.mark.parametrize(("kind", "n"), [("gguf", 400), ("st", 400), ("config", 250), ("tokenizer", 100)])
def test_no_mutant_kills_hangs_bloats_or_leaves_a_traceback(kind: str, n: int) -> None:
    answer = mutate(kind, n, seed=7, rss=RSS)
    assert answer["fail"] == 0, answer["failures"]
    outcomes = answer["outcomes"]
    assert isinstance(outcomes, dict)
    assert outcomes["loaded"] > n // 50  # not everything dies at the door


def test_no_cut_file_opens() -> None:
    answer = truncations(20, "open", every=37, rss=RSS)
    assert answer["fail"] == 0, answer["failures"]


def test_no_hostile_bundle_gets_through() -> None:
    assert len(BUNDLES) >= 40
    answer = hostile(BUNDLES, rss=RSS)
    assert answer["fail"] == 0, answer["failures"]


def test_the_runner_sees_each_kind_of_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a runner that never complains would pass everything above."""
    monkeypatch.setattr(forks, "HANG_S", 2.0)
    hoard: list[bytes] = []

    def run(case: int) -> tuple[int, str]:
        forks.begin()
        if case == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        elif case == 4:
            raise RuntimeError("a bug")
        elif case == 5:
            time.sleep(60)
        elif case == 6:
            hoard.append(b"x" * (160 << 20))  # pages that the kernel takes back meanwhile are not counted
        elif case == 7:
            os._exit(3)
        return 100, "loaded"

    failures, outcomes = forks.run_cases(range(9), run, control=-1)
    kinds = [(f.case, f.what.split()[0]) for f in failures]
    assert kinds == [(3, "signal"), (4, "Traceback"), (5, "hang:"), (6, "RSS"), (7, "exit")]
    assert "a bug" in failures[1].what
    assert outcomes["loaded"] == 5  # 0, 1, 2, 8 and the one that bloated


def test_the_runner_sees_a_control_that_does_not_load() -> None:
    failures, _ = forks.run_cases(range(3), lambda _: (0, "open"), control=-1)
    assert [f.case for f in failures] == [-1]


def test_the_watchers_see_what_is_opened(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "file").write_text("x")
    watched = Inotify([outside])
    fd = os.open(outside / "file", os.O_RDONLY)
    os.close(fd)
    assert watched.events() == {outside / "file"}
    watched.close()

    def run(case: int) -> tuple[int, str]:
        audit = Audit([inside])
        audit.on = True
        (inside / "file").read_text()
        if case == 1:
            (outside / "file").read_text()
        audit.on = False
        assert not audit.violations, audit.violations
        return 0, "loaded"

    failures, _ = forks.run_cases([0, 1], run, control=-1, batch=1)
    assert [f.case for f in failures] == [1]
    assert f"opened {outside / 'file'}" in failures[0].what


def test_a_case_is_a_function_of_its_seed() -> None:
    import random

    assert gguf.mutant(random.Random("a")) == gguf.mutant(random.Random("a"))
    assert gguf.mutant(random.Random("a")) != gguf.mutant(random.Random("b"))
