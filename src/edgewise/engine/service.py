"""The asynchronous face of an engine: requests in, an async iterator of events out; one thread turns the loop."""

import asyncio
import dataclasses
import itertools
import threading
from collections.abc import AsyncIterator

from edgewise.base import BadInput, Event, Request
from edgewise.engine.loop import Engine

CLOSED = "This engine was closed. Make a new one."


class EngineService:
    """`async for event in service(request)`; leaving the loop cancels the request. `async with` closes it at the end.

    The thread alone touches the engine, except under `_lock`; a step is computed without the interpreter's lock, so an
    event loop beside it stays quick."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._names = itertools.count()
        self._lock = threading.Lock()
        self._wanted = threading.Condition()  # work, or the end
        self._orders: list[tuple[str, Request | str, asyncio.Future[str] | None]] = []
        self._streams: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Queue[Event], int]] = {}
        self._closing = False
        self._thread: threading.Thread | None = None

    async def __call__(self, request: Request) -> AsyncIterator[Event]:
        """Raises what `Engine.add` raises, at the first `anext`."""
        if self._closing:
            raise BadInput(CLOSED)
        loop = asyncio.get_running_loop()
        name = f"service-{next(self._names)}"  # two callers may choose the same
        queue: asyncio.Queue[Event] = asyncio.Queue()
        accepted: asyncio.Future[str] = loop.create_future()
        self._order("add", dataclasses.replace(request, id=name), accepted, (name, loop, queue, request.params.n))
        left = request.params.n
        try:
            await accepted
            while left:
                event = await queue.get()
                left -= event.finish_reason is not None
                yield dataclasses.replace(event, request_id=request.id or name)
        finally:
            if left:
                self._order("cancel", name, None)

    async def __aenter__(self) -> "EngineService":
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Cancels what is running; every stream gets its last event."""
        with self._wanted:
            self._closing = True
            self._wanted.notify()
        if self._thread is not None:
            self._thread.join()

    def _order(
        self,
        what: str,
        of: Request | str,
        accepted: "asyncio.Future[str] | None",
        stream: "tuple[str, asyncio.AbstractEventLoop, asyncio.Queue[Event], int] | None" = None,
    ) -> None:
        with self._wanted:
            if stream is not None:
                self._streams[stream[0]] = stream[1:]
            self._orders.append((what, of, accepted))
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._work, name="edgewise-engine", daemon=True)
                self._thread.start()
            self._wanted.notify()

    # ── the thread ──────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        engine = self.engine
        while True:
            with self._wanted:
                while not (self._orders or self._closing or engine.has_work()):
                    self._wanted.wait()
                orders, self._orders = self._orders, []
                closing = self._closing
            for what, of, accepted in orders:
                if what == "cancel":
                    engine.cancel(str(of))
                elif isinstance(of, Request):
                    self._add(of, accepted)
            if closing:
                for name in list(self._streams):
                    engine.cancel(name)
            if engine.has_work():
                for event in engine.step():
                    self._tell(event)
            if closing and not engine.has_work():
                return

    def _add(self, request: Request, accepted: "asyncio.Future[str] | None") -> None:
        loop, _, _ = self._streams[request.id]
        try:
            name: str | None = self.engine.add(request)
            problem = None
        except Exception as error:
            name, problem = None, error

        def answer() -> None:
            if accepted is None or accepted.done():
                return
            if problem is not None:
                accepted.set_exception(problem)
            else:
                accepted.set_result(str(name))

        if problem is not None:
            self._streams.pop(request.id, None)
        loop.call_soon_threadsafe(answer)

    def _tell(self, event: Event) -> None:
        entry = self._streams.get(event.request_id)
        if entry is None:
            return
        loop, queue, left = entry
        if event.finish_reason is not None:
            if left > 1:
                self._streams[event.request_id] = loop, queue, left - 1
            else:
                del self._streams[event.request_id]
        try:
            loop.call_soon_threadsafe(queue.put_nowait, event)
        except RuntimeError:  # its event loop is gone, and so is whoever waited
            self.engine.cancel(event.request_id)
