"""A quick start left some weights where they are read more slowly; bit by bit they are moved while the model works."""

import atexit
import threading
import time
import weakref
from typing import Protocol

STEP = 2 << 20  # bytes: milliseconds of work, for which a step of the model may have to wait
PATIENCE = 2.0  # seconds: whoever wants a short answer is not disturbed at all
SHARE = 0.1  # of one core


_over = threading.Event()  # the process ends: a thread inside the extension would then bring it down
_movers: list[threading.Thread] = []


class Movable(Protocol):
    def settle(self, nbytes: int) -> bool: ...


def settle_now(loading: Movable) -> None:
    """Blocks until nothing is left to move: before a measurement, or where a start may take its time."""
    while loading.settle(64 << 20):
        pass


def settle_slowly(owner: object, loading: Movable) -> None:
    """The same beside other work, in a thread that ends with `owner`."""
    if loading.settle(0):
        thread = threading.Thread(
            target=_move, args=(weakref.ref(owner), weakref.ref(loading)), name="edgewise-settle", daemon=True
        )
        _movers[:] = [*(mover for mover in _movers if mover.is_alive()), thread]
        thread.start()


@atexit.register
def stop_settling() -> None:
    _over.set()
    for thread in _movers:
        thread.join()


def _move(owner: "weakref.ref[object]", loading: "weakref.ref[Movable]") -> None:
    pause = PATIENCE
    while True:
        if _over.wait(pause):
            return
        movable = loading()
        if owner() is None or movable is None:
            return
        start = time.perf_counter()
        if not movable.settle(STEP):
            return
        del movable  # nothing is kept alive while this sleeps
        pause = (time.perf_counter() - start) * (1 / SHARE - 1)
