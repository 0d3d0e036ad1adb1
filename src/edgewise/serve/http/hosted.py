"""A model that is served: its engine's thread, its words, and requests checked before anything is computed."""

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgewise.base import BadInput, Request, SamplingParams
from edgewise.engine.checks import check_request
from edgewise.serve.http.engine_thread import EngineThread, Stream
from edgewise.serve.http.errors import bad, overflow
from edgewise.serve.http.ledger import tokenising
from edgewise.serve.http.tally import Tally
from edgewise.serve.http.thinking import Wanted, thought
from edgewise.serve.llm import LLM
from edgewise.serve.outputs import Collector
from edgewise.text.api import ChatTemplate, Tokenizer
from edgewise.text.thinking import Thinking, thinking_of

# Tried out before tokens are made (untouched, so it costs microseconds): when the library gets no memory it does not
# raise but ends the process.
ENCODING_BYTES = 4 << 20
LONG_TEXT = 20_000  # characters: from here on tokens are made beside the event loop, which is not to wait


class Hosted:
    """name: what clients call it. template: instead of the model's own. tally: that goes on, of an earlier life."""

    def __init__(
        self, llm: LLM, name: str, template: ChatTemplate | None = None, tally: Tally | None = None
    ) -> None:
        self.llm, self.name = llm, name
        self.template = template or llm.parts.template
        self._thinking: tuple[ChatTemplate | None, Thinking | None] = None, None
        self.created = int(time.time())
        self.tally = tally or Tally()
        aside = None if llm.prefixes is None else llm.prefixes.keep
        self.thread = EngineThread(llm.parts.engine, self.tally, asyncio.get_running_loop(), aside)

    @property
    def context(self) -> int:
        return self.llm.context

    @property
    def tokenizer(self) -> Tokenizer:
        return self.llm.tokenizer

    def defaults(self) -> SamplingParams:
        return self.llm.default_params(None)

    async def fits(self, text: str, param: str) -> None:
        """Raises what an overflow is, when a text is far too long, before all of it is made into tokens: a small
        part of a body of megabytes can be told to have more tokens than the context holds twice."""
        size = 32 * self.context
        while size < len(text):
            count = len(await self.text_tokens(text[:size]))
            if count > 2 * self.context:
                raise overflow(param, count, None, self.context, least=True)
            size *= 4

    async def text_tokens(self, text: str, *, special: bool = True) -> list[int]:
        def encode() -> list[int]:
            np.empty(ENCODING_BYTES + 64 * len(text), np.uint8)
            return self.tokenizer.encode(text, add_special=special)

        with tokenising():
            return await asyncio.to_thread(encode) if len(text) > LONG_TEXT else encode()

    async def chat_tokens(self, messages: Sequence[Mapping[str, Any]], *, param: str = "", **options: Any) -> list[int]:
        """In a thread: a template is a program, even if a metered one. param: the field to blame when it is too long;
        empty: any length is counted."""
        template = self.template
        if template is None:
            raise bad(
                "messages",
                f"{self.name} has no chat template, so it cannot chat. Use /v1/completions, or start the server with "
                "--chat-template-file.",
                "no_chat_template",
            )
        if param:
            await self.fits("\n".join(str(message.get("content")) for message in messages), param)
        options = {"add_generation_prompt": True, **options}
        try:
            with tokenising():
                if sum(len(str(message.get("content"))) for message in messages) < LONG_TEXT // 10:
                    return template.encode(self.tokenizer, messages, **options)
                return await asyncio.to_thread(template.encode, self.tokenizer, messages, **options)
        except BadInput as problem:
            raise bad("messages", str(problem), "template") from problem

    @property
    def thinking(self) -> Thinking | None:
        """How the model thinks, if its template knows of that."""
        if self._thinking[0] is not self.template:
            self._thinking = self.template, thinking_of(self.template, self.llm.parts.tokenizer)
        return self._thinking[1]

    def prepared(
        self, tokens: Sequence[int], params: SamplingParams, param: str, thinking: Wanted | None = None
    ) -> Request:
        """Everything that can be wrong with it is said here. param: the field that the tokens came from. thinking: for
        the answer of a chat."""
        if not tokens and self.tokenizer.bos is not None:
            tokens = [self.tokenizer.bos]
        if len(tokens) + (params.max_tokens or 1) > self.context:
            raise overflow(param, len(tokens), params.max_tokens, self.context)
        parts, extra = self.llm.parts, dict[str, Any]()
        if thinking is not None and self.thinking is not None:
            params, extra = thought(self.thinking, thinking, tokens, params, parts.engine.grammars)
        request = Request(tuple(tokens), params, f"cmpl-{uuid.uuid4().hex}", extra=extra)
        try:
            check_request(request, parts.spec.vocab, parts.context, parts.engine.capacity, parts.engine.grammars)
        except BadInput as problem:
            named = next((name for name in ("logit_bias", "allowed_token_ids") if name in str(problem)), param)
            raise bad(named, str(problem)) from problem
        return request

    def start(self, request: Request, *, goes_on: bool) -> Stream:
        collector = Collector(
            None, request.tokens, request.params, self.llm.parts.tokenizer, time.perf_counter, goes_on,
            request.extra.get("splitter"),
        )  # fmt: skip
        return self.thread.start(request, collector)

    def close(self) -> None:
        self.thread.close()
        self.llm.close()
