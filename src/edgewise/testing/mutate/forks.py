"""Runs a function on many cases, in forked processes, and says which case killed, hung or bloated its process.

A batch of cases shares one fork (a fork costs a millisecond); when a batch dies, its cases run again one by one, so
that each failure has a number. Linux only: peak memory comes from /proc.
"""

import contextlib
import json
import os
import resource
import select
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

HANG_S = 5.0 if "libasan" not in os.environ.get("LD_PRELOAD", "") else 60.0  # sanitizers are slow
ROOM_BYTES = 64 << 20


@dataclass(frozen=True)
class Failure:
    """case: its number; what: "signal 11", "hang", "RSS +70 MB", or the exception with its last lines."""

    case: int
    what: str


_start = {"bytes": 0}


def begin() -> None:
    """Memory counts from here: a case calls it when its files are written. Where the kernel does not let the peak
    be reset, the peak of the whole process counts."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    _start["bytes"] = _status_bytes("VmRSS")


def _status_bytes(field: str) -> int:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(field):
                return int(line.split()[1]) << 10
    return 0


Run = Callable[[int], tuple[int, str]]


def _child(cases: Sequence[int], run: Run, control: int, out: int, rss: bool) -> None:
    """Writes a line before and after each case. `run` gives (bytes of the files, outcome), and raises for a failure.

    The control comes first: what it imports and caches is not the cases' memory.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for case in [control, *cases]:
        os.write(out, f"[{case}]\n".encode())
        begin()
        what, outcome = None, ""
        try:
            file_bytes, outcome = run(case)
            grown = _status_bytes("VmHWM") - _start["bytes"]
            if case == control and outcome != "loaded":
                what = f"the control, an unchanged model, does not load: {outcome}"
            elif rss and case != control and grown > file_bytes + ROOM_BYTES:
                what = f"RSS +{grown >> 20} MB for a file of {file_bytes} bytes"
        except BaseException as error:
            lines = traceback.format_exception(error)
            what = "".join(lines[-6:])[-1500:] or repr(error)
        os.write(out, json.dumps([case, what, outcome]).encode() + b"\n")


def _batch(cases: Sequence[int], run: Run, control: int, rss: bool, outcomes: Counter[str]) -> list[Failure]:
    """One fork for all cases. A death or a hang is laid on the last case that began."""
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            _child(cases, run, control, writer, rss)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    failures: list[Failure] = []
    text, last, hung = b"", cases[0], False
    while True:
        ready, _, _ = select.select([reader], [], [], HANG_S)
        if not ready:
            hung = True
            os.kill(pid, signal.SIGKILL)
            break
        piece = os.read(reader, 1 << 16)
        if not piece:
            break
        *lines, text = (text + piece).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            last = answer[0]
            if len(answer) == 3:
                outcomes[answer[2] or "failed"] += answer[0] != control
                if answer[1] is not None:
                    failures.append(Failure(answer[0], answer[1]))
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    if hung:
        failures.append(Failure(last, f"hang: more than {HANG_S:g} s"))
    elif os.WIFSIGNALED(status):
        failures.append(Failure(last, f"signal {os.WTERMSIG(status)}"))
    elif status != 0:
        failures.append(Failure(last, f"exit status {os.waitstatus_to_exitcode(status)}"))
    return failures


def run_cases(
    cases: Sequence[int], run: Run, *, control: int, batch: int = 64, rss: bool = True, worst: int = 20
) -> tuple[list[Failure], Counter[str]]:
    """(failures of `run(case)` over all cases, at most about `worst` of them; how often each outcome came).

    `control` is a case that must come out as "loaded".
    """
    failures: list[Failure] = []
    outcomes: Counter[str] = Counter()
    for start in range(0, len(cases), batch):
        group, seen = cases[start : start + batch], Counter[str]()
        found = _batch(group, run, control, rss, seen)
        if len(group) == 1 or any(f.case == control for f in found):
            failures += found
            if any(f.case == control for f in found):
                break
        elif found:
            seen.clear()
            for case in group:
                failures += _batch([case], run, control, rss, seen)
        outcomes += seen
        if len(failures) >= worst:
            break
    return failures, outcomes


def bound95(failures: int, n: int) -> float:
    """The rate that the true one is below with 95 % confidence: 3 / n for none, else a Poisson bound."""
    return round((3 if failures == 0 else failures + 2 * failures**0.5 + 2) / max(1, n), 7)
