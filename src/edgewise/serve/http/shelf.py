"""The models of a server: which are loaded, for how long, and what has to go when another is wanted.

Who uses a model holds a lease on it from the moment it is found until its answer has been sent; a model with leases is
never unloaded. Loads and unloads go one after another, in the order in which they were wanted. When a model that is in
use has to go, new requests for it queue up behind the one that waits, so nobody waits for ever. All of this happens in
the event loop's thread; only the loading itself, and the closing, are done in others.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from edgewise.assemble import CONTEXT
from edgewise.base import EdgewiseError, OutOfRoom
from edgewise.models import read_spec
from edgewise.models.api import ModelSpec
from edgewise.serve.http.engine_thread import Load
from edgewise.serve.http.errors import ApiError, bad
from edgewise.serve.http.fields import Fields
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.http.tally import Tally
from edgewise.serve.llm import LLM
from edgewise.text import load_template
from edgewise.text.api import ChatTemplate
from edgewise.weights import open_checkpoint

FOREVER = -1.0  # keep_alive below 0
Opener = Callable[[], tuple[LLM, ChatTemplate | None]]


@dataclass(frozen=True)
class Card:
    """What is known of a model without loading it."""

    name: str  # that the file gives itself
    spec: ModelSpec
    dialect: str  # of its file
    context: int
    chat: bool
    weight_bytes: int


def read_card(path: str | Path, ctx_size: int | None, *, chat: bool | None = None) -> Card:
    """Reads headers only; refuses what cannot be served. chat: None: as the file has it."""
    checkpoint = open_checkpoint(path)
    header = checkpoint.header()
    spec = read_spec(header, ctx_size or None)
    context = spec.context if ctx_size == 0 else min(spec.context, ctx_size or CONTEXT)
    weights = sum(checkpoint.info(name).extent.nbytes for name in checkpoint.names())
    chats = load_template(header) is not None if chat is None else chat
    return Card(header.name, spec, header.dialect, context, chats, weights)


class Place:
    """A model's place on the shelf. open: loads it (in a thread), and its template; None: it is here to stay."""

    def __init__(self, name: str, card: Card, open: Opener | None = None, hosted: Hosted | None = None) -> None:
        self.name, self.card, self.open, self.hosted = name, card, open, hosted
        self.created = int(time.time()) if hosted is None else hosted.created
        self.tally = Tally() if hosted is None else hosted.tally
        self.users = self.loads = self.unloads = 0
        self.leaving = False  # it is in use, and goes when it is not
        self.keep_s: float | None = None  # None: as the server has it
        self.expires: float | None = None  # seconds since the epoch; None: in use, or for ever
        self.used = time.monotonic()
        self.load_s = 0.0  # what loading took the last time
        self.waiters: list[asyncio.Future[None]] = []
        self.coming: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    @property
    def load(self) -> Load:
        return Load() if self.hosted is None else self.hosted.thread.load


class Lease:
    """Its holder uses the model; `keep_s` is what a request asked for with keep_alive."""

    def __init__(self, shelf: "Shelf", place: Place) -> None:
        self.shelf, self.place = shelf, place
        self.keep_s: float | None = None
        self._held = True

    def release(self) -> None:
        if self._held:
            self._held = False
            self.shelf.released(self)


