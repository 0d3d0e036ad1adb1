"""R13: a server whose memory ends 10 % above what it has."""

import contextlib
import http.client
import os
import resource
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.testing.soak import Found
from edgewise.testing.soak.serving import Answer, Process, until

CGROUP = Path("/sys/fs/cgroup")


def status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    return 0


@contextlib.contextmanager
def capped(pid: int) -> Iterator[tuple[str, float]]:
    """Its resident memory may grow by a tenth: by a control group where one can be made, else its address space may."""
    held = status_bytes(pid, "VmRSS")
    group = CGROUP / f"edgewise-soak-{os.getpid()}"
    try:
        if "memory" not in (CGROUP / "cgroup.controllers").read_text().split():
            raise OSError("no memory controller")
        group.mkdir()
    except OSError:
        limit = status_bytes(pid, "VmSize") + held // 10
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
        yield "address space", held / 10
        return
    try:
        (group / "memory.max").write_text(str(held + held // 10))
        (group / "cgroup.procs").write_text(str(pid))
        yield "control group", held / 10
    finally:
        with contextlib.suppress(OSError):
            (CGROUP / "cgroup.procs").write_text(str(pid))
            group.rmdir()


def _ask(server: Process, body: dict[str, Any]) -> Answer:
    """status 0: the connection was cut."""
    try:
        return server.ask("/v1/completions", body)
    except (OSError, http.client.HTTPException):
        return Answer(0, "", {})


def memory_cap(small: bool, seed: int) -> Found:
    """Long requests, all at once; what is served has the tokens it has alone; the rest gets 429 or 503."""
    count = 12 if small else 64
    numbers = np.random.default_rng(seed)
    bodies: list[dict[str, Any]] = [
        {"prompt": numbers.integers(0, 3000, 150).tolist(), "max_tokens": 20 if small else 100, "temperature": 0,
         "ignore_eos": True}
        for _ in range(count)
    ]  # fmt: skip
    with Process(["--ctx-size", "256", "--max-num-seqs", "16", "--max-queue", "64"]) as server:
        want = [server.ask("/v1/completions", body).json()["choices"] for body in bodies]
        with ThreadPoolExecutor(count) as pool:  # its threads and buffers are there before the cap
            list(pool.map(lambda body: server.ask("/v1/completions", {**body, "max_tokens": 1}), bodies))
        with capped(server.pid) as (how, room), ThreadPoolExecutor(count) as pool:
            answers = list(pool.map(lambda body: _ask(server, body), bodies))
            flood = [_ask(server, {"prompt": "x" * 1_000_000}).status for _ in range(4)]
            until(lambda: server.ask("/status").json()["models"][0]["running"] == 0, 20)
            alive = server.process.poll() is None and server.ask("/ready").status == 200
    ends = Counter(answer.status for answer in answers)
    served = [at for at, answer in enumerate(answers) if answer.status == 200]
    wrong = sum(answers[at].json()["choices"] != want[at] for at in served)
    odd = sum(answer.status not in (200, 429, 503) for answer in answers)
    odd += sum(status not in (400, 413, 429, 503) for status in flood)
    got = (
        f"{count} requests with {room / (1 << 20):.0f} MB to spare ({how}): {dict(ends)}, wrong tokens {wrong}; "
        f"bodies of a megabyte meanwhile: {flood}; alive: {alive}"
    )
    fails = wrong + odd + (not alive)
    return Found(count, fails, got, fails == 0 and len(served) >= 0.9 * count)
