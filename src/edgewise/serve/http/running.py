"""From models and settings to a listening server, and back: signals drain it, a second one ends it."""

import asyncio
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgewise.base import BadInput
from edgewise.serve.http.app import make_app
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.http.settings import Settings
from edgewise.serve.http.shelf import Place, Shelf


def impatient(header_s: float) -> type[H11Protocol]:
    """HTTP/1.1 that drops a connection on which a request's headers do not come within header_s seconds."""

    class Impatient(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._late = self.loop.call_later(header_s, transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            between = self.conn.their_state is h11.IDLE  # in the middle of headers, or between requests
            if not between and self._late is not None:
                self._late.cancel()
                self._late = None
            elif between and self._late is None and self.conn.trailing_data[0]:
                self._late = self.loop.call_later(header_s, self.transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._late is not None:
                self._late.cancel()
            super().connection_lost(exc)

    return Impatient


class Server(uvicorn.Server):
    """shelf: told to take no more work at the first signal; the server ends when nothing is in flight, or after
    drain_s. Signals are not raised again: the exit code is 0."""

    def __init__(self, config: uvicorn.Config, settings: Settings, shelf: Shelf) -> None:
        super().__init__(config)
        self.settings, self.shelf = settings, shelf
        self._deadline = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._deadline:
            os._exit(1)
        self.drain()

    def drain(self) -> None:
        self._deadline = time.monotonic() + self.settings.drain_s
        self.shelf.draining = True
        if count := self.shelf.in_flight:
            print(f"edgewise: shutting down; {count} requests are being finished.", file=sys.stderr, flush=True)

    async def on_tick(self, counter: int) -> bool:
        if self._deadline:
            idle = not self.shelf.in_flight and not self.server_state.tasks
            self.should_exit |= idle or time.monotonic() > self._deadline
        return await super().on_tick(counter)


async def serve(
    hosts: Callable[[], Sequence[Hosted | Place]], settings: Settings, *, sock: socket.socket,
    started: Callable[[Server], None] | None = None,
) -> None:  # fmt: skip
    """Serves until a signal, or until somebody calls `drain`. hosts: makes the models, inside the event loop."""
    shelf = Shelf(hosts(), settings.queue, settings.max_loaded, settings.keep_s)
    config = uvicorn.Config(
        app=make_app(shelf, settings), http=impatient(settings.header_s), ws="none", lifespan="off",
        log_config=None, access_log=False,
        server_header=False, limit_concurrency=settings.connections, timeout_keep_alive=settings.keep_alive_s,
        h11_max_incomplete_event_size=settings.header_bytes, timeout_graceful_shutdown=1, backlog=256,
        proxy_headers=False,
    )  # fmt: skip
    server = Server(config, settings, shelf)
    try:
        if started is not None:
            started(server)
        await server.serve([sock])
    finally:
        await shelf.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises BadInput when the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)  # with protocol 0 asyncio leaves Nagle's algorithm on: 40 ms
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(256)  # from here on nobody is refused; who comes early waits
        sock.set_inheritable(False)
        return sock
    except OSError as problem:
        why = problem.strerror or str(problem)
        raise BadInput(f"The server cannot listen on {host}, port {port}: {why}. Choose another --port.") from problem


class Background:
    """The same in a thread, for tests and programs of one's own: `with Background(...) as server: server.url`."""

    def __init__(self, hosts: Callable[[], Sequence[Hosted | Place]], settings: Settings) -> None:
        self._hosts, self._settings = hosts, settings
        self._sock = listen(settings.host, settings.port)
        self.url = f"http://127.0.0.1:{self._sock.getsockname()[1]}"
        self._started = threading.Event()
        self._problem: BaseException | None = None
        self.server: Server | None = None
        self._thread = threading.Thread(target=self._run, name="edgewise-serve", daemon=True)

    def _run(self) -> None:
        def started(server: Server) -> None:
            self.server = server
            self._started.set()

        try:
            asyncio.run(serve(self._hosts, self._settings, sock=self._sock, started=started))
        except BaseException as problem:
            self._problem = problem
        finally:
            self._started.set()

    def __enter__(self) -> "Background":
        self._thread.start()
        self._started.wait()
        if self._problem is not None:
            raise self._problem
        return self

    def __exit__(self, *_: object) -> None:
        if self.server is not None:
            self.server.drain()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._sock.close()
