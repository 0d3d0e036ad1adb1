"""What comes back from a request: vLLM's names and shapes, filled from the engine's events as they arrive."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgewise.base import Event, SamplingParams, TokenLogprob
from edgewise.text.api import Tokenizer
from edgewise.text.stops import StopMatcher
from edgewise.text.thinking import Splitter

CARRY = 8  # last tokens of the prompt that the detokeniser sees: more than one character can be made of


@dataclass
class Logprob:
    """Natural logarithm, of the model's own distribution: before penalties, filters and temperature."""

    logprob: float
    rank: int | None  # 1: the likeliest; None: not among the alternatives that were asked for
    decoded_token: str


@dataclass
class CompletionOutput:
    """One sample. text is that of token_ids up to, and without, what ended it (a token, or a stop string). reasoning:
    what a model that thinks wrote before it."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None  # "stop" | "length" | "cancelled" | "error"
    stop_reason: int | str | None = None  # the stop string or stop_token_id that ended it
    logprobs: list[dict[int, Logprob]] | None = None
    cumulative_logprob: float | None = None
    error: str | None = None
    reasoning: str = ""


@dataclass
class Metrics:
    """ttft_s: from the request's arrival to its first token. tok_s: tokens after the first (of each sample) over the
    time since the first one; when there was only one, tokens over the whole time. passes: of the model, that gave
    tokens (of n samples each has its own). drafted: tokens a speculator proposed; accepted: those that came true."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    ttft_s: float = 0.0
    tok_s: float = 0.0
    total_s: float = 0.0
    reasoning_tokens: int = 0  # of completion_tokens
    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    reused_tokens: int = 0  # of prompt_tokens: not computed, but known from earlier requests

    @property
    def tokens_per_pass(self) -> float:
        return self.completion_tokens / self.passes if self.passes else 0.0


@dataclass
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    metrics: Metrics
    finished: bool = True


@dataclass
class StreamChunk:
    """New text and tokens of one sample; the last chunk of a sample has a finish_reason, the last of all metrics."""

    text: str
    token_ids: list[int]
    finish_reason: str | None = None
    index: int = 0
    stop_reason: int | str | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    error: str | None = None
    metrics: Metrics | None = None
    reasoning: str = ""


class Writer:
    """Turns one sample's tokens into text and watches for stop strings. Without a tokenizer there is no text."""

    def __init__(
        self, index: int, params: SamplingParams, tokenizer: Tokenizer | None, before: Sequence[int],
        splitter: Splitter | None = None,
    ) -> None:  # fmt: skip
        self.output, self.reasoning_tokens = CompletionOutput(index), 0
        self._tokenizer, self._skip, self._splitter = tokenizer, params.skip_special_tokens, splitter
        self._quiet: frozenset[int] = frozenset()  # control tokens that are not shown, where tags are
        if splitter is not None and tokenizer is not None and self._skip:
            self._quiet = tokenizer.special - splitter.thinking.tags
        self._words = tokenizer.stream(skip_special=self._skip and splitter is None) if tokenizer else None
        self._held = self._before(before)
        self._stops = StopMatcher(params.stop)
        self._least = params.min_tokens
        if params.logprobs is not None:
            self.output.logprobs, self.output.cumulative_logprob = [], 0.0

    def take(self, event: Event) -> StreamChunk:
        """Appends an event to the output. After a stop string came true, tokens beyond it are dropped."""
        out, text, thought, tokens = self.output, "", "", []
        fresh: list[dict[int, Logprob]] = []
        for at, token in enumerate(event.tokens):
            tokens.append(token)
            if out.logprobs is not None:
                fresh.append(self._logprob(event.logprobs[at]))
            ending = event.finish_reason == "stop" and at == len(event.tokens) - 1
            if self._words is not None and not ending:
                more = "" if token in self._quiet else self._new(self._words.push(token))
                if self._splitter is not None:
                    was = self._splitter.inside
                    piece, more = self._splitter.push(more)
                    thought += piece
                    self.reasoning_tokens += was or self._splitter.inside
                text += self._watch(more, len(out.token_ids) + len(tokens))
            if self._stops.matched is not None:
                break
        out.finish_reason, out.stop_reason, out.error = event.finish_reason, event.stop_reason, event.error
        if event.finish_reason and self._words is not None and self._stops.matched is None:
            more = self._new(self._words.flush())
            if self._splitter is not None:
                (piece, more), (end, rest) = self._splitter.push(more), self._splitter.flush()
                thought, more = thought + piece + end, more + rest
            text += self._stops.push(more)
            text += self._stops.flush()
        if self._stops.matched is not None:
            out.finish_reason, out.stop_reason = "stop", self._stops.matched
        out.text += text
        out.reasoning += thought
        out.token_ids += tokens
        if out.logprobs is not None:
            out.logprobs += fresh
        return StreamChunk(
            text, tokens, out.finish_reason, out.index, out.stop_reason, fresh if out.logprobs is not None else None,
            out.error, reasoning=thought,
        )  # fmt: skip

    def _before(self, tokens: Sequence[int]) -> str:
        """Feeds the prompt's end: a text that goes on keeps the space it begins with; one that begins here has none.
        What the stream holds back of it, a whole character made of bytes, is no part of the output."""
        if not tokens:
            return ""
        assert self._words is not None
        assert self._tokenizer is not None
        shown = "".join([self._words.push(token) for token in tokens])
        held = self._tokenizer.decode(tokens, skip_special=self._skip)[len(shown) :]
        return "" if held.endswith("\ufffd") else held

    def _new(self, text: str) -> str:
        if self._held and text:
            text, self._held = text.removeprefix(self._held), ""
        return text

    def _watch(self, text: str, length: int) -> str:
        return self._stops.push(text) if length > self._least else text

    def _logprob(self, entries: Sequence[TokenLogprob]) -> dict[int, Logprob]:
        """Alternatives in order of likelihood; the chosen token is always there."""
        chosen, *others = entries
        found: dict[int, Logprob] = {}
        for rank, entry in enumerate(others, 1):
            found[entry.token] = Logprob(entry.logprob, rank, self._piece(entry.token))
        if chosen.token not in found:
            found[chosen.token] = Logprob(chosen.logprob, None, self._piece(chosen.token))
        self.output.cumulative_logprob = (self.output.cumulative_logprob or 0.0) + chosen.logprob
        return found

    def _piece(self, token: int) -> str:
        return self._tokenizer.decode([token], skip_special=False) if self._tokenizer else ""


