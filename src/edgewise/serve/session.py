"""What `run` and its REPL share: one loaded model, sampling settings, and whether prompts are chats or plain text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgewise.base import BadInput, EdgewiseError, OutOfRoom, SamplingParams
from edgewise.serve.llm import LLM
from edgewise.serve.outputs import Metrics, StreamChunk
from edgewise.text.api import ChatTemplate

COMPLETION_TOKENS = 256  # of a plain completion when nobody says how many: a base model has no reason to stop


@dataclass
class Answer:
    """What one prompt gave, filled while it streams."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    metrics: Metrics = field(default_factory=Metrics)


class Session:
    """llm: loaded. template: instead of the model's own. chat: None decides by whether there is a template."""

    def __init__(
        self,
        llm: LLM,
        params: SamplingParams,
        *,
        template: ChatTemplate | None = None,
        chat: bool | None = None,
        system: str | None = None,
    ) -> None:
        self.llm = llm
        self.params = params
        self.template = template or llm.parts.template
        self.chat = self.template is not None if chat is None else chat
        self.system = system
        if self.chat and self.template is None:
            raise BadInput(f"{llm.name} has no chat template; give --chat-template-file, or --raw to complete text.")
        if system is not None and not self.chat:
            raise BadInput("A system prompt needs a chat; this run completes plain text.")

    def messages(self, history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        head = [{"role": "system", "content": self.system}] if self.system else []
        return [*head, *history]

    def ask(self, prompt: str, answer: Answer, history: Sequence[Mapping[str, Any]] = ()) -> Iterator[str]:
        """Yields text as it is made and fills `answer`. Raises what the engine says when it could not finish."""
        given: Any = prompt
        if self.chat:
            assert self.template is not None
            talk = self.messages([*history, {"role": "user", "content": prompt}])
            given = self.template.encode(self.llm.tokenizer, talk, add_generation_prompt=True)
        for chunk in self.llm.stream(given, self.params, goes_on=not self.chat):
            yield from _take(chunk, answer)


def _take(chunk: StreamChunk, answer: Answer) -> Iterator[str]:
    answer.text += chunk.text
    answer.token_ids += chunk.token_ids
    if chunk.text:
        yield chunk.text
    if chunk.metrics is not None:
        answer.metrics = chunk.metrics
    if chunk.finish_reason is not None:
        answer.finish_reason = chunk.finish_reason
    if chunk.finish_reason == "error":
        raise _failure(chunk.error or "The engine stopped without saying why.")


def _failure(text: str) -> EdgewiseError:
    return OutOfRoom(text) if "KV" in text or "memory" in text else BadInput(text)
