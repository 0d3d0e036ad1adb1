"""What a model thinks before it answers: which tags its template uses, and taking an answer apart as it comes."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.text.api import ChatTemplate, Tokenizer

PAIRS = (
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"),
    ("<reasoning>", "</reasoning>"), ("<|START_THINKING|>", "<|END_THINKING|>"),
)  # fmt: skip
TAIL = 24  # tokens at the end of a prompt, or of a text, in which a tag is looked for
BEFORE, INSIDE, GAP, AFTER = "before", "inside", "gap", "after"


@dataclass(frozen=True)
class Thinking:
    """A model's tags as text and tokens. closing: what ends a thought that was long enough. reads: variables of the
    template that say whether, how hard and how long to think."""

    opening: str
    close: str
    opening_ids: tuple[int, ...]
    close_ids: tuple[int, ...]
    closing: tuple[int, ...]
    reads: frozenset[str]
    tokenizer: Tokenizer

    @property
    def tags(self) -> frozenset[int]:
        """Control tokens that are tags: they are text here, whatever becomes of other control tokens."""
        return frozenset(ids[0] for ids in (self.opening_ids, self.close_ids) if len(ids) == 1)

    def opened(self, tokens: Sequence[int]) -> bool:
        """Whether the last token completes the opening tag."""
        return self._has(self.opening, self.opening_ids, tokens)

    def closed(self, tokens: Sequence[int]) -> bool:
        return self._has(self.close, self.close_ids, tokens)

    def _has(self, tag: str, ids: tuple[int, ...], tokens: Sequence[int]) -> bool:
        """A tag that is one token comes as that token. Else a model may cut it up in its own way, into no more tokens
        than it has characters."""
        if len(ids) == 1:
            return bool(tokens) and tokens[-1] == ids[0]
        return tag in self.tokenizer.decode(list(tokens[-len(tag) - 2 :]), skip_special=False)

    def begins(self, prompt: Sequence[int]) -> str:
        """Where an answer to this prompt begins: INSIDE (the template opened it), AFTER (it closed it), or BEFORE."""
        tail = self.tokenizer.decode(list(prompt[-TAIL:]), skip_special=False).rstrip()
        if tail.endswith(self.opening):
            return INSIDE
        return AFTER if tail.endswith(self.close) else BEFORE


def thinking_of(template: ChatTemplate | None, tokenizer: Tokenizer | None) -> Thinking | None:
    """None: the template knows no thoughts."""
    if template is None or tokenizer is None:
        return None
    source = template.source()
    pair = next((pair for pair in PAIRS if pair[1] in source), None)
    if pair is None:
        return None
    opening, close = (tuple(tokenizer.encode(tag, parse_special=True)) for tag in pair)
    closing = tuple(tokenizer.encode(f"\n{pair[1]}", parse_special=True))  # on a line of its own, as models learn it
    if tokenizer.decode(list(closing), skip_special=False).strip() != pair[1]:
        closing = close
    names = ("enable_thinking", "thinking_budget", "reasoning_effort")
    return Thinking(
        *pair, opening, close, closing, frozenset(name for name in names if name in source), tokenizer
    )  # fmt: skip


class Splitter:
    """Parts an answer into the thought and what follows it. The tags and the white space around them belong to none."""

    def __init__(self, thinking: Thinking, state: str) -> None:
        self.thinking, self.state = thinking, state
        self._held = ""
        self._begun = False  # the thought has a visible character

    @property
    def inside(self) -> bool:
        return self.state == INSIDE

    def push(self, text: str) -> tuple[str, str]:
        """(more of the thought, more of the answer)"""
        self._held += text
        thought = ""
        if self.state == BEFORE:
            self._decide()
        if self.state == INSIDE:
            thought = self._inside()
        if self.state == GAP:
            self._held = self._held.lstrip()
            if self._held:
                self.state = AFTER
        answer = ""
        if self.state == AFTER:
            answer, self._held = self._held, ""
        return thought, answer

    def flush(self) -> tuple[str, str]:
        """The text has ended; a thought may have no end."""
        held, self._held = self._held, ""
        if self.state == INSIDE:
            return held.rstrip(), ""
        return "", held if self.state == BEFORE else ""

    def _decide(self) -> None:
        begun, tag = self._held.lstrip(), self.thinking.opening
        if begun.startswith(tag):
            self.state, self._held = INSIDE, begun[len(tag) :]
        elif not tag.startswith(begun):
            self.state = AFTER

    def _inside(self) -> str:
        if not self._begun:
            self._held = self._held.lstrip()
        close = self.thinking.close
        at = self._held.find(close)
        if at >= 0:
            thought, self._held = self._held[:at].rstrip(), self._held[at + len(close) :]
            self.state = GAP
            return thought
        sizes = range(min(len(close) - 1, len(self._held)), 0, -1)
        keep = next((size for size in sizes if close.startswith(self._held[-size:])), 0)
        shown = self._held[: len(self._held) - keep].rstrip()
        self._held = self._held[len(shown) :]
        self._begun = self._begun or bool(shown)
        return shown
