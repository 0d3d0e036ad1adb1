"""Responses that clients may come back to (`previous_response_id`): in memory, bounded, the oldest go first."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Kept:
    """A finished response as it was sent, and the whole talk up to and with its answer (instructions aside)."""

    body: dict[str, Any]
    talk: tuple[Message, ...]

    @property
    def nbytes(self) -> int:
        return 2000 + sum(200 + len(str(message)) for message in self.talk)


class Remembered:
    """most: responses. room_bytes: of their talks, roughly. They are gone when the server ends."""

    def __init__(self, most: int, room_bytes: int) -> None:
        self.most, self.room_bytes = most, room_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._used = 0

    def keep(self, body: dict[str, Any], talk: Sequence[Message]) -> None:
        kept = Kept(body, tuple(talk))
        self._kept[body["id"]] = kept
        self._used += kept.nbytes
        while self._kept and (len(self._kept) > self.most or self._used > self.room_bytes):
            self.drop(next(iter(self._kept)))

    def find(self, name: str) -> Kept | None:
        kept = self._kept.get(name)
        if kept is not None:
            self._kept.move_to_end(name)
        return kept

    def drop(self, name: str) -> bool:
        kept = self._kept.pop(name, None)
        if kept is not None:
            self._used -= kept.nbytes
        return kept is not None
