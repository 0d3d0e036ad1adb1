"""Whether, how long and how hard a model is to think, in the words of each dialect, and what that means for its prompt,
its rules and its answer.

A hard budget forces the closing tag when it is used up. A soft one is only told: to a template that reads it, or in a
sentence of the system message.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from edgewise.base import SamplingParams
from edgewise.decode.grammars import Grammars
from edgewise.decode.rules import budget_rule, later_rules
from edgewise.serve.http.errors import ApiError, bad
from edgewise.serve.http.fields import Fields
from edgewise.text.thinking import AFTER, BEFORE, INSIDE, Splitter, Thinking

if TYPE_CHECKING:
    from edgewise.serve.http.hosted import Hosted

EFFORTS: dict[str, int | None] = {  # tokens, where the template reads no effort; None: as many as it likes
    "none": 0, "minimal": 256, "low": 1024, "medium": 4096, "high": None, "xhigh": None, "max": None,
}  # fmt: skip
MOST = 1 << 31


@dataclass(frozen=True)
class Wanted:
    """What a request asks for; None: what the model does by itself. budget: tokens."""

    enabled: bool | None = None
    budget: int | None = None
    soft: bool = False
    effort: str | None = None

    @property
    def hard(self) -> int | None:
        return 0 if self.enabled is False else None if self.soft else self.budget

    def options(self, thinking: Thinking | None) -> dict[str, Any]:
        """Variables that the template reads."""
        given = {"enable_thinking": self.enabled, "thinking_budget": self.budget, "reasoning_effort": self.effort}
        reads = frozenset[str]() if thinking is None else thinking.reads
        return {name: value for name, value in given.items() if value is not None and name in reads}

    def told(self, messages: Sequence[Mapping[str, Any]], thinking: Thinking | None) -> list[dict[str, Any]]:
        """The messages, with a soft budget said in them where the template would not."""
        if not self.soft or not self.budget or thinking is None or "thinking_budget" in thinking.reads:
            return [dict(message) for message in messages]
        said = f"Think for at most {self.budget} tokens before you answer."
        first, *rest = (dict(message) for message in messages)
        if first["role"] == "system":
            return [{**first, "content": f"{first['content']}\n\n{said}"}, *rest]
        return [{"role": "system", "content": said}, first, *rest]


def chat_thinking(body: Fields, model: "Hosted") -> Wanted:
    """OpenAI's reasoning_effort, `thinking` as others have it, vLLM's and llama.cpp's names for a budget."""
    effort = effort_of(body, "reasoning_effort", model)
    found = [(effort, "reasoning_effort")] if effort is not None else []
    given = body.mapping("thinking")
    if given is not None:
        inner = Fields(given, "thinking.")
        kind = inner.text("type", "enabled", ("enabled", "disabled", "adaptive"))
        soft = inner.text("mode", "hard", ("hard", "soft")) == "soft"
        budget = inner.integer("budget_tokens", None, 0, MOST)
        inner.done()
        if kind == "disabled" and budget:
            raise bad("thinking.budget_tokens", "thinking.budget_tokens needs thinking to be enabled.")
        if kind != "disabled":
            needed(model, "thinking")
        found.append((Wanted(kind != "disabled", budget, soft), "thinking"))
    for name, low in (("thinking_token_budget", 0), ("reasoning_budget", -1)):
        budget = body.integer(name, None, low, MOST)
        if budget is not None and budget >= 0:
            needed(model, name)
            found.append((Wanted(budget > 0, budget), name))
    if len(found) > 1:
        raise bad(found[1][1], f"{found[0][1]} and {found[1][1]} both say how to think; give one of them.")
    return found[0][0] if found else Wanted()


def anthropic_thinking(body: Fields, model: "Hosted", most: int | None) -> Wanted:
    """Without `thinking` there is none. most: max_tokens, of which the budget is a part."""
    given = body.mapping("thinking")
    if given is None:
        return Wanted(False)
    inner = Fields(given, "thinking.")
    kind = inner.text("type", None, ("enabled", "disabled", "adaptive"))
    budget = inner.integer("budget_tokens", None, 1, MOST)
    inner.text("display", None, ("summarized",))  # the thought itself is more
    inner.done()
    if kind is None:
        raise bad("thinking.type", "thinking needs a type: enabled, disabled or adaptive.", "missing")
    if kind == "disabled":
        return Wanted(False)
    needed(model, "thinking")
    if kind == "enabled" and budget is None:
        raise bad("thinking.budget_tokens", "thinking.budget_tokens is missing: how many tokens may the thought have?",
                  "missing")  # fmt: skip
    if budget is not None and (kind == "adaptive" or (most is not None and budget >= most)):
        raise bad("thinking.budget_tokens", "thinking.budget_tokens belongs to the type enabled, and has to be less "
                  "than max_tokens.")  # fmt: skip
    return Wanted(True, budget)


def ollama_think(body: Fields, model: "Hosted") -> Wanted:
    """true, false, or an effort."""
    value = body.anything("think")
    if isinstance(value, str):
        return effort_of(body, "think", model) or Wanted()
    if value is not None and not isinstance(value, bool):
        raise body.wrong("think", "true, false, or one of low, medium, high")
    if value:
        needed(model, "think")
    return Wanted(value)


def effort_of(body: Fields, name: str, model: "Hosted") -> Wanted | None:
    effort = body.text(name, None, tuple(EFFORTS))
    if effort is None:
        return None
    if effort == "none":
        return Wanted(False)
    thinking = needed(model, body.name(name))
    read = "reasoning_effort" in thinking.reads
    return Wanted(True, None if read else EFFORTS[effort], False, effort)


def needed(model: "Hosted", field: str) -> Thinking:
    """Raises ApiError for a model that does not think."""
    if model.thinking is None:
        raise refused(model, field)
    return model.thinking


def refused(model: "Hosted", field: str) -> ApiError:
    return bad(field, f"{field}: {model.name} does not think, its chat template has no place for it.", "unsupported")


def thought(
    thinking: Thinking, wanted: Wanted, prompt: Sequence[int], params: SamplingParams, grammars: Grammars | None
) -> tuple[SamplingParams, dict[str, Any]]:
    """The settings, and what the request brings along: its rules, and what parts each sample's text.

    What a text is held to (a schema, a grammar) holds for the answer, not for the thought.
    """
    state = thinking.begins(prompt)
    if state == AFTER:
        return params, {}
    rules: list[Callable[[], Any]] = []
    shape = params.structured_outputs
    if shape is not None and grammars is not None:
        opening: tuple[int, ...] = ()
        if state == BEFORE:  # it may think first
            if wanted.enabled is False:
                return params, {}
            opening = thinking.opening_ids
        alone = SamplingParams(structured_outputs=shape)
        rules.append(lambda: later_rules(alone, (), grammars, thinking.closed, opening)[0])
        params = replace(params, structured_outputs=None)
    if wanted.hard is not None:
        rules.append(
            partial(
                budget_rule, wanted.hard, thinking.closing, thinking.opened, thinking.closed, inside=state == INSIDE
            )
        )
    return params, {"rules": tuple(rules), "splitter": partial(Splitter, thinking, state)}
