"""Where a request's time goes: its wall time, from the first line of its head to its last byte, in spans.

parse       headers, body, JSON, fields (everything before the engine that is not making tokens)
tokenise    text or messages into tokens
queue       until the first step that computes some of it; `queue_forward` of that is time in which others were
schedule    the policy's choice, drafts, room in the cache
forward     the model's pass
sample      logits into tokens, and telling of them
detokenise  tokens into text, stop strings
deliver     from the engine's thread into the event loop
serialise   into JSON and the stream's frames
send        into the socket
From the first step on the engine's thread serves a batch, so its spans are those of all in it: they all delay this
request. What is sent while the next step is computed is not on the way, so only the last piece's counts (and, for the
time to the first token, the first piece's). What no span explains is waiting for the interpreter, mostly.
"""

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

SPANS = (
    "parse", "tokenise", "queue", "schedule", "forward", "sample", "detokenise", "deliver", "serialise", "send",
)  # fmt: skip
KEPT = 1024  # ledgers of the most recent requests
LEDGER: "ContextVar[Ledger | None]" = ContextVar("ledger", default=None)  # of the request that this task serves


class Spent(NamedTuple):
    """Seconds that an engine's thread has used so far, all requests together."""

    schedule: float = 0.0
    forward: float = 0.0
    sample: float = 0.0
    detokenise: float = 0.0


class Piece:
    """A piece of the answer on its way out: when the thread had it, what it had spent by then, and what came after."""

    __slots__ = ("delivered", "sending", "sent", "spent", "told")

    def __init__(self, told: float, spent: Spent) -> None:
        self.told, self.spent = told, spent
        self.delivered = self.sending = self.sent = 0.0


class Row(NamedTuple):
    """Seconds of one request up to its first piece, or to its last. wall: by the clock; the rest: SPANS."""

    wall: float
    spans: dict[str, float]
    queue_forward: float

    @property
    def explained(self) -> float:
        return sum(self.spans.values()) / self.wall if self.wall else 1.0

    @property
    def besides(self) -> float:
        """Seconds that are no forward pass, neither its own nor one it waited for."""
        return self.wall - self.spans["forward"] - self.queue_forward


class Ledger:
    """Filled in by whoever has the request: the door, the parser, the engine's thread, the event loop."""

    def __init__(self) -> None:
        self.arrived = time.perf_counter()
        self.tokenise = 0.0
        self.ordered = self.begun = 0.0
        self.waited: tuple[Spent, Spent] | None = None  # the thread's, when ordered and at its first step
        self.first: Piece | None = None
        self.last: Piece | None = None
        self.streams = 0
        self.tally: Any = None  # of the model it asks

    @property
    def whole(self) -> bool:
        """A request of one prompt whose answer was sent."""
        pieces = self.first is not None and self.last is not None and self.first.sent > 0 and self.last.sent > 0
        return self.streams == 1 and self.waited is not None and pieces

    def told(self, now: float, spent: Spent) -> Piece:
        """A step gave it something."""
        piece = Piece(now, spent)
        self.first = self.first or piece
        self.last = piece
        return piece

    def sent(self, began: float, ended: float) -> None:
        """Bytes of the body went out: of all that was delivered before."""
        for piece in (self.first, self.last):
            if piece is not None and 0 < piece.delivered <= began and not piece.sent:
                piece.sending, piece.sent = began, ended

    def row(self, piece: Piece) -> Row:
        assert self.waited is not None
        before, base = self.waited
        now = piece.spent
        wait = self.begun - self.ordered
        spans = {
            "parse": self.ordered - self.arrived - self.tokenise,
            "tokenise": self.tokenise,
            "queue": wait,
            "schedule": now.schedule - base.schedule,
            "forward": now.forward - base.forward,
            "sample": now.sample - base.sample,
            "detokenise": now.detokenise - base.detokenise,
            "deliver": piece.delivered - piece.told,
            "serialise": piece.sending - piece.delivered,
            "send": piece.sent - piece.sending,
        }
        return Row(piece.sent - self.arrived, spans, min(wait, base.forward - before.forward))

    def rows(self) -> tuple[Row, Row]:
        """To the first token, and to the end. Only when `whole`."""
        assert self.first is not None
        assert self.last is not None
        return self.row(self.first), self.row(self.last)


@contextlib.contextmanager
def tokenising() -> Iterator[None]:
    """What happens inside is on the account of the request that this task serves."""
    ledger, begin = LEDGER.get(), time.perf_counter()
    try:
        yield
    finally:
        if ledger is not None:
            ledger.tokenise += time.perf_counter() - begin


class Ledgers:
    """The most recent ones, and sums over all: (to the first token, to the end)."""

    def __init__(self) -> None:
        self.recent: deque[tuple[Row, Row]] = deque(maxlen=KEPT)
        self.count = 0
        self.sums: tuple[dict[str, float], dict[str, float]] = (dict.fromkeys(SPANS, 0.0), dict.fromkeys(SPANS, 0.0))

    def add(self, ledger: Ledger) -> None:
        rows = ledger.rows()
        self.recent.append(rows)
        self.count += 1
        for total, row in zip(self.sums, rows, strict=True):
            for name, seconds in row.spans.items():
                total[name] += seconds
