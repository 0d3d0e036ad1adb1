"""What edits logits before sampling. `rules_for` builds a request's own list, in order; most requests have none."""

from collections.abc import Callable, Collection, Sequence

from edgewise.base import Catalog, SamplingParams
from edgewise.decode.api import LogitsRule
from edgewise.decode.grammars import Grammars

RULES = Catalog("rule", __name__, {
    "none": ".none:NoRule",
    "penalties": ".penalties:Penalties",
    "bias": ".bias:Bias",
    "allowed": ".allowed:Allowed",
    "min_tokens": ".min_tokens:MinTokens",
    "constrained": ".constrained:Constrained",
    "thought_budget": ".thinking_budget:ThinkingBudget",
    "afterwards": ".afterwards:Afterwards",
})


def rules_for(
    params: SamplingParams, ends: Collection[int], grammars: Grammars | None = None
) -> list[LogitsRule]:
    """The rules that these settings ask for: penalties → bias → allowed ids → minimum length → grammar. `ends` stop a
    text."""
    rules: list[LogitsRule] = []
    penalties = (params.repetition_penalty, params.presence_penalty, params.frequency_penalty)
    if penalties != (1.0, 0.0, 0.0):
        rules.append(RULES.load("penalties")(*penalties))
    if params.logit_bias:
        rules.append(RULES.load("bias")(params.logit_bias))
    if params.allowed_token_ids is not None:
        rules.append(RULES.load("allowed")(params.allowed_token_ids))
    if params.min_tokens > 0 and ends:
        rules.append(RULES.load("min_tokens")(params.min_tokens, ends))
    if params.structured_outputs is not None and grammars is not None:
        rules.append(RULES.load("constrained")(grammars.matcher(params.structured_outputs)))
    return rules


Sees = Callable[[Sequence[int]], bool]


def budget_rule(budget: int, closing: Sequence[int], opened: Sees, closed: Sees, *, inside: bool) -> LogitsRule:
    """Ends a thought after `budget` tokens."""
    rule: LogitsRule = RULES.load("thought_budget")(budget, closing, opened, closed, inside=inside)
    return rule


def later_rules(
    params: SamplingParams, ends: Collection[int], grammars: Grammars, closed: Sees, opening: Sequence[int] = ()
) -> list[LogitsRule]:
    """`rules_for`, but for what follows the thought only. opening: tokens that may begin one; (): it has begun."""
    later = RULES.load("afterwards")
    return [later(rule, closed, opening, grammars.ends) for rule in rules_for(params, ends, grammars)]
