"""Ollama's /api: version, tags, show, ps, chat, generate, embed. Durations are nanoseconds, streams are lines of JSON.

Models are those the server was started with: they are loaded when asked for and unloaded as keep_alive says; none is
pulled or deleted from here.
"""

import hashlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import edgewise
from edgewise.base import Request as Asked
from edgewise.base import SamplingParams, StructuredOutputsParams
from edgewise.serve.http.bodies import Lines, fields, line, unless_gone
from edgewise.serve.http.calling import held, read_tools
from edgewise.serve.http.embeddings import check, embedded
from edgewise.serve.http.errors import bad
from edgewise.serve.http.fields import Fields
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.http.keeping import keep_alive
from edgewise.serve.http.messages import read_messages
from edgewise.serve.http.prompts import read_prompts
from edgewise.serve.http.sampling import sampling
from edgewise.serve.http.shelf import Place, Shelf, model_for
from edgewise.serve.http.streams import checked, merged
from edgewise.serve.http.structured import ollama_format
from edgewise.serve.http.thinking import ollama_think
from edgewise.serve.tools import Call, Said, Tools, whole_calls

RENAMED = {"num_predict": "max_tokens", "repeat_penalty": "repetition_penalty"}
NEVER = datetime(2100, 1, 1, tzinfo=UTC).isoformat()
DRAWN = ("temperature", "top_k", "top_p", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty")


async def version(_: Request) -> Response:
    return JSONResponse({"version": edgewise.__version__})


async def tags(request: Request) -> Response:
    shelf: Shelf = request.app.state.shelf
    return JSONResponse({"models": [_card(place) for place in shelf.places.values()]})


async def ps(request: Request) -> Response:
    """What is loaded. expires_at of one in use, or that stays, is far away, as Ollama has it."""
    shelf: Shelf = request.app.state.shelf
    found = []
    for place in shelf.places.values():
        if place.hosted is not None:
            until = NEVER if place.expires is None else _time(place.expires)
            size = place.card.weight_bytes + place.hosted.llm.parts.kv_bytes
            found.append({
                **_card(place), "size": size, "expires_at": until, "size_vram": 0, "context_length": place.card.context,
            })  # fmt: skip
    return JSONResponse({"models": found})


async def show(request: Request) -> Response:
    body = await fields(request)
    place: Place = request.app.state.shelf.place(body.text("model") or body.text("name"))
    body.boolean("verbose")
    body.done()
    spec = place.card.spec
    info = {
        "general.architecture": spec.architecture,
        f"{spec.architecture}.context_length": spec.context,
        f"{spec.architecture}.embedding_length": spec.dim,
        f"{spec.architecture}.block_count": spec.layers,
    }
    return JSONResponse(
        {
            "details": _card(place)["details"],
            "model_info": info,
            "capabilities": ["completion", "embedding", *(["tools"] if place.card.chat else [])],
            "modified_at": _time(place.created),
            "parameters": f"num_ctx {place.card.context}",
            "template": "",
        }
    )


def _card(place: Place) -> dict[str, Any]:
    spec = place.card.spec
    details = {
        "format": place.card.dialect, "family": spec.architecture, "families": [spec.architecture],
        "parameter_size": "", "quantization_level": "", "parent_model": "",
    }  # fmt: skip
    return {
        "name": place.name, "model": place.name, "modified_at": _time(place.created), "size": place.card.weight_bytes,
        "digest": hashlib.sha256(place.name.encode()).hexdigest(), "details": details,
    }  # fmt: skip


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


async def chat(request: Request) -> Response:
    began = time.perf_counter_ns()
    body = await fields(request)
    if body.anything("messages") in (None, []):
        return await _moved(request, body, began, chat=True)
    model = await model_for(request, body)
    loaded = time.perf_counter_ns()
    messages = read_messages(body)
    tools, wanted = await held(model, read_tools(body), await ollama_format(body, model))
    stream, params = _asked(request, body, model, wanted)
    thinking = ollama_think(body, model)
    body.done()
    options = thinking.options(model.thinking)
    if tools is not None:
        params = replace(params, skip_special_tokens=False)  # a call may begin with a control token
        messages, options = tools.conversation(messages, options)
    tokens = await model.chat_tokens(messages, param="messages", **options)
    asked = model.prepared(tokens, params, "messages", thinking)
    return await _answer(request, _Reply(model, asked, began, loaded, chat=True, tools=tools), stream)


async def generate(request: Request) -> Response:
    """A chat of one message where the model has a template, unless raw is set."""
    began = time.perf_counter_ns()
    body = await fields(request)
    prompt, system = body.text("prompt", ""), body.text("system")
    if not prompt:
        return await _moved(request, body, began, chat=False)
    model = await model_for(request, body)
    loaded = time.perf_counter_ns()
    raw = body.boolean("raw") or model.template is None
    for name in ("suffix", "images", "template", "context"):
        body.only(name, "", [])
    stream, params = _asked(request, body, model, await ollama_format(body, model))
    if raw:
        body.only("think", False)
    thinking = None if raw else ollama_think(body, model)
    body.done()
    if raw and system:
        raise bad("system", "system needs a chat template; this is a plain completion.", "unsupported")
    if raw:
        await model.fits(prompt, "prompt")
        tokens = await model.text_tokens(prompt)
    else:
        head = [{"role": "system", "content": system}] if system else []
        options = {} if thinking is None else thinking.options(model.thinking)
        tokens = await model.chat_tokens([*head, {"role": "user", "content": prompt}], param="prompt", **options)
    asked = model.prepared(tokens, params, "prompt", thinking)
    return await _answer(request, _Reply(model, asked, began, loaded, chat=False, goes_on=raw), stream)


async def embed(request: Request) -> Response:
    began = time.perf_counter_ns()
    body = await fields(request)
    model = await model_for(request, body)
    loaded = time.perf_counter_ns()
    request.state.leases[-1].keep_s = keep_alive(body)
    inputs = await read_prompts(body, model, "input")
    body.only("truncate", False, why="Nothing is cut here; send truncate: false, or leave it out.")
    body.only("dimensions", model.llm.parts.spec.dim)
    body.only("options", {})
    body.done()
    for tokens in inputs:
        check(model, tokens, "input")
    vectors = await unless_gone(request, embedded(model, inputs, "mean"))
    return JSONResponse(
        {
            "model": model.name,
            "embeddings": [vector.tolist() for vector in vectors],
            "total_duration": time.perf_counter_ns() - began,
            "load_duration": loaded - began,
            "prompt_eval_count": sum(map(len, inputs)),
        }
    )


async def _moved(request: Request, body: Fields, began: int, *, chat: bool) -> Response:
    """Nothing is asked of the model: it is loaded, or with keep_alive 0 unloaded."""
    shelf: Shelf = request.app.state.shelf
    place = shelf.place(body.text("model"))
    keep = keep_alive(body)
    body.no_effect("stream", "options", "system", "raw", "format", "think", "truncate", "shift")
    for name in ("suffix", "images", "template", "context", "tools"):
        body.only(name, "", [])
    body.done()
    if keep != 0 or (place.hosted is not None and place.open is not None):
        lease = await shelf.use(place)
        lease.keep_s = keep
        lease.release()
    said = {"message": {"role": "assistant", "content": ""}} if chat else {"response": ""}
    took = time.perf_counter_ns() - began
    return JSONResponse({
        "model": place.name, "created_at": _time(time.time()), **said, "done": True,
        "done_reason": "unload" if keep == 0 else "load", "total_duration": took, "load_duration": took,
    })  # fmt: skip


def _asked(
    request: Request, body: Fields, model: Hosted, wanted: StructuredOutputsParams | None
) -> tuple[bool, SamplingParams]:
    stream = body.boolean("stream", True)
    request.state.leases[-1].keep_s = keep_alive(body)
    body.only("logprobs", False)
    body.only("top_logprobs", 0)
    body.only("truncate", False)
    body.only("shift", False)
    options = Fields(body.mapping("options") or {}, "options.")
    given = {name: options.anything(name) for name in DRAWN}
    given |= {new: options.anything(old) for old, new in RENAMED.items()}
    if given["max_tokens"] in (-1, -2):
        given["max_tokens"] = None
    context = options.integer("num_ctx", None, 1)
    if context is not None and context > model.context:
        raise bad("options.num_ctx", f"num_ctx is {context}, but {model.name} is served with {model.context}.")
    options.no_effect("num_thread", "num_gpu", "num_batch", "use_mmap", "main_gpu")
    options.done()
    inner = Fields(given, "options.")
    most = inner.integer("max_tokens", None, 1, 1 << 31)
    return stream, sampling(inner, model.defaults(), max_tokens=most, structured_outputs=wanted)


async def _answer(request: Request, reply: "_Reply", stream: bool) -> Response:
    if stream:
        return Lines(reply.stream(), request.app.state.settings, request.url.path)
    return JSONResponse(await unless_gone(request, reply.whole()))


class _Reply:
    def __init__(
        self, model: Hosted, asked: Asked, began: int, loaded: int, *, chat: bool, goes_on: bool = False,
        tools: Tools | None = None,
    ) -> None:  # fmt: skip
        self.model, self.asked, self.began, self.load_ns = model, asked, began, loaded - began
        self.chat, self.goes_on, self.tools = chat, goes_on, tools

    def _part(self, text: str, calls: Sequence[Call] = (), thought: str = "") -> dict[str, Any]:
        more = {"thinking": thought} if thought else {}
        said: dict[str, Any] = {"response": text, **more}
        if self.chat:
            said = {"message": {"role": "assistant", "content": text, **more}}
        if calls:
            said["message"]["tool_calls"] = [_call(at, call) for at, call in enumerate(calls)]
        return {"model": self.model.name, "created_at": _time(time.time()), **said, "done": False}

    def _last(
        self, text: str, reason: str | None, metrics: Any, calls: Sequence[Call] = (), thought: str = ""
    ) -> dict[str, Any]:
        prompt_ns = int(metrics.ttft_s * 1e9)
        return {
            **self._part(text, calls, thought),
            "done": True,
            "done_reason": reason,
            "total_duration": time.perf_counter_ns() - self.began,
            "load_duration": self.load_ns,
            "prompt_eval_count": metrics.prompt_tokens,
            "prompt_eval_duration": prompt_ns,
            "eval_count": metrics.completion_tokens,
            "eval_duration": max(0, int(metrics.total_s * 1e9) - prompt_ns),
        }

    async def whole(self) -> dict[str, Any]:
        stream = self.model.start(self.asked, goes_on=self.goes_on)
        try:
            await stream.whole()
            result = checked(stream)
            (out,) = result.outputs
            said = Said(out.text) if self.tools is None else self.tools.read(out.text)
            calls = whole_calls(said, out.finish_reason)
            return self._last(said.content, out.finish_reason, result.metrics, calls, out.reasoning)
        finally:
            stream.close()

    async def stream(self) -> AsyncIterator[str]:
        stream = self.model.start(self.asked, goes_on=self.goes_on)
        try:
            reader = None if self.tools is None else self.tools.reader()
            async for _, chunk in merged([stream]):
                text = chunk.text
                if reader is not None:
                    parts = reader.push(text) + (reader.flush() if chunk.finish_reason else [])
                    text = "".join(part.text for part in parts)
                if text or chunk.reasoning:
                    yield line(self._part(text, thought=chunk.reasoning))
                if chunk.finish_reason and reader is not None:
                    calls = whole_calls(reader.said, chunk.finish_reason)
                    if calls:  # as objects, so whole ones only
                        yield line(self._part("", calls))
                if chunk.metrics is not None:
                    yield line(self._last("", chunk.finish_reason, chunk.metrics))
        finally:
            stream.close()


def _call(index: int, call: Call) -> dict[str, Any]:
    return {"id": call.id, "function": {"index": index, "name": call.name, "arguments": json.loads(call.arguments)}}
