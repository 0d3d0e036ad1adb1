"""A catalog: the table of contents of one slot. Names map to lazily imported classes.

`SPECULATORS.build("ngram:n=3")` imports the member's module, passes the keywords to its constructor, and refuses
unknown names and unknown keywords by naming the nearest one that exists. Third parties add members through the
entry-point group `edgewise.<slot>s`.
"""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from edgewise.base.errors import BadInput, Unsupported


def nearest(name: str, known: list[str]) -> str:
    """` Did you mean 'x'?`, or the whole list when nothing is near."""
    import difflib  # here, as the other slow ones below: every command imports this file

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(known)}."


class Catalog(Mapping[str, str]):
    """An immutable name → "module:Class" table for one slot; relative modules resolve against `package`."""

    def __init__(self, slot: str, package: str, members: Mapping[str, str]) -> None:
        self.slot = slot
        self.package = package
        self._members = dict(members)

    def __getitem__(self, name: str) -> str:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def load(self, name: str) -> Any:
        """The member's class. Raises Unsupported, naming the nearest member, when there is none of that name."""
        target = self._members.get(name)
        if target is None:
            from importlib.metadata import entry_points

            for point in entry_points(group=f"edgewise.{self.slot}s"):
                if point.name == name:
                    return point.load()
            raise Unsupported(f"There is no {self.slot} '{name}'.{nearest(name, sorted(self._members))}")
        module, _, attribute = target.partition(":")
        return getattr(importlib.import_module(module, self.package), attribute)

    def build(self, text: str, **extra: Any) -> Any:
        """Builds a member from `name` or `name:key=value,key=value`; values are Python literals or bare words."""
        name, _, tail = text.partition(":")
        cls = self.load(name)
        keywords: dict[str, Any] = dict(extra)
        if not tail:
            return cls(**keywords)
        import ast
        import inspect

        known = [p for p in inspect.signature(cls).parameters if p != "self"]
        for item in filter(None, tail.split(",")):
            key, equals, value = item.partition("=")
            key = key.strip().replace("-", "_")
            if not equals:
                raise BadInput(f"{self.slot} '{name}': '{item}' is not key=value.")
            if key not in known:
                raise BadInput(f"{self.slot} '{name}' has no setting '{key}'.{nearest(key, known)}")
            try:
                keywords[key] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                keywords[key] = value
        return cls(**keywords)
