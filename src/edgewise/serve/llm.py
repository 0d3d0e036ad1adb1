"""`LLM`: a model as a Python object. Lists in, lists out (vLLM's shape), chat results in OpenAI's shape, streams."""

import inspect
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.assemble import Assembly, assemble
from edgewise.base import BadInput, Request, SamplingParams
from edgewise.base.catalog import nearest
from edgewise.embedded import embedded_model
from edgewise.engine.checks import check_request
from edgewise.kernels.api import Device, Floats
from edgewise.kv.prefixes import parse_prefix_cache
from edgewise.serve.chat import completion
from edgewise.serve.outputs import Collector, RequestOutput, StreamChunk
from edgewise.serve.prefixes import keep_prefixes
from edgewise.serve.settling import settle_now, settle_slowly
from edgewise.serve.tools import Tools, asked_of
from edgewise.text.api import Tokenizer

Prompt = str | Sequence[int] | Mapping[str, Any]
Asked = tuple[str | None, list[int], SamplingParams]  # the prompt as text, as tokens, and what to do with it
Messages = Sequence[Mapping[str, Any]]
ALIASES = {
    "max_model_len": "ctx_size", "n_ctx": "ctx_size", "num_ctx": "ctx_size", "n_threads": "threads",
    "max_num_batched_tokens": "prefill_chunk", "block_size": "page_tokens",
}  # fmt: skip
TUNING_SHARE = 0.2  # of a step's time, when a tuner was asked for
OPTIONS = tuple(name for name in inspect.signature(assemble).parameters if name != "path")


