"""What a chat template may spend: steps of work and bytes of memory, both charged before they are used.

Anything a template makes is charged when it is made and again whenever it is looked through, so that no loop, no
repetition and no shared structure costs more than the budget.
"""

from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from typing import Any

from edgewise.base import BadInput

STEPS = 1_500_000  # a quarter to half a microsecond each
BYTES = 24 << 20
MAX_NUMBER = 10_000  # of copies, columns and the like
_STEPS_PER_VALUE = 2_000  # every message, part and tool brings its own allowance
_STEPS_PER_CHAR = 1
_BYTES_PER_CHAR = 64
_CHARS_PER_STEP = 256
_MAX_BITS = 4096
_VIEWS = (KeysView, ValuesView, ItemsView)


class TemplateBudgetError(BadInput):
    """The template wants more than it may spend."""

    def __init__(self, what: str) -> None:
        super().__init__(f"The chat template needs more {what} than a template may spend, so it was stopped.")


class ForbiddenError(BadInput):
    """The template does what no chat template needs to do."""

    def __init__(self, what: str) -> None:
        super().__init__(f"The chat template does something no chat template may do: {what}.")


class Budget:
    """Counts down. Strings are charged one byte a character, four where they are not ASCII."""

    def __init__(self, values: int = 0, chars: int = 0) -> None:
        self.steps = STEPS + _STEPS_PER_VALUE * values + _STEPS_PER_CHAR * chars
        self.bytes = BYTES + _BYTES_PER_CHAR * chars

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise TemplateBudgetError("steps")

    def reserve(self, nbytes: int) -> None:
        """Charges memory that is about to be used."""
        self.bytes -= nbytes
        if self.bytes < 0:
            raise TemplateBudgetError("memory")
        self.spend(nbytes // _CHARS_PER_STEP)

    def made(self, value: Any) -> Any:
        """Charges a new value by its own size; returns it."""
        if isinstance(value, str):
            self.reserve(width(value))
        elif isinstance(value, list | tuple | dict):
            self.reserve(16 * len(value))
            self.spend(len(value) // 8 + 1)
        elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise TemplateBudgetError("digits")
        return value

    def look(self, value: Any) -> Any:
        """Charges one look through a value, everything inside it included; returns it."""
        if isinstance(value, str):
            self.spend(len(value) // _CHARS_PER_STEP + 1)
        elif isinstance(value, list | tuple | Mapping | ItemsView | KeysView | ValuesView):
            self._walk(value, printed=False)
        elif isinstance(value, range):  # to look for what is no number, every number is compared
            self.spend(len(value) // 4)
        return value

    def text_size(self, value: Any) -> int:
        """At most so many characters come from str() or JSON of a value; every part of it is charged as a step."""
        return self._walk(value, printed=True)

    def _walk(self, value: Any, printed: bool) -> int:
        total = 0
        todo = [value]
        while todo:
            item = todo.pop()
            self.spend(2)
            if isinstance(item, str):
                total += 2 * len(item) + 2
                self.spend(len(item) // _CHARS_PER_STEP)
            elif isinstance(item, Mapping):
                self.spend(len(item))
                total += 4 * len(item) + 2
                todo += item.values()
                todo += item.keys()
            elif isinstance(item, list | tuple | ItemsView | KeysView | ValuesView):
                self.spend(len(item))
                total += 4 * len(item) + 16
                todo += item
            elif item is None or isinstance(item, int | float | range):
                total += 64 + (item.bit_length() // 3 if isinstance(item, int) else 0)
            elif not printed or "Undefined" in type(item).__name__:
                total += 64
            else:
                raise ForbiddenError(f"printing a {type(item).__name__}")
        return total

    # -- bounds of operations -------------------------------------------------------------------------------------

    def number(self, value: Any) -> None:
        """A count of copies or columns must be small."""
        if isinstance(value, int | float) and abs(value) > MAX_NUMBER:
            raise TemplateBudgetError("memory")

    def power(self, base: int, exponent: int) -> None:
        if base.bit_length() * max(exponent, 1) > _MAX_BITS:
            raise TemplateBudgetError("digits")

    def repeated(self, items: Any, count: int) -> None:
        self.reserve((width(items) if isinstance(items, str) else 8 * len(items)) * max(count, 0))

    def replaced(self, text: str, old: Any, new: Any) -> None:
        if isinstance(old, str) and isinstance(new, str):
            self.reserve(4 * (len(text) + text.count(old) * len(new)))

    def joined(self, glue: str, values: Any) -> None:
        self.reserve(4 * (self.text_size(values) + len(glue) * len(values)))

    def formatted(self, pattern: str, mark: str, values: Any) -> None:
        self.reserve(4 * (len(pattern) + pattern.count(mark) * (self.text_size(values) + MAX_NUMBER)))

    def split(self, text: str, separator: Any) -> None:
        pieces = text.count(separator) if isinstance(separator, str) and separator else len(text) // 2
        self.reserve(64 * (pieces + 1))

    def indented(self, text: str, by: Any) -> None:
        self.number(by)
        columns = len(by) if isinstance(by, str) else int(by)
        self.reserve(4 * (len(text) + (text.count("\n") + 1) * max(columns, 0)))

    def json(self, value: Any, indent: Any) -> None:
        columns = len(indent) if isinstance(indent, str) else indent if isinstance(indent, int) else 0
        if not 0 <= columns <= 16:
            raise TemplateBudgetError("memory")
        self.reserve(6 * self.text_size(value))
        if columns:
            self.reserve(columns * _depths(value))


def width(text: str) -> int:
    """Bytes a string takes, at most."""
    return len(text) if text.isascii() else 4 * len(text)


def _depths(value: Any) -> int:
    """Sum over all items of how deep they lie. Call it only after the value was walked and paid for."""
    total = 0
    todo = [(value, 1)]
    while todo:
        item, depth = todo.pop()
        total += depth
        if isinstance(item, Mapping):
            todo += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list | tuple):
            todo += [(inner, depth + 1) for inner in item]
    return total


def measure(value: Any) -> tuple[int, int]:
    """(values, characters) of plain data, for the allowance."""
    values = chars = 0
    todo = [value]
    while todo:
        item = todo.pop()
        values += 1
        if isinstance(item, str):
            chars += len(item)
        elif isinstance(item, Mapping):
            todo += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple):
            todo += item
    return values, chars
