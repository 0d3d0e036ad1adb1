"""The window over the last tokens: neurons that none of them used leave first, from a list deleted by swapping.

Paper:  Alizadeh et al., LLM in a flash, arXiv 2312.11514, section 3.3. There a deleted row's memory is overwritten by
        the last row's; here rows stay where they are and only entries of the list are swapped, because the kernel goes
        by places.
Exact.
Needs:  nothing
Cost:   O(1) a neuron that comes, is used or leaves; O(those here) when somebody must leave
Status: kept, the only one for neurons
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edgewise.weights.api import Keys


class NeuronWindow:
    """count: neurons of all layers together. window: tokens after which a neuron leaves at once, as in the paper; 0: it
    leaves when its room is needed, whoever was used longest ago first."""

    keeps = True

    def __init__(self, count: int = 0, window: int = 0) -> None:
        self.count = count
        self.window = window
        self.token = 0
        self._used = np.zeros(count, np.int64)  # the token that used it last
        self._at = np.full(count, -1, np.int64)  # its entry of the list
        self._held = np.zeros(count, np.int64)
        self._size = 0

    # ── many at once, for weights.neurons ───────────────────────────────────────────────

    def come(self, keys: Keys) -> None:
        self._held[self._size : self._size + len(keys)] = keys
        self._at[keys] = np.arange(self._size, self._size + len(keys))
        self._size += len(keys)

    def use(self, keys: Keys) -> None:
        self._used[keys] = self.token

    def leave(self, keys: Keys) -> None:
        """The entries behind the new end move into the holes before it."""
        end = self._size - len(keys)
        moving = self._held[end : self._size]
        gone = self._at[keys]
        self._at[keys] = -1
        moving = moving[self._at[moving] >= 0]
        holes = gone[gone < end]
        self._held[holes] = moving
        self._at[moving] = holes
        self._size = end

    def expired(self, pinned: npt.NDArray[np.bool_]) -> Keys:
        """Who has left the window."""
        if not self.window:
            return np.empty(0, np.int64)
        held = self._held[: self._size]
        return held[(self._used[held] <= self.token - self.window) & ~pinned[held]]

    def oldest(self, want: int, pinned: npt.NDArray[np.bool_]) -> Keys:
        """At most `want` of those here and not pinned, whoever was used longest ago."""
        held = self._held[: self._size]
        free = held[~pinned[held]]
        if len(free) <= want:
            return free
        return free[np.argpartition(self._used[free], want - 1)[:want]]

    # ── one at a time: the contract of a residency ──────────────────────────────────────

    def came(self, key: int) -> None:
        if self._at[key] < 0:
            self.come(np.array([key]))
        self.token += 1
        self._used[key] = self.token

    def used(self, key: int) -> None:
        self.token += 1
        self._used[key] = self.token

    def left(self, key: int) -> None:
        if self._at[key] >= 0:
            self.leave(np.array([key]))

    def routed(self, first: int, shares: Sequence[float]) -> None:
        pass

    def victim(self, incoming: int, wanted: bool, may_leave: Callable[[int], bool]) -> int | None:
        held = self._held[: self._size]
        order = held[np.argsort(self._used[held], kind="stable")].tolist()
        return next(filter(may_leave, order), None)
