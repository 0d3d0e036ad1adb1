"""An engine in a process of its own, driven a line at a time, and stopped while another one has its turn."""

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any


class Failed(Exception):
    """An engine could not be prepared, started or measured; the message says why."""


class Child:
    """Starts the command and waits until the engine is loaded. Speaks bench/engines/protocol.py.

    Between orders the process is stopped (SIGSTOP), so that threads which spin after their turn, as OpenMP's do, cannot
    slow the other engine down. timeout_s: for loading, and for each order.
    """

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None, timeout_s: float = 600
    ) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self.peak_rss_bytes = 0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the child)
        self.started = time.perf_counter()
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
                env=None if env is None else dict(env),
            )  # fmt: skip
        except OSError as error:
            self._log.close()
            raise Failed(str(error)) from None
        try:
            self.about = self._answer()
        except Failed:
            self.close()
            raise
        self._stop()

    def run(self, op: str, tokens: int, batch: int = 1, seed: int = 0) -> float:
        """Seconds that the engine says the operation took. Raises Failed; the child may still be of use after that."""
        assert self.process.stdin is not None
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # the answer's absence is reported below
            print(op, tokens, batch, seed, file=self.process.stdin, flush=True)
        answer = self._answer()
        self._stop()
        if "failed" in answer:
            raise Failed(f"{self.name}: {answer['failed']}")
        self.peak_rss_bytes = int(answer["peak_rss_bytes"])
        return float(answer["seconds"])

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """Ends the process: politely by the end of its input, after ten seconds by force."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._log.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stop(self) -> None:
        """Returns when all its threads have stopped, or after a second."""
        self._signal(signal.SIGSTOP)
        end = time.perf_counter() + 1
        while self.alive and time.perf_counter() < end:
            if os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOHANG):
                return
            time.sleep(0.0005)

    def _signal(self, number: int) -> None:
        if self.alive:
            os.kill(self.process.pid, number)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], self.timeout_s)
        if not ready:
            self.process.kill()
            self.process.wait()
            raise Failed(f"{self.name} gave no answer within {self.timeout_s:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            raise Failed(f"{self.name} ended with exit code {code}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        """The last line of its standard error that says something."""
        self._log.seek(0)
        return last_line(self._log.read().decode(errors="replace"))


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:400] if lines else "it said nothing"