class LLM:
    """model: a Hugging Face folder, a GGUF file, "org/name" from the local cache, or None for the embedded model.

    threads: None: all cores this process may use.
    device: "cpu", "reference" (numpy, slow, for comparison), or a Device that exists, which then has its own threads.
    ctx_size: longest sequence, prompt and output; None: the model's but at most 4096; 0: the model's.
    kv_cache_dtype: "f16", "bf16", "f32", "int8" (half the memory; a self-test may turn it off), or "auto": f16, but f32
        when all weights are F32.
    max_num_seqs: sequences computed together; more requests wait their turn. prefill_chunk: rows of one step at most.
    policy: who is computed when, by catalog name ("fcfs", "auto", "priority", "sj-mlfq", ...).
    swap: where KV pages wait when they are short: "none", "auto", a folder, a size ("4GiB"), or "FOLDER:SIZE".
    prefix_cache: where known prefixes stay when the object is closed: "none", a folder, or "FOLDER:SIZE" (8 GiB).
    seed: for requests whose SamplingParams bring none: the n-th request gets the n-th stream of it.
    fp8 (a member): FP8 weights are computed as "bf16" (exact), "int8", or "auto": as measured here.
    members: other slots by catalog name (assemble.py), and other engines' names for the above (ALIASES).

    Safe to use from several threads. Raises BadInput, Unsupported, Incompatible or OutOfRoom before weights are read.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        threads: int | None = None,
        device: str | Device = "cpu",
        ctx_size: int | None = None,
        kv_cache_dtype: str = "auto",
        page_tokens: int = 16,
        prefill_chunk: int = 512,
        max_num_seqs: int = 16,
        policy: str = "fcfs",
        swap: str = "none",
        prefix_cache: str = "none",
        seed: int = 0,
        **members: Any,
    ) -> None:
        chosen: dict[str, Any] = {
            "threads": threads, "device": device, "ctx_size": ctx_size, "kv_cache_dtype": kv_cache_dtype,
            "page_tokens": page_tokens, "prefill_chunk": prefill_chunk, "max_num_seqs": max_num_seqs, "seed": seed,
            "policy": policy, "swap": swap,
        }  # fmt: skip
        for name, value in members.items():
            real = ALIASES.get(name, name)
            if real not in OPTIONS:
                raise BadInput(f"LLM has no option '{name}'.{nearest(name, [*OPTIONS, *ALIASES])}")
            chosen[real] = value
        kept = parse_prefix_cache(prefix_cache)
        self.model = embedded_model() if model is None else model
        self._assembly: Assembly | None = assemble(self.model, **chosen)
        for note in getattr(self._assembly.device, "notes", ()):
            warnings.warn(note, stacklevel=2)
        self.prefixes = keep_prefixes(self._assembly, kept, chosen)
        self._lock = threading.RLock()
        self._open: dict[str, Collector] = {}
        self._chunk: int = self._assembly.engine.rows
        settle_slowly(self._assembly, self._assembly.loading)

    def __repr__(self) -> str:
        return f"LLM({str(self.model)!r})"

    def __enter__(self) -> "LLM":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancels what is running and lets go of weights and cache. Using the object afterwards raises BadInput."""
        with self._lock:
            self._drop(list(self._open))
            if self.prefixes is not None:
                self.prefixes.close()
                self.prefixes = None
            if self._assembly is not None and self._assembly.engine.swap is not None:
                self._assembly.engine.swap.close()
            self._assembly = None

    def settle(self) -> None:
        """Blocks until the weights lie where they are read fastest, which a quick start may have put off (about a
        second for a GB). It would also happen by itself, slowly. No result changes."""
        settle_now(self.parts.loading)

    # ── text in, text out ───────────────────────────────────────────────────────────────

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Completes every prompt; results in the order of the prompts.

        prompts: a text, a list of texts, token ids, or a list of lists of token ids (used as they are). A text gets BOS
        first where the model expects one, and nothing in it becomes a special token. params: one for all, or one each;
        None: the checkpoint's own settings (`default_params`) and 16 tokens. A sample that could not be finished has
        finish_reason "error" and says why in `.error`; the others are not affected.
        """
        many = _as_list(prompts)
        settings = self._settings(params, len(many))
        return self._finish([self._request(prompt, each) for prompt, each in zip(many, settings, strict=True)])

    def _finish(self, requests: list[Asked], goes_on: bool = True) -> list[RequestOutput]:
        names: list[str] = []
        try:
            for asked in requests:
                names.append(self._start(asked, goes_on))
            collectors = [self._open[name] for name in names]
            for collector in collectors:
                while not collector.finished:
                    self._pump()
        finally:
            self._drop(names)
        return [collector.result(name) for name, collector in zip(names, collectors, strict=True)]

    def stream(
        self,
        prompt: Prompt | Messages,
        params: SamplingParams | None = None,
        *,
        goes_on: bool | None = None,
        **template: Any,
    ) -> Iterator[StreamChunk]:
        """Yields pieces of text as they are made; a list of messages is a chat. Leaving the loop cancels the request.

        params None: the checkpoint's own settings, until the model ends the text or the context is full.
        goes_on: the output continues the prompt's text, so a space it begins with belongs to it; an answer begins
        without one. None: an answer to messages, a continuation of all else.
        """
        given: Any = prompt
        chat = isinstance(given, list | tuple) and len(given) > 0 and isinstance(given[0], Mapping)
        if chat:
            given = self.chat_tokens(given, **template)
        elif template:
            raise BadInput(f"'{next(iter(template))}' is for chat templates, but the prompt is not a list of messages.")
        asked = self._request(given, params or self.default_params(None))
        self._check(asked[1], asked[2])  # what is wrong is said now, not when the first piece is asked for
        return self._stream(asked, not chat if goes_on is None else goes_on)

    def _stream(self, asked: Asked, goes_on: bool) -> Iterator[StreamChunk]:
        name = self._start(asked, goes_on)
        collector = self._open[name]
        try:
            while True:
                while collector.chunks:  # another reader's step may add some while we are out
                    yield collector.chunks.pop(0)
                if collector.finished:
                    return
                self._pump()
        finally:
            self._drop([name])

    def chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] = "auto",
        **template: Any,
    ) -> dict[str, Any]:
        """Answers a conversation: an OpenAI chat.completion as a dict. template: variables for the chat template.

        tools, tool_choice: OpenAI's; `tool_calls` of the message then hold arguments that fit the tool's schema. Calls
        of before (`tool_calls` of an assistant's message) and their results (role "tool") are messages, too.
        """
        params, asked = params or self.default_params(None), asked_of(tools or (), tool_choice)
        calling = None if asked is None or self.parts.template is None else Tools(
            asked, self.parts.template, self.tokenizer
        )  # fmt: skip
        if calling is not None:
            grammars = self.parts.engine.grammars
            assert grammars is not None
            shape = calling.structured(grammars, params.structured_outputs)
            params = replace(params, structured_outputs=shape, skip_special_tokens=False)
            messages, template = calling.conversation(messages, template)
        tokens = self.chat_tokens(messages, **template)
        (result,) = self._finish([self._request(tokens, params)], goes_on=False)
        return completion(result, self.name, calling)

    def chat_tokens(self, messages: Messages, **options: Any) -> list[int]:
        """The token ids that `chat` feeds for these messages. No text in a message becomes a special token."""
        template, tokenizer = self.parts.template, self.tokenizer
        if template is None:
            raise BadInput(f"{self.name} has no chat template. Use generate(), or a model made for chat.")
        return template.encode(tokenizer, messages, **{"add_generation_prompt": True, **options})

    # ── tokens and numbers ──────────────────────────────────────────────────────────────

    @property
    def parts(self) -> Assembly:
        """What the model was put together from: header, spec, device, kv, engine, tokenizer, template."""
        if self._assembly is None:
            raise BadInput("This LLM was closed. Make a new one.")
        return self._assembly

    @property
    def name(self) -> str:
        return self.parts.header.name

    @property
    def context(self) -> int:
        """Longest sequence, prompt and output together."""
        return self.parts.context

    @property
    def tokenizer(self) -> Tokenizer:
        tokenizer = self.parts.tokenizer
        if tokenizer is None:
            raise BadInput(f"{self.name} carries no tokenizer, so it takes and gives token ids only, no text.")
        return tokenizer

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text: no BOS, and no special tokens even where the text spells one."""
        return self.tokenizer.encode(text)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return self.tokenizer.decode(list(ids), skip_special=False)

    def logits(self, token_ids: Sequence[int]) -> Floats:
        """float32 (tokens, vocab): row i is what the model says after token_ids[:i + 1]. Nothing is put before them."""
        tokens = _ids(token_ids)
        out = np.empty((len(tokens), self.parts.spec.vocab), np.float32)
        done = 0
        for rows in self.logits_chunks(tokens):
            out[done : done + len(rows)] = rows
            done += len(rows)
        return out

    def logits_chunks(self, token_ids: Sequence[int]) -> Iterator[Floats]:
        """The same, prefill_chunk rows at a time: for texts whose logits do not fit into memory at once."""
        tokens = _ids(token_ids)
        self._check(tokens, SamplingParams())
        pieces = self.parts.runner.score(tokens, self._chunk)
        try:
            for _ in range(0, len(tokens), self._chunk):
                with self._lock:
                    rows = next(pieces).copy()  # the device may use the memory again
                yield rows
        finally:
            with self._lock:
                pieces.close()

    def default_params(self, max_tokens: int | None = 16) -> SamplingParams:
        """The checkpoint's generation_config.json as SamplingParams; without one, temperature 0.7."""
        config = self.parts.header.generation
        known = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
        given: dict[str, Any] = {key: config[key] for key in known if config.get(key) is not None}
        if not given and config.get("do_sample") is None:
            given = {"temperature": 0.7}
        if config.get("do_sample") is False:
            given["temperature"] = 0.0
        if config.get("max_new_tokens") is not None:
            max_tokens = config["max_new_tokens"]
        try:
            return SamplingParams(max_tokens=max_tokens, **given)
        except (BadInput, TypeError) as error:
            raise BadInput(f"generation_config.json of {self.name}: {error} Pass SamplingParams of your own.") from None

    # ── inside ──────────────────────────────────────────────────────────────────────────

    def _settings(self, params: Any, count: int) -> list[SamplingParams]:
        if params is None:
            return [self.default_params()] * count
        if isinstance(params, SamplingParams):
            return [params] * count
        settings = list(params)
        if len(settings) != count:
            raise BadInput(f"{count} prompts but {len(settings)} SamplingParams. Give one for all, or one for each.")
        return settings

    def _check(self, tokens: Sequence[int], params: SamplingParams) -> None:
        parts = self.parts
        engine = parts.engine
        check_request(Request(tuple(tokens), params), engine.vocab, engine.context, engine.capacity, engine.grammars)

    def _request(self, prompt: Prompt, params: SamplingParams) -> Asked:
        if isinstance(prompt, Mapping):
            key = "prompt_token_ids" if "prompt_token_ids" in prompt else "prompt"
            if key not in prompt:
                raise BadInput("A prompt that is a dict needs 'prompt' or 'prompt_token_ids'. For messages use chat().")
            prompt = prompt[key]
        if not isinstance(params, SamplingParams):
            raise BadInput(f"params must be SamplingParams but is {type(params).__name__}.")
        text = prompt if isinstance(prompt, str) else None
        tokens = self.tokenizer.encode(prompt, add_special=True) if isinstance(prompt, str) else _ids(prompt)
        tokenizer = self.parts.tokenizer
        if params.stop and tokenizer is None:
            raise BadInput(f"{self.name} carries no tokenizer, so stop strings cannot be found. Use stop_token_ids.")
        if not tokens:
            if tokenizer is None or tokenizer.bos is None:
                raise BadInput("The prompt is empty and this model has no BOS token to begin with. Give some text.")
            tokens = [tokenizer.bos]
        return text, tokens, params

    def _start(self, asked: Asked, goes_on: bool) -> str:
        parts, (text, tokens, params) = self.parts, asked
        with self._lock:
            collector = Collector(text, tokens, params, parts.tokenizer, time.perf_counter, goes_on)
            name = f"cmpl-{uuid.uuid4().hex}"
            parts.engine.add(Request(tuple(tokens), params, name))
            self._open[name] = collector
        return name

    def _pump(self) -> None:
        """One step of the engine; its events go to whoever asked."""
        with self._lock:
            engine, tuning, begin = self.parts.engine, self.parts.tuning, time.perf_counter()
            for event in engine.step():
                collector = self._open.get(event.request_id)
                if collector is not None and collector.take(event):
                    engine.cancel(event.request_id, event.index)
            if tuning is not None:
                tuning.spend(TUNING_SHARE * (time.perf_counter() - begin))

    def _drop(self, names: Sequence[str]) -> None:
        with self._lock:
            for name in names:
                collector = self._open.pop(name, None)
                if collector is not None and not collector.finished and self._assembly is not None:
                    self._assembly.engine.cancel(name)


def _as_list(prompts: Any) -> list[Any]:
    """One prompt or many → many."""
    if isinstance(prompts, str | Mapping):
        return [prompts]
    many = prompts.tolist() if isinstance(prompts, np.ndarray) else list(prompts)
    return [many] if many and isinstance(many[0], int | np.integer) else many


def _ids(tokens: Any) -> list[int]:
    if isinstance(tokens, np.ndarray):
        tokens = tokens.tolist()
    if not all(isinstance(token, int | np.integer) and not isinstance(token, bool) for token in tokens):
        raise BadInput("A prompt is a text or a list of token ids (integers); this list holds something else.")
    return [int(token) for token in tokens]
