"""Stop strings over a stream of text: what is emitted never contains a part of a stop string that came true."""

from collections.abc import Sequence

from edgewise.base import BadInput


class StopMatcher:
    """Finds the stop string that ends first (of several ending together, the longest), however the text is cut up.

    `push` returns the text that can no longer become part of a stop; once `matched` is set, the rest is dropped.
    One Knuth-Morris-Pratt automaton per stop: O(stops) per character, nothing is scanned twice.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if any(not stop for stop in stops):
            raise BadInput("A stop string is empty: give at least one character.")
        self.matched: str | None = None
        self._stops = tuple(stops)
        self._tables = [_failures(stop) for stop in self._stops]
        self._states = [0] * len(self._stops)  # characters of each stop matched so far
        self._held = ""

    def push(self, text: str) -> str:
        """The part of everything seen so far that is safe to show and was not shown yet."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        buffer = self._held + text
        for at, char in enumerate(text, start=len(self._held) + 1):
            for k, stop in enumerate(self._stops):
                state, table = self._states[k], self._tables[k]
                while state and stop[state] != char:
                    state = table[state - 1]
                if stop[state] == char:
                    state += 1
                self._states[k] = state
                if state == len(stop):
                    if self.matched is None or len(stop) > len(self.matched):
                        self.matched = stop
                    self._states[k] = table[-1]
            if self.matched is not None:
                self._held = ""
                return buffer[: at - len(self.matched)]
        keep = max(self._states)
        cut = len(buffer) - keep
        self._held = buffer[cut:]
        return buffer[:cut]

    def flush(self) -> str:
        """What was held back, when the text ends without a stop."""
        held, self._held = self._held, ""
        return held if self.matched is None else ""


def _failures(stop: str) -> list[int]:
    """For each prefix of stop, the length of its longest proper border."""
    table = [0] * len(stop)
    border = 0
    for i in range(1, len(stop)):
        while border and stop[i] != stop[border]:
            border = table[border - 1]
        border += stop[i] == stop[border]
        table[i] = border
    return table
