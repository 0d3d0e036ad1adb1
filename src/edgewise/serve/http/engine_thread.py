"""One thread turns a model's engine; the event loop gives it orders and gets what is new, once a step.

Nothing else touches the engine. A step is computed without the interpreter's lock, so HTTP stays quick beside it.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edgewise.base import Event, Request
from edgewise.engine.loop import Engine
from edgewise.serve.http.ledger import LEDGER, Ledger, Piece, Spent
from edgewise.serve.http.tally import Tally
from edgewise.serve.outputs import Collector, StreamChunk

IDLE_S = 1.0  # without work, before anything else is done
LOOK_S = 0.05  # between two looks at how busy the engine is


class Load(NamedTuple):
    """Samples that hold pages and samples that wait, tokens of cache room in all and free, steps so far."""

    running: int = 0
    waiting: int = 0
    capacity: int = 0
    free: int = 0
    steps: int = 0


class Stream:
    """What a request has given and nobody has taken yet. Unread pieces of a sample are put together: a slow reader
    costs its text and no more."""

    def __init__(self, request: Request, collector: Collector, thread: "EngineThread") -> None:
        self.request, self.collector, self._thread = request, collector, thread
        self.finished = False
        self.ledger: Ledger | None = None
        self.arrival = self.latest = time.perf_counter()
        self.begun = False
        self._waiting: list[StreamChunk] = []
        self._news = asyncio.Event()

    async def take(self) -> list[StreamChunk]:
        """Waits for something new; at most one chunk of each sample."""
        while not self._waiting:
            await self._news.wait()
            self._news.clear()
        waiting, self._waiting = self._waiting, []
        return waiting

    @property
    def has_more(self) -> bool:
        return bool(self._waiting)

    async def whole(self) -> None:
        """Waits for the end; then `collector.result` is there."""
        while not self.finished:
            await self.take()

    def close(self) -> None:
        """Cancels what is not finished; its pages are free before the next step."""
        if not self.finished:
            self._thread.cancel(self)

    def deliver(self, chunks: Sequence[StreamChunk], finished: bool, piece: Piece | None = None) -> None:
        if piece is not None:
            piece.delivered = time.perf_counter()
        for chunk in chunks:
            same = next((one for one in self._waiting if one.index == chunk.index), None)
            if same is None:
                self._waiting.append(chunk)
            else:
                _join(same, chunk)
        self.finished |= finished
        self._news.set()


News = tuple[Stream, Sequence[StreamChunk], bool, Ledger | None]


class EngineThread:
    """loop: the event loop that streams belong to. aside: a bit of work for when there is none (milliseconds); True:
    there is more of it."""

    def __init__(
        self, engine: Engine, tally: Tally, loop: asyncio.AbstractEventLoop, aside: Callable[[], bool] | None = None
    ) -> None:
        self.engine, self.tally, self.loop = engine, tally, loop
        self._aside, self._rest_s = aside, None if aside is None else IDLE_S
        self.load = Load(capacity=engine.capacity, free=engine.capacity)
        self.beat = time.monotonic()  # when it last came round
        self.streams: dict[str, Stream] = {}
        self._looked = 0.0
        self._orders: list[Callable[[], None]] = []
        self._wanted = threading.Condition()
        self.spent = Spent()
        self._closing = self._turning = False
        self._steps = 0
        self._thread = threading.Thread(target=self._work, name="edgewise-engine", daemon=True)
        self._thread.start()

    # ── from the event loop ─────────────────────────────────────────────────────────────

    def start(self, request: Request, collector: Collector) -> Stream:
        """The request was checked already (engine.checks): it is refused no more, though it may end with an error."""
        stream = Stream(request, collector, self)
        ledger = stream.ledger = LEDGER.get()
        if ledger is not None:
            ledger.streams += 1
            ledger.ordered, ledger.waited = stream.arrival, (self.spent, self.spent)
            ledger.tally = self.tally
        self._order(lambda: self._add(stream))
        return stream

    def cancel(self, stream: Stream) -> None:
        self._order(lambda: self._drop(stream))

    async def call(self, work: Callable[[], Any]) -> Any:
        """Something else that needs the device, between two steps."""
        answer: asyncio.Future[Any] = self.loop.create_future()

        def order() -> None:
            try:
                result, problem = work(), None
            except Exception as error:
                result, problem = None, error

            def tell() -> None:
                if not answer.done():
                    answer.set_result(result) if problem is None else answer.set_exception(problem)

            self.loop.call_soon_threadsafe(tell)

        self._order(order)
        return await answer

    def soon(self, work: Callable[[], None]) -> None:
        """The same, and nobody waits for it."""
        self._order(work)

    def stuck_s(self) -> float:
        """Seconds since it last came round with work to do; 0 when it is idle."""
        return time.monotonic() - self.beat if self._turning or self.streams or self._orders else 0.0

    def close(self) -> None:
        with self._wanted:
            self._closing = True
            self._wanted.notify()
        self._thread.join()

    def _order(self, order: Callable[[], None]) -> None:
        with self._wanted:
            self._orders.append(order)
            self._wanted.notify()

    # ── the thread ──────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        engine = self.engine
        while True:
            with self._wanted:
                if not (self._orders or self._closing or engine.has_work()):
                    self._look()
                while not (self._orders or self._closing or engine.has_work()):
                    self._turning = False
                    if not self._wanted.wait(self._rest_s):
                        break
                self._turning = True
                orders, self._orders = self._orders, []
            self.beat = time.monotonic()
            for order in orders:
                order()
            if self._closing:
                for stream in list(self.streams.values()):
                    self._drop(stream)
                return
            if engine.has_work():
                self._step()
                self._rest_s = None if self._aside is None else IDLE_S
            elif self._aside is not None and not orders:
                self._rest_s = 0.002 if self._aside() else None  # in pieces, so that whoever comes does not wait
            if self.beat - self._looked > LOOK_S:
                self._look()

    def _look(self) -> None:
        self._looked = time.monotonic()
        running, waiting = self.engine.counts()
        self.load = Load(running, waiting, self.engine.capacity, self.engine.kv.free_tokens(), self._steps)

    def _step(self) -> None:
        self._steps += 1
        begin, engine = time.perf_counter(), self.engine
        try:
            events = engine.step()
        except Exception as problem:  # nobody knows whose fault it was: all that run end, and the server goes on
            traceback.print_exc(file=sys.stderr)
            events = [
                Event(name, (), (), "error", f"A step failed ({type(problem).__name__}).", index)
                for name, stream in self.streams.items()
                for index in range(stream.request.params.n)
            ]
            for name in self.streams:
                self.engine.cancel(name)
        for name in engine.begun:
            ledger = self.streams[name].ledger if name in self.streams else None
            if ledger is not None and ledger.waited is not None and not ledger.begun:
                ledger.begun, ledger.waited = begin, (ledger.waited[0], self.spent)
        news: list[News] = []
        now = time.perf_counter()
        for event in events:
            stream = self.streams.get(event.request_id)
            if stream is not None:
                news.append((*self._tell(stream, event, now), stream.ledger))
        told = time.perf_counter()
        words = self.spent.detokenise + told - now
        self.spent = Spent(engine.schedule_s, engine.forward_s, engine.sample_s, words)
        if news:
            self.loop.call_soon_threadsafe(_deliver, news, told, self.spent)

    def _tell(self, stream: Stream, event: Event, now: float) -> tuple[Stream, Sequence[StreamChunk], bool]:
        collector = stream.collector
        try:
            if collector.take(event):  # a stop string ended it
                self.engine.cancel(event.request_id, event.index)
        except Exception as problem:  # the text could not be made: this request ends, no other
            traceback.print_exc(file=sys.stderr)
            self.engine.cancel(event.request_id)
            for index in range(stream.request.params.n):
                text = f"The text could not be made ({type(problem).__name__})."
                collector.chunks.append(StreamChunk("", [], "error", index, error=text))
            del self.streams[event.request_id]
            chunks, collector.chunks = collector.chunks, []
            return stream, chunks, True
        chunks, collector.chunks = collector.chunks, []
        if event.tokens:
            if not stream.begun:
                self.tally.first(now - stream.arrival, len(stream.request.tokens))
            self.tally.more(now - stream.latest, len(event.tokens), stream.begun and now > stream.latest)
            stream.begun, stream.latest = True, now
            self.tally.drafts(event.drafted, event.accepted)
        for chunk in chunks:
            if chunk.finish_reason:
                self.tally.ended(chunk.finish_reason)
        if collector.finished:
            del self.streams[event.request_id]
            made = collector.metrics()
            self.tally.whole(now - stream.arrival, made.prompt_tokens, made.completion_tokens)
        return stream, chunks, collector.finished

    def _add(self, stream: Stream) -> None:
        self.streams[stream.request.id] = stream
        try:
            self.engine.add(stream.request)
        except Exception as problem:
            del self.streams[stream.request.id]
            chunks = [StreamChunk("", [], "error", i, error=str(problem)) for i in range(stream.request.params.n)]
            self.loop.call_soon_threadsafe(_deliver, [(stream, chunks, True, None)])

    def _drop(self, stream: Stream) -> None:
        if self.streams.pop(stream.request.id, None) is not None:
            self.engine.cancel(stream.request.id)
            self.tally.ended("abort")
            self._look()
            chunks = [
                StreamChunk("", [], "error", i, error="The server is shutting down.")
                for i in range(stream.request.params.n)
            ]
            if not self.loop.is_closed():
                self.loop.call_soon_threadsafe(_deliver, [(stream, chunks, True, None)])


def _deliver(news: "Sequence[News]", told: float = 0.0, spent: Spent = Spent()) -> None:
    for stream, chunks, finished, ledger in news:
        stream.deliver(chunks, finished, None if ledger is None else ledger.told(told, spent))


def _join(one: StreamChunk, next_: StreamChunk) -> None:
    """What came later goes behind what nobody has read yet."""
    one.text += next_.text
    one.reasoning += next_.reasoning
    one.token_ids += next_.token_ids
    one.finish_reason, one.stop_reason, one.error = next_.finish_reason, next_.stop_reason, next_.error
    one.metrics = next_.metrics or one.metrics
    if one.logprobs is not None and next_.logprobs is not None:
        one.logprobs += next_.logprobs
