"""Servers for the rows, in this process or in one of its own, and clients that hide nothing."""

import contextlib
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edgewise.embedded import embedded_model
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.http.running import Background
from edgewise.serve.http.settings import Settings
from edgewise.serve.llm import LLM
from edgewise.text.chat import JinjaChatTemplate

CHAT = (  # the embedded model has none: it writes Python, so a chat is a module of questions and answers
    "{% for m in messages %}# {{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}# assistant:\n{% endif %}"
)


class Answer(NamedTuple):
    status: int
    text: str
    headers: dict[str, str]

    def json(self) -> Any:
        return json.loads(self.text)

    def frames(self) -> list[Any]:
        """Objects of a stream of server-sent events, up to the last one."""
        lines = [line[6:] for line in self.text.split("\n") if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


class Client:
    """port: of a server on this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str, body: Any = None, *, raw: bytes | None = None, timeout: float = 120.0) -> Answer:
        """body: sent as JSON; raw: sent as it is; neither: a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = raw if raw is not None else None if body is None else json.dumps(body).encode()
            headers = {} if data is None else {"content-type": "application/json"}
            connection.request("GET" if data is None else "POST", path, data, headers)
            reply = connection.getresponse()
            text = reply.read().decode("utf-8", "replace")
            return Answer(reply.status, text, {name.lower(): value for name, value in reply.getheaders()})
        finally:
            connection.close()

    def send(
        self, body: Any, *, path: str = "/v1/completions", read: int = 0, whole: bool = True, small: bool = False
    ) -> socket.socket:
        """A request over a plain socket, which stays open. read: bytes to wait for. small: a receive buffer that soon
        is full."""
        sock = socket.socket()
        try:
            if small:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(60)
            sock.connect(("127.0.0.1", self.port))
            data = json.dumps(body).encode()
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            sock.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + (data if whole else data[:10]))
            while read > 0:
                part = sock.recv(read)
                if not part:
                    break
                read -= len(part)
        except BaseException:
            sock.close()
            raise
        return sock


def reset(sock: socket.socket) -> None:
    """Closes with RST: what a crashed client, or its cut cable, looks like."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def until(true: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


class Served(Client):
    """A server in this process, so that a row can look inside."""

    def __init__(self, background: Background, hosted: list[Hosted]) -> None:
        super().__init__(int(background.url.rpartition(":")[2]))
        self.background, self.hosted = background, hosted

    @property
    def model(self) -> Hosted:
        return self.hosted[0]

    def idle(self) -> bool:
        thread = self.model.thread
        return not (thread.streams or thread._orders or thread.engine.has_work()) and self.free()

    def free(self) -> bool:
        engine = self.model.thread.engine
        return engine.kv.free_tokens() == engine.capacity


@contextlib.contextmanager
def serving(
    settings: Settings | None = None, model: str | Path | None = None, *, change: Callable[[LLM], None] | None = None,
    **options: Any,
) -> Iterator[Served]:  # fmt: skip
    """change: done to the model before it is served."""
    hosted: list[Hosted] = []

    def hosts() -> list[Hosted]:
        llm = LLM(model or embedded_model(), **{"threads": 1, "max_num_seqs": 8, **options})
        if change is not None:
            change(llm)
        hosted.append(Hosted(llm, "base", JinjaChatTemplate({"default": CHAT}, {})))
        return hosted

    with Background(hosts, settings or Settings(port=0)) as background:
        yield Served(background, hosted)


class Process(Client):
    """`edgewise serve` as a user starts it. limits: (resource, value) that it gets before it begins."""

    def __init__(
        self, arguments: Sequence[str] = (), *, limits: Sequence[tuple[int, int]] = (), wait: bool = True
    ) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the process)
        command = [sys.executable, "-m", "edgewise.serve.cli", "serve", "--port", "0", "-t", "1", *arguments]

        def before() -> None:
            import resource

            for what, value in limits:
                resource.setrlimit(what, (value, value))

        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.log, env=environment(),
            preexec_fn=before if limits else None,
        )  # fmt: skip
        super().__init__(0)
        if wait and not self.ready():
            text = self.said()
            self.end()
            raise AssertionError(f"the server did not start: {text[-2000:]}")

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        return os.pread(self.log.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    def ready(self, seconds: float = 120.0) -> bool:
        """Whether it says that it serves before it ends."""
        until(lambda: "serving on" in self.said() or self.process.poll() is not None, seconds)
        url = self.said().partition("serving on ")[2].split()
        self.port = int(url[0].rpartition(":")[2]) if url else 0
        return bool(url)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def environment() -> dict[str, str]:
    """A child finds the same edgewise."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def memory_bytes(pid: int | str = "self") -> int:
    """Anonymous memory, resident or swapped out: what RSS hides when a machine swaps."""
    total = 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(("RssAnon:", "VmSwap:")):
            total += 1024 * int(line.split()[1])
    return total


def handles(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def rank(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
