"""What a user asks for, and what comes back. Frozen: nobody edits a request on its way through the house."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NewType

from edgewise.base.errors import BadInput
from edgewise.base.structured import StructuredOutputsParams

SeqId = NewType("SeqId", int)


@dataclass(frozen=True)
class SamplingParams:
    """How to turn logits into tokens. Names and meanings follow vLLM's class of the same name.

    temperature 0 is greedy (ties go to the lowest id). top_k 0 and top_p 1 switch those filters off.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int | None = 16  # None: until the context is full
    min_tokens: int = 0
    seed: int | None = None
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_token_ids: Sequence[int] | None = None
    logprobs: int | None = None  # how many alternatives to report for each generated token
    skip_special_tokens: bool = True
    structured_outputs: StructuredOutputsParams | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))

        def need(ok: bool, name: str, rule: str) -> None:
            if not ok:
                raise BadInput(f"{name} must be {rule} but is {getattr(self, name)!r}.")

        need(isinstance(self.n, int) and self.n >= 1, "n", "an integer of at least 1")
        need(math.isfinite(self.temperature) and self.temperature >= 0, "temperature", "0 or greater")
        need(0 < self.top_p <= 1, "top_p", "in (0, 1]")
        need(isinstance(self.top_k, int) and self.top_k >= -1, "top_k", "0 (off) or a positive integer")
        need(0 <= self.min_p <= 1, "min_p", "in [0, 1]")
        need(self.max_tokens is None or self.max_tokens >= 0, "max_tokens", "0 or greater")
        need(self.min_tokens >= 0, "min_tokens", "0 or greater")
        need(math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0, "repetition_penalty", "positive")
        need(-2 <= self.presence_penalty <= 2, "presence_penalty", "in [-2, 2]")
        need(-2 <= self.frequency_penalty <= 2, "frequency_penalty", "in [-2, 2]")
        need(self.logprobs is None or 0 <= self.logprobs <= 20, "logprobs", "between 0 and 20")
        need(all(s for s in self.stop), "stop", "a list of non-empty strings")
        if self.structured_outputs is not None:  # its grammar alone says where the text may end
            need(isinstance(self.structured_outputs, StructuredOutputsParams), "structured_outputs",
                 "a StructuredOutputsParams")  # fmt: skip
            need(not self.ignore_eos, "ignore_eos", "false beside structured_outputs")
            need(self.min_tokens == 0, "min_tokens", "0 beside structured_outputs")


@dataclass(frozen=True)
class Request:
    """One prompt, already tokenised, with its sampling settings."""

    tokens: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    id: str = ""
    arrival_s: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenLogprob:
    """The log probability of one token, natural logarithm, after no filter and before temperature."""

    token: int
    logprob: float


@dataclass(frozen=True)
class Event:
    """One step of one request: new tokens, or the end (finish_reason set), or an error."""

    request_id: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[tuple[TokenLogprob, ...], ...] = ()  # per token: the chosen one first, then the alternatives
    finish_reason: str | None = None  # "stop" | "length" | "cancelled" | "error"
    error: str | None = None
    index: int = 0  # which of the request's n samples
    stop_reason: int | None = None  # the entry of stop_token_ids that ended it; None for the model's own ends
    drafted: int = 0  # tokens that a speculator had proposed for this step, and how many of them came true
    accepted: int = 0
    reused: int = 0  # of the prompt's tokens, known from earlier requests
