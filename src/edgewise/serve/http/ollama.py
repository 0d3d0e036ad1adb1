"""Ollama's /api: version, tags, show, ps, chat, generate, embed. Durations are nanoseconds, streams are lines of JSON.

Models are those the server was started with: none is pulled, unloaded or deleted from here.
"""

import hashlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import edgewise
from edgewise.base import Request as Asked
from edgewise.serve.http.bodies import Lines, fields, line, unless_gone
from edgewise.serve.http.embeddings import check, embedded
from edgewise.serve.http.errors import bad
from edgewise.serve.http.fields import Fields
from edgewise.serve.http.hosted import Hosted, Shelf
from edgewise.serve.http.messages import read_messages
from edgewise.serve.http.prompts import read_prompts
from edgewise.serve.http.sampling import sampling
from edgewise.serve.http.streams import checked, merged
from edgewise.serve.http.structured import ollama_format

RENAMED = {"num_predict": "max_tokens", "repeat_penalty": "repetition_penalty"}
DRAWN = ("temperature", "top_k", "top_p", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty")


async def version(_: Request) -> Response:
    return JSONResponse({"version": edgewise.__version__})


async def tags(request: Request) -> Response:
    shelf: Shelf = request.app.state.shelf
    return JSONResponse({"models": [_card(model) for model in shelf.models.values()]})


async def ps(request: Request) -> Response:
    shelf: Shelf = request.app.state.shelf
    never = datetime(2100, 1, 1, tzinfo=UTC).isoformat()
    return JSONResponse(
        {
            "models": [
                {**_card(model), "expires_at": never, "size_vram": 0, "context_length": model.context}
                for model in shelf.models.values()
            ]
        }
    )


async def show(request: Request) -> Response:
    body = await fields(request)
    model: Hosted = request.app.state.shelf.find(body.text("model") or body.text("name"))
    body.boolean("verbose")
    body.done()
    spec = model.llm.parts.spec
    info = {
        "general.architecture": spec.architecture,
        f"{spec.architecture}.context_length": spec.context,
        f"{spec.architecture}.embedding_length": spec.dim,
        f"{spec.architecture}.block_count": spec.layers,
    }
    return JSONResponse(
        {
            "details": _card(model)["details"],
            "model_info": info,
            "capabilities": ["completion", "embedding"],
            "modified_at": _time(model.created),
            "parameters": f"num_ctx {model.context}",
            "template": "",
        }
    )


def _card(model: Hosted) -> dict[str, Any]:
    spec = model.llm.parts.spec
    details = {
        "format": model.llm.parts.header.dialect, "family": spec.architecture, "families": [spec.architecture],
        "parameter_size": "", "quantization_level": "", "parent_model": "",
    }  # fmt: skip
    return {
        "name": model.name, "model": model.name, "modified_at": _time(model.created), "size": 0,
        "digest": hashlib.sha256(model.name.encode()).hexdigest(), "details": details,
    }  # fmt: skip


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


async def chat(request: Request) -> Response:
    began = time.perf_counter_ns()
    body = await fields(request)
    model: Hosted = request.app.state.shelf.find(body.text("model"))
    messages = read_messages(body)
    body.only("tools", [])
    stream, params = await _asked(body, model)
    body.done()
    asked = model.prepared(await model.chat_tokens(messages, param="messages"), params, "messages")
    return await _answer(request, _Reply(model, asked, began, chat=True), stream)


async def generate(request: Request) -> Response:
    """A chat of one message where the model has a template, unless raw is set."""
    began = time.perf_counter_ns()
    body = await fields(request)
    model: Hosted = request.app.state.shelf.find(body.text("model"))
    prompt, system = body.text("prompt", ""), body.text("system")
    raw = body.boolean("raw") or model.template is None
    for name in ("suffix", "images", "template", "context"):
        body.only(name, "", [])
    stream, params = await _asked(body, model)
    body.done()
    if raw and system:
        raise bad("system", "system needs a chat template; this is a plain completion.", "unsupported")
    if raw:
        await model.fits(prompt, "prompt")
        tokens = await model.text_tokens(prompt)
    else:
        head = [{"role": "system", "content": system}] if system else []
        tokens = await model.chat_tokens([*head, {"role": "user", "content": prompt}], param="prompt")
    asked = model.prepared(tokens, params, "prompt")
    return await _answer(request, _Reply(model, asked, began, chat=False, goes_on=raw), stream)


async def embed(request: Request) -> Response:
    began = time.perf_counter_ns()
    body = await fields(request)
    model: Hosted = request.app.state.shelf.find(body.text("model"))
    inputs = await read_prompts(body, model, "input")
    body.only("truncate", False, why="Nothing is cut here; send truncate: false, or leave it out.")
    body.only("dimensions", model.llm.parts.spec.dim)
    body.only("options", {})
    body.no_effect("keep_alive")
    body.done()
    for tokens in inputs:
        check(model, tokens, "input")
    vectors = await unless_gone(request, embedded(model, inputs, "mean"))
    return JSONResponse(
        {
            "model": model.name,
            "embeddings": [vector.tolist() for vector in vectors],
            "total_duration": time.perf_counter_ns() - began,
            "load_duration": 0,
            "prompt_eval_count": sum(map(len, inputs)),
        }
    )


async def _asked(body: Fields, model: Hosted) -> tuple[bool, Any]:
    stream = body.boolean("stream", True)
    body.no_effect("keep_alive")  # models stay as long as the server
    wanted = await ollama_format(body, model)
    body.only("think", False)
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
    def __init__(self, model: Hosted, asked: Asked, began: int, *, chat: bool, goes_on: bool = False) -> None:
        self.model, self.asked, self.began = model, asked, began
        self.chat, self.goes_on = chat, goes_on

    def _part(self, text: str) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"response": text}
        return {"model": self.model.name, "created_at": _time(time.time()), **said, "done": False}

    def _last(self, text: str, reason: str | None, metrics: Any) -> dict[str, Any]:
        prompt_ns = int(metrics.ttft_s * 1e9)
        return {
            **self._part(text),
            "done": True,
            "done_reason": reason,
            "total_duration": time.perf_counter_ns() - self.began,
            "load_duration": 0,
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
            return self._last(result.outputs[0].text, result.outputs[0].finish_reason, result.metrics)
        finally:
            stream.close()

    async def stream(self) -> AsyncIterator[str]:
        stream = self.model.start(self.asked, goes_on=self.goes_on)
        try:
            async for _, chunk in merged([stream]):
                if chunk.text:
                    yield line(self._part(chunk.text))
                if chunk.metrics is not None:
                    yield line(self._last("", chunk.finish_reason, chunk.metrics))
        finally:
            stream.close()
