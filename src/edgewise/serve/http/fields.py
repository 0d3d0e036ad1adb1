"""A request's body, read field by field. What nobody reads is refused by its name: nothing is ignored silently."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from edgewise.base.catalog import nearest
from edgewise.serve.http.errors import ApiError, bad


class Fields:
    """A JSON object. null means "not given", as OpenAI has it. where: put before names in messages (`messages[0].`)."""

    def __init__(self, body: Any, where: str = "") -> None:
        if not isinstance(body, Mapping):
            raise bad(where.rstrip(".") or "body", f"{where.rstrip('.') or 'The body'} must be a JSON object.")
        self.given = {key: value for key, value in body.items() if value is not None}
        self._where = where
        self._read: set[str] = set()

    def name(self, name: str) -> str:
        return self._where + name

    def anything(self, name: str, default: Any = None) -> Any:
        self._read.add(name)
        return self.given.get(name, default)

    def integer(self, name: str, default: Any = None, low: int | None = None, high: int | None = None) -> Any:
        value = self.anything(name)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(name, "an integer")
        return self._within(name, value, low, high)

    def number(self, name: str, default: Any = None, low: float | None = None, high: float | None = None) -> Any:
        value = self.anything(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(name, "a number")
        return self._within(name, value, low, high)

    def boolean(self, name: str, default: bool = False) -> bool:
        value = self.anything(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def text(self, name: str, default: Any = None, choices: Collection[str] = ()) -> Any:
        value = self.anything(name, default)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "a string")
        if value is not None and choices and value not in choices:
            raise self.wrong(name, f"one of {', '.join(choices)}")
        return value

    def array(self, name: str, most: int) -> list[Any] | None:
        value = self.anything(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        if len(value) > most:
            raise bad(self.name(name), f"{self.name(name)} has {len(value)} entries; at most {most} are taken.")
        return value

    def mapping(self, name: str, most: int = 1000) -> dict[str, Any] | None:
        value = self.anything(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        if len(value) > most:
            raise bad(self.name(name), f"{self.name(name)} has {len(value)} entries; at most {most} are taken.")
        return value

    def only(self, name: str, *values: Any, why: str = "") -> None:
        """A field of the dialect that is served only as long as it asks for nothing."""
        value = self.anything(name)
        if value is not None and not any(value == one and type(value) is type(one) for one in values):
            taken = f" (only {', '.join(map(str, values))})" if values else ""
            raise bad(self.name(name), f"{self.name(name)} is not supported here{taken}. {why}".strip(), "unsupported")

    def no_effect(self, *names: str) -> None:
        """Fields that say nothing about the answer: who asks, or labels for their own books."""
        self._read.update(names)

    def done(self) -> None:
        for name in self.given:
            if name not in self._read:
                hint = nearest(name, sorted(self._read))
                raise bad(self.name(name), f"There is no field '{self.name(name)}' here.{hint}", "unknown_field")

    def wrong(self, name: str, rule: str) -> ApiError:
        value = repr(self.given.get(name))
        shown = value if len(value) <= 60 else value[:57] + "..."
        return bad(self.name(name), f"{self.name(name)} must be {rule} but is {shown}.")

    def _within(self, name: str, value: float, low: float | None, high: float | None) -> float:
        if low is not None and value < low:
            raise bad(self.name(name), f"{self.name(name)} must be at least {low} but is {value}.")
        if high is not None and value > high:
            raise bad(self.name(name), f"{self.name(name)} must be at most {high} but is {value}.")
        return value