class Shelf:
    """queue: requests that may wait for each model. max_loaded: models in memory at once, 0: all. keep_s: how long an
    unused one stays; below 0: for ever."""

    def __init__(
        self, models: Sequence[Place | Hosted], queue: int, max_loaded: int = 0, keep_s: float = FOREVER
    ) -> None:
        self.places = {place.name: place for place in map(_placed, models)}
        self.queue, self.max_loaded, self.keep_s = queue, max_loaded or len(self.places), keep_s
        self.draining = False
        self._moving = asyncio.Lock()
        self._freed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        for place in self._loaded():
            self._rest(place)

    # ── asking ──────────────────────────────────────────────────────────────────────────

    @property
    def models(self) -> dict[str, Hosted]:
        """Those that are loaded."""
        return {place.name: place.hosted for place in self.places.values() if place.hosted is not None}

    def place(self, name: str | None) -> Place:
        if name is None and len(self.places) == 1:
            return next(iter(self.places.values()))
        if name is None:
            raise bad("model", f"Give a model: {', '.join(self.places)}.", "missing")
        found = self.places.get(name) or self.places.get(name.removesuffix(":latest"))
        if found is None:
            raise ApiError(
                404, f"There is no model '{name[:80]}' here; there is {', '.join(self.places)}.", param="model",
                code="model_not_found",
            )  # fmt: skip
        return found

    def busy(self) -> ApiError | None:
        if self.draining:
            return ApiError(503, "The server is shutting down.", code="draining", retry_s=30)
        for place in self.places.values():
            model = place.hosted
            running = 0 if model is None else len(model.thread.streams) - model.llm.parts.engine.sequences
            if running >= self.queue or len(place.waiters) > self.queue:
                return ApiError(429, "Too many requests are waiting already.", code="queue_full", retry_s=1)
        return None

    @property
    def in_flight(self) -> int:
        return sum(len(model.thread.streams) for model in self.models.values()) + sum(
            len(place.waiters) for place in self.places.values()
        )

    # ── using ───────────────────────────────────────────────────────────────────────────

    async def use(self, place: Place) -> Lease:
        """Loads the model if need be. Raises ApiError when it cannot be."""
        if place.hosted is not None and not place.leaving:
            self._grant(place)
            return Lease(self, place)
        turn = asyncio.get_running_loop().create_future()
        place.waiters.append(turn)
        self._fetch(place)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in place.waiters:
                place.waiters.remove(turn)
            elif turn.done() and not turn.cancelled() and turn.exception() is None:  # it was granted just now
                Lease(self, place).release()
            raise
        return Lease(self, place)

    def released(self, lease: Lease) -> None:
        place = lease.place
        place.users -= 1
        place.used = time.monotonic()
        if lease.keep_s is not None:
            place.keep_s = lease.keep_s
        if place.users == 0:
            self._freed.set()
            self._rest(place)

    def _grant(self, place: Place) -> None:
        place.users += 1
        place.expires = None
        if place.timer is not None:
            place.timer.cancel()
            place.timer = None

    def _rest(self, place: Place) -> None:
        """Nobody uses it: from now on its time runs."""
        keep = self.keep_s if place.keep_s is None else place.keep_s
        if keep < 0 or place.open is None:
            return
        place.expires = time.time() + keep
        if place.timer is not None:
            place.timer.cancel()
        place.timer = asyncio.get_running_loop().call_later(keep, lambda: self._task(self._retire(place)))

    # ── moving ──────────────────────────────────────────────────────────────────────────

    def _fetch(self, place: Place) -> None:
        if place.coming is None:
            place.coming = self._task(self._bring(place))

    def _task(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _bring(self, place: Place) -> None:
        """Loads it, unless that is not needed any more, and lets in who waited for it."""
        problem: Exception | None = None
        try:
            async with self._moving:
                if place.hosted is None and place.waiters:
                    await self._load(place)
        except Exception as error:
            problem = error
        finally:
            place.coming = None
            waiters, place.waiters = place.waiters, []
            for turn in waiters:
                if turn.done():
                    continue
                if place.hosted is None:
                    turn.set_exception(_unloadable(place, problem))
                else:
                    self._grant(place)
                    turn.set_result(None)

    async def _load(self, place: Place) -> None:
        assert place.open is not None
        await self._make_room()
        began = time.monotonic()
        while True:
            try:
                llm, template = await asyncio.to_thread(place.open)
                break
            except (OutOfRoom, MemoryError):
                idle = self._idle()
                if not idle:
                    raise
                await self._unload(idle[0])
        place.load_s = time.monotonic() - began
        place.loads += 1
        place.hosted = Hosted(llm, place.name, template, place.tally)

    async def _make_room(self) -> None:
        try:
            while len(self._loaded()) >= self.max_loaded:
                idle = self._idle()
                if idle:
                    await self._unload(idle[0])
                    continue
                min(self._loaded(), key=lambda place: place.used).leaving = True
                self._freed.clear()
                await self._freed.wait()
        finally:
            for place in self.places.values():
                place.leaving = False

    async def _retire(self, place: Place) -> None:
        async with self._moving:
            over = place.expires is not None and place.expires <= time.time() + 0.01
            if place.hosted is not None and place.users == 0 and over:
                await self._unload(place)

    async def _unload(self, place: Place) -> None:
        hosted, place.hosted, place.keep_s, place.expires = place.hosted, None, None, None
        assert hosted is not None
        if place.timer is not None:
            place.timer.cancel()
            place.timer = None
        place.unloads += 1
        await asyncio.to_thread(hosted.close)
        del hosted
        await asyncio.to_thread(gc.collect)  # its parts know each other, so counted references do not free them

    def _loaded(self) -> list[Place]:
        return [place for place in self.places.values() if place.hosted is not None]

    def _idle(self) -> list[Place]:
        """Those that may go, the longest unused first."""
        free = [place for place in self._loaded() if place.users == 0 and place.open is not None]
        return sorted(free, key=lambda place: place.used)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        for task in list(self._tasks):
            with suppress(asyncio.CancelledError):
                await task
        for place in self._loaded():
            assert place.hosted is not None
            await asyncio.to_thread(place.hosted.close)


async def model_for(request: Request, body: Fields, *names: str) -> Hosted:
    """The model that a request names, loaded, and held until the answer has been sent. names: of the field."""
    name = next((found for found in (body.text(field) for field in names or ("model",)) if found is not None), None)
    shelf: Shelf = request.app.state.shelf
    lease = await shelf.use(shelf.place(name))
    request.state.leases.append(lease)
    assert lease.place.hosted is not None
    return lease.place.hosted


def _placed(model: Place | Hosted) -> Place:
    if isinstance(model, Place):
        return model
    return Place(model.name, read_card(model.llm.model, model.context, chat=model.template is not None), hosted=model)


def _unloadable(place: Place, problem: Exception | None) -> ApiError:
    said = str(problem) if isinstance(problem, EdgewiseError) else "its log says more"
    if problem is None:
        return ApiError(503, "The server is shutting down.", code="draining", retry_s=30)
    if isinstance(problem, OutOfRoom | MemoryError):
        return ApiError(503, f"{place.name} could not be loaded: {said}", code="out_of_room", retry_s=30)
    return ApiError(500, f"{place.name} could not be loaded: {said}", code="load_failed")
