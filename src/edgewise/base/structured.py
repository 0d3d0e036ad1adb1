"""What a text has to look like: vLLM's StructuredOutputsParams, as plain data that every room may carry."""

import json as json_text
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgewise.base.errors import BadInput

KINDS = ("json", "regex", "choice", "grammar", "json_object")


@dataclass(frozen=True)
class StructuredOutputsParams:
    """Exactly one of these. json: a JSON schema, as text or as an object (kept as text, so that equal ones compare
    equal). regex: matches the whole text. choice: the text is one of these. grammar: Lark, or GBNF as llama.cpp has it.
    json_object: any JSON object. Whether it can be fulfilled is found out when a model compiles it."""

    json: str | Mapping[str, Any] | bool | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool = False

    def __post_init__(self) -> None:
        given = [name for name in KINDS if getattr(self, name) not in (None, False)]
        if self.json is False:  # a schema too: nothing fits
            given.append("json")
        if len(given) != 1:
            said = f"{' and '.join(given)} are given" if given else "none is given"
            raise BadInput(f"structured_outputs takes exactly one of {', '.join(KINDS)}; {said}.")
        if self.json is not None and not isinstance(self.json, str):
            try:
                text = json_text.dumps(self.json, ensure_ascii=False, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise BadInput(f"structured_outputs.json is no JSON: {error}.") from None
            object.__setattr__(self, "json", text)
        for name in ("regex", "grammar"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise BadInput(f"structured_outputs.{name} must be a non-empty text.")
        if self.choice is not None:
            texts = () if isinstance(self.choice, str) else tuple(self.choice)
            if not texts or not all(isinstance(text, str) and text for text in texts):
                raise BadInput("structured_outputs.choice must be a list of non-empty texts.")
            object.__setattr__(self, "choice", texts)

    @property
    def kind(self) -> str:
        return next(name for name in KINDS if getattr(self, name) not in (None, False))
