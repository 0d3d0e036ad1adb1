"""R11: kill -9 at any moment; what is on the disk afterwards, and what the next start makes of it."""

import contextlib
import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgewise.kv.api import Chunk
from edgewise.kv.pages import Known, Pages
from edgewise.kv.prefixes import FINGERPRINT, PrefixStore
from edgewise.testing.soak import Found
from edgewise.testing.soak.serving import Process, environment
from edgewise.testing.tiny import tiny_model

ASK = {"prompt": "def f(", "max_tokens": 12, "temperature": 0, "ignore_eos": True}
SPACE = ("--ctx-size", "256", "--max-num-seqs", "4")


def kills(small: bool, seed: int) -> Found:
    each = 2 if small else 60
    dice = random.Random(seed)
    words: list[str] = []
    fails = tries = 0
    said: dict[str, str] = {}
    with TemporaryDirectory() as folder:
        for kind in (_loading, _serving, _converting, _swapping, _keeping):
            where = Path(folder) / kind.__name__
            where.mkdir()
            n, bad, what = kind(where, each, dice)
            tries, fails = tries + n, fails + len(bad)
            words += bad
            said[kind.__name__.strip("_")] = what
    got = f"{tries} kills: " + ", ".join(f"{kind}: {what}" for kind, what in said.items())
    return Found(tries, fails, "; ".join([got, *words[:3]]), fails == 0)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _text(server: Process) -> Any:
    return server.ask("/v1/completions", ASK).json()["choices"][0]["text"]


def _loading(folder: Path, count: int, dice: random.Random) -> tuple[int, list[str], str]:
    """While it starts; now and then it comes far enough to be asked."""
    bad: list[str] = []
    answers = set()
    for _ in range(count):
        with Process(SPACE, wait=False) as server:
            time.sleep(dice.uniform(0, 0.8))
            server.process.kill()
    with Process(SPACE) as server:
        answers.add(_text(server))
    with Process(SPACE) as server:
        answers.add(_text(server))
    if len(answers) != 1:
        bad.append(f"after kills at the start: {answers}")
    return count, bad, "restarted, tokens equal"


def _serving(folder: Path, count: int, dice: random.Random) -> tuple[int, list[str], str]:
    """With streams open, and at once started again on the same port."""
    bad: list[str] = []
    port, want = 0, None
    for at in range(count + 1):
        with Process([*SPACE, *(["--port", str(port)] if port else [])]) as server:
            port = server.port
            text = _text(server)
            want = want or text
            if text != want:
                bad.append(f"restart {at}: {text!r} instead of {want!r}")
            with contextlib.ExitStack() as stack:
                long = {**ASK, "max_tokens": 200, "stream": True}
                for _ in range(4):
                    stack.enter_context(server.send(long, read=100))
                time.sleep(dice.uniform(0, 0.05))
                server.process.kill()
                server.process.wait()
    return count, bad, "same port, tokens equal"


def _converting(folder: Path, count: int, dice: random.Random) -> tuple[int, list[str], str]:
    """The output is whole or absent, and the same command goes on; nothing is left beside it."""
    bad: list[str] = []
    source = tiny_model("llama", folder / "source")
    made = folder / "made"
    made.mkdir()
    command = [
        sys.executable,
        "-m",
        "edgewise.serve.cli",
        "convert",
        str(source),
        "-o",
        str(made / "m.gguf"),
        "-q",
        "q8_0",
    ]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment()}
    begin = time.monotonic()
    subprocess.run(command, check=True, **quiet)
    took = time.monotonic() - begin
    want = hashlib.sha256((made / "m.gguf").read_bytes()).hexdigest()
    most = 0
    for at in range(count):
        for file in made.iterdir():
            if file.is_file():
                file.unlink()
        child = subprocess.Popen(command, **quiet)
        time.sleep(dice.uniform(0.5, 1.05) * took)
        child.kill()
        child.wait()
        whole = made / "m.gguf"
        if whole.exists() and hashlib.sha256(whole.read_bytes()).hexdigest() != want:
            bad.append(f"kill {at} left an output that is not whole")
        most = max(most, _bytes(made) - (whole.stat().st_size if whole.exists() else 0))
    (made / "m.gguf").unlink(missing_ok=True)
    subprocess.run(command, check=True, **quiet)
    if hashlib.sha256((made / "m.gguf").read_bytes()).hexdigest() != want:
        bad.append("the conversion that went on differs")
    left = [file.name for file in made.iterdir() if file.name != "m.gguf"]
    if left:
        bad.append(f"left behind: {left}")
    return count, bad, f"whole or absent, at most {most} bytes beside it until it was run again"


def _killed(dice: random.Random, *arguments: str) -> None:
    """This module as a program, killed a moment after it has begun."""
    command = [sys.executable, "-m", "edgewise.testing.soak.killing", *arguments]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()  # it has begun
        time.sleep(dice.uniform(0, 0.1))
        child.kill()


def _swapping(folder: Path, count: int, dice: random.Random) -> tuple[int, list[str], str]:
    """A process that swaps all the time; its files have no name, so the kernel takes them back."""
    bad: list[str] = []
    for at in range(count):
        _killed(dice, str(folder))
        if left := _bytes(folder):
            bad.append(f"kill {at}: {left} bytes of swap left behind")
    return count, bad, "0 bytes left"


def _keeping(folder: Path, count: int, dice: random.Random) -> tuple[int, list[str], str]:
    """A process that keeps prefixes on disk: what the next one finds is whole, and nothing is half done."""
    bad: list[str] = []
    pages = 0
    for at in range(count):
        _killed(dice, str(folder), "keep")
        store = PrefixStore(folder, KEPT, PAGE_BYTES)
        found = [link for link in _chain() if store.has(link.digest)]
        pages += len(found)
        for link in found:
            data = store.read(link)
            if data is None or data.tobytes() != _page(link).tobytes():
                bad.append(f"kill {at}: a page of other bytes, or none")
        if left := [file.name for file in folder.iterdir() if file.suffix != ".kv"]:
            bad.append(f"kill {at}: {left} left behind")
        if at % 2:
            for file in folder.iterdir():
                file.unlink()
    return count, bad, f"{pages} pages found whole, nothing half done"


KEPT, PAGE_BYTES = b"k" * FINGERPRINT, 1 << 16


def _chain() -> Iterator[Known]:
    return Pages(1, 16).links(range(16 * 2000 + 1))


def _page(link: Known) -> Chunk:
    return np.frombuffer(link.digest * (PAGE_BYTES // len(link.digest)), np.uint8)


def keep_all_the_time(folder: Path) -> None:
    store = PrefixStore(folder, KEPT, PAGE_BYTES)
    print("begun", flush=True)
    while True:
        for link in _chain():
            while not store.has_room():
                time.sleep(0.0005)
            store.put(link, _page(link))


def swap_all_the_time(folder: Path) -> None:
    from edgewise.kv.swap import SwapFile
    from edgewise.testing.identity import Tally, alone_slots, play_round, slots
    from edgewise.testing.soak.memory import SEED

    tally = Tally()
    print("begun", flush=True)
    while True:
        swap = SwapFile(folder)
        swap._rate = 1e12
        play_round(SEED, 12, slots, alone_slots, tally, policy="mlfq", swap=swap)


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    (keep_all_the_time if sys.argv[2:] else swap_all_the_time)(Path(sys.argv[1]))