class Collector:
    """Gathers one request's events into its output. `chunks` holds what a streaming reader has not yet taken.

    goes_on: the output continues the prompt's text (a completion), rather than being a text of its own (an answer).
    splitter: makes what parts each sample into its thought and its answer.
    """

    def __init__(
        self,
        prompt: str | None,
        tokens: Sequence[int],
        params: SamplingParams,
        tokenizer: Tokenizer | None,
        now: Callable[[], float],
        goes_on: bool = True,
        splitter: Callable[[], Splitter] | None = None,
    ) -> None:
        self.prompt = prompt
        self.prompt_token_ids = list(tokens)
        self.chunks: list[StreamChunk] = []
        goes_on |= params.structured_outputs is not None  # every character counts
        before = self.prompt_token_ids[-CARRY:] if goes_on and tokenizer else []
        self._writers = [
            Writer(index, params, tokenizer, before, splitter and splitter()) for index in range(params.n)
        ]
        self._left = params.n
        self._now = now
        self._start = now()
        self._first: dict[int, float] = {}  # per sample: when its first token came
        self._last = self._start
        self._passes = self._drafted = self._accepted = self._reused = 0

    @property
    def finished(self) -> bool:
        return self._left == 0

    def take(self, event: Event) -> bool:
        """True when a stop string ended the sample, so that the engine need not go on with it."""
        writer = self._writers[event.index]
        if writer.output.finish_reason:  # told to stop already; this is the engine's answer
            return False
        if event.tokens:
            self._last = self._now()
            self._first.setdefault(event.index, self._last)
            self._passes += 1
            self._drafted += event.drafted
            self._accepted += event.accepted
            self._reused = max(self._reused, event.reused)
        chunk = writer.take(event)
        self.chunks.append(chunk)
        if chunk.finish_reason:
            self._left -= 1
            if self.finished:
                chunk.metrics = self.metrics()
        return chunk.finish_reason is not None and event.finish_reason is None

    def metrics(self) -> Metrics:
        made = sum(len(writer.output.token_ids) for writer in self._writers)
        thought = sum(writer.reasoning_tokens for writer in self._writers)
        later = sum(max(0, len(writer.output.token_ids) - 1) for writer in self._writers)
        total = self._last - self._start
        first = min(self._first.values(), default=self._start) - self._start
        since = max(0.0, total - first)
        speed = later / since if later and since > 0 else (made / total if total > 0 else 0.0)
        return Metrics(
            len(self.prompt_token_ids), made, first, speed, total, thought, self._passes, self._drafted, self._accepted,
            self._reused,
        )

    def result(self, request_id: str) -> RequestOutput:
        outputs = [writer.output for writer in self._writers]
        return RequestOutput(request_id, self.prompt, self.prompt_token_ids, outputs, self.metrics(), self.finished)
