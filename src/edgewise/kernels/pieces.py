"""A vocabulary's strings where the file's parser left them: ids by string, and which strings a text contains."""

from collections.abc import Iterator, Mapping

from edgewise import _native
from edgewise.kernels.api import Ints
from edgewise.kernels.parsing import Strings


class Pieces(Mapping[str, int]):
    """String → its last id, without a Python object for each. Only for strings that are all UTF-8; "" has no id."""

    def __init__(self, strings: Strings) -> None:
        self._strings = strings
        self._index = _native.Pieces(*strings.stored)

    def __getitem__(self, text: str) -> int:
        found = self._index.find(text.encode("utf-8", "surrogatepass"))
        if found < 0:
            raise KeyError(text)
        return found

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and self._index.find(text.encode("utf-8", "surrogatepass")) >= 0

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(text for text in self._strings if text))

    def within(self, text: bytes) -> Ints:
        """Ids of every string that occurs in the text, ascending. Time: one look at each string of the vocabulary."""
        return self._index.within(text)

    def first_bad_pair(self, merges: Strings) -> int | None:
        """The first line that is not two of our strings with a space between that are together one of our strings."""
        found = self._index.first_bad_pair(*merges.stored)
        return None if found < 0 else found


def pairs_within(merges: Strings, text: bytes) -> Ints:
    """Which lines, without the space, occur in the text; ascending."""
    return _native.pairs_within(*merges.stored, text)
