"""A client in a process of its own, the same for every OpenAI-compatible server: `python -m edgewise.serve.asking`.

A line of JSON in: {port, path, bodies, clients, at}; a line of JSON out: one entry for each body, in their order.
Without `at` there are so many clients, each of which asks again when it has its answer; with it (seconds from the
start, for each body) everybody asks when it is due. Streams only: the first token counts.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any


class Lines:
    """Connections to one server that are kept open between requests, as clients do."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """ttft_s: to the first frame of the stream. frames: those with a choice. usage: as it was told."""
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        message = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
        begin = time.perf_counter()
        first, status, usage, frames, finish = 0.0, 0, None, 0, None
        line = None
        try:
            answer = b""
            while not answer:  # a server may have closed a connection that was kept: then the next one, or a fresh one
                kept = bool(self._free)
                line = self._free.pop() if kept else await asyncio.open_connection("127.0.0.1", self.port)
                reader, writer = line
                with contextlib.suppress(ConnectionError):
                    writer.write(message)
                    answer = await reader.readline()
                if not answer:
                    writer.close()
                    if not kept:
                        raise ConnectionResetError("no answer")
            status, length = int(answer.split()[1]), 0
            while (text := await reader.readline()) not in (b"\r\n", b""):
                name, _, value = text.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            if length:  # not a stream: an error, or it was not asked for one
                whole = json.loads(await reader.readexactly(length))
                end, usage = time.perf_counter(), whole.get("usage")
                finish = next((one["finish_reason"] for one in whole.get("choices") or ()), None)
                kept = True
            else:
                while text := await reader.readline():
                    if not text.startswith(b"data: "):
                        continue
                    first = first or time.perf_counter()
                    if text.startswith(b"data: [DONE]"):
                        break
                    frame = json.loads(text[6:])
                    usage = frame.get("usage") or usage
                    choices = frame.get("choices") or ()
                    frames += bool(choices)
                    finish = next((one["finish_reason"] for one in choices if one["finish_reason"]), finish)
                end = time.perf_counter()
                while (text := await reader.readline()) and text != b"0\r\n":  # the last chunk; an empty line ends it
                    pass
                kept = bool(text and await reader.readline())
            if kept:
                self._free.append((reader, writer))
                line = None
        except (OSError, EOFError, ValueError, IndexError):
            status, end = status if status >= 400 else 0, time.perf_counter()
        finally:
            if line is not None:
                line[1].close()
        return {"status": status, "ttft_s": (first or end) - begin, "total_s": end - begin, "usage": usage,
                "frames": frames, "finish": finish}  # fmt: skip


async def run(job: Mapping[str, Any], lines: Lines) -> dict[str, Any]:
    bodies, found = job["bodies"], [dict[str, Any]()] * len(job["bodies"])
    begin = time.perf_counter()

    async def one(at: int) -> None:
        found[at] = await lines.ask(job["path"], bodies[at])

    async def later(at: int) -> None:
        await asyncio.sleep(max(0.0, begin + job["at"][at] - time.perf_counter()))
        await one(at)

    async def client(left: "list[int]") -> None:
        while left:
            await one(left.pop())

    if job.get("at"):
        await asyncio.gather(*(later(at) for at in range(len(bodies))))
    else:
        left = list(range(len(bodies)))[::-1]
        await asyncio.gather(*(client(left) for _ in range(job["clients"])))
    return {"seconds": time.perf_counter() - begin, "answers": found}


class Asker:
    """The process, from the outside."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "edgewise.serve.asking"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(
        self, port: int, path: str, bodies: Sequence[Mapping[str, Any]], clients: int, at: Sequence[float] | None = None
    ) -> dict[str, Any]:
        """{"seconds", "answers"}. Blocks until all are answered."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        job = {"port": port, "path": path, "bodies": list(bodies), "clients": clients, "at": at and list(at)}
        self._child.stdin.write(json.dumps(job) + "\n")
        self._child.stdin.flush()
        found: dict[str, Any] = json.loads(self._child.stdout.readline())
        return found

    def close(self) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        self._child.wait()
        self._child.stdout.close()

    def __enter__(self) -> "Asker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main() -> None:
    ports: dict[int, Lines] = {}
    with asyncio.Runner() as runner:
        for text in sys.stdin:
            job = json.loads(text)
            lines = ports.setdefault(job["port"], Lines(job["port"]))
            print(json.dumps(runner.run(run(job, lines))), flush=True)


if __name__ == "__main__":
    main()
