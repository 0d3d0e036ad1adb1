"""OpenAI's /v1/embeddings, and Ollama's: the last hidden states of a text, their mean or the last one, of length 1."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgewise.base import BadInput, SamplingParams
from edgewise.serve.http.bodies import fields, unless_gone
from edgewise.serve.http.errors import bad, overflow
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.http.prompts import read_prompts
from edgewise.serve.http.sampling import BOOKS
from edgewise.serve.http.shelf import model_for

POOLINGS = ("mean", "last")
CHUNK = 256  # tokens of one turn: the model's other requests go on in between
Vector = npt.NDArray[np.float32]


async def embeddings(request: Request) -> Response:
    body = await fields(request)
    model = await model_for(request, body)
    inputs = await read_prompts(body, model, "input")
    encoding = body.text("encoding_format", "float", ("float", "base64"))
    pooling = body.text("pooling", POOLINGS[0], POOLINGS)
    body.only("dimensions", model.llm.parts.spec.dim, why="The model gives what it has.")
    body.no_effect(*BOOKS)
    body.done()
    for tokens in inputs:
        check(model, tokens, "input")
    vectors = await unless_gone(request, embedded(model, inputs, pooling))
    count = sum(map(len, inputs))

    def shown(vector: Vector) -> Any:
        if encoding == "base64":
            return base64.b64encode(vector.astype("<f4").tobytes()).decode()
        return vector.tolist()

    return JSONResponse(
        {
            "object": "list",
            "model": model.name,
            "data": [{"object": "embedding", "index": i, "embedding": shown(v)} for i, v in enumerate(vectors)],
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }
    )


def check(model: Hosted, tokens: Sequence[int], param: str) -> None:
    if not tokens:
        raise bad(param, f"{param} has an empty text, of which nothing can be said.")
    if len(tokens) > model.context:
        raise overflow(param, len(tokens), None, model.context)
    if len(tokens) < model.context:  # ids are in the vocabulary, and there is room
        model.prepared(tokens, SamplingParams(max_tokens=1), param)
    elif not all(0 <= token < model.llm.parts.spec.vocab for token in tokens):
        raise bad(param, f"{param} holds a token id outside the vocabulary of {model.llm.parts.spec.vocab}.")


async def embedded(model: Hosted, inputs: Sequence[Sequence[int]], pooling: str) -> list[Vector]:
    return [await _one(model, tokens, pooling) for tokens in inputs]


async def _one(model: Hosted, tokens: Sequence[int], pooling: str) -> Vector:
    """Between steps of the engine, a chunk at a time. The cache's pages go back even when nobody waits any more."""
    pieces = model.llm.parts.runner.states(tokens, CHUNK)
    total: npt.NDArray[np.float64] = np.zeros(model.llm.parts.spec.dim)
    last: npt.NDArray[np.float32] = np.zeros(0, np.float32)
    try:
        for _ in range(0, len(tokens), CHUNK):
            rows = await model.thread.call(pieces.__next__)
            total += rows.sum(0, dtype=np.float64)
            last = rows[-1]
    finally:
        model.thread.soon(pieces.close)
    pooled = total / len(tokens) if pooling == "mean" else last.astype(np.float64)
    length = float(np.sqrt((pooled**2).sum()))
    if not np.isfinite(length) or length == 0:
        raise BadInput("The model's states for this text are not finite, or all zero; check the file.")
    return (pooled / length).astype(np.float32)
