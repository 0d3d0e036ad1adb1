"""What the server says about itself: alive, ready, its models, its metrics, and what the page shows live."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from edgewise.serve.http.shelf import Place, Shelf
from edgewise.serve.http.tally import gauge, label

STUCK_S = 120.0  # a step of a large prompt on a slow machine takes many seconds; nothing healthy takes this long


async def health(_: Request) -> Response:
    """Alive; says nothing else, since it is open to everybody."""
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    """Whether work may be sent: models there, engines turning, not shutting down."""
    shelf: Shelf = request.app.state.shelf
    reason = "draining" if shelf.draining else None
    if any(model.thread.stuck_s() > STUCK_S for model in shelf.models.values()):
        reason = "stuck"
    return JSONResponse({"status": reason or "ready"}, 200 if reason is None else 503)


async def models(request: Request) -> Response:
    shelf: Shelf = request.app.state.shelf
    return JSONResponse({"object": "list", "data": [_card(model) for model in shelf.places.values()]})


async def model(request: Request) -> Response:
    return JSONResponse(_card(request.app.state.shelf.place(request.path_params["name"])))


def _card(model: Place) -> dict[str, Any]:
    return {
        "id": model.name, "object": "model", "created": model.created, "owned_by": "edgewise",
        "max_model_len": model.card.context,
    }  # fmt: skip


async def status(request: Request) -> Response:
    shelf: Shelf = request.app.state.shelf
    return JSONResponse({"draining": shelf.draining, "models": [_live(place) for place in shelf.places.values()]})


def _live(place: Place) -> dict[str, Any]:
    model, load, spec = place.hosted, place.load, place.card.spec
    found: dict[str, Any] = {
        "id": place.name, "chat": place.card.chat, "context": place.card.context, "architecture": spec.architecture,
        "loaded": model is not None, "loading": place.coming is not None, "expires": place.expires,
        "running": load.running, "waiting": load.waiting + len(place.waiters), "slots": [],
        "cache_tokens": load.capacity, "cache_used": load.capacity - load.free, "cache_bytes": 0, "sequences": 0,
        "generated_tokens": place.tally.generation_tokens, "defaults": {},
    }  # fmt: skip
    if model is None:
        return found
    parts, defaults = model.llm.parts, model.defaults()
    slots = [
        {
            "prompt_tokens": len(stream.request.tokens),
            "generated_tokens": stream.collector.metrics().completion_tokens,
            "state": "writing" if stream.begun else "reading",
        }
        for stream in list(model.thread.streams.values())[:64]
    ]
    return {
        **found, "chat": model.template is not None, "slots": slots, "sequences": parts.engine.sequences,
        "cache_bytes": parts.kv_bytes,
        "defaults": {"temperature": defaults.temperature, "top_p": defaults.top_p, "top_k": defaults.top_k,
                     "min_p": defaults.min_p, "repetition_penalty": defaults.repetition_penalty},
    }  # fmt: skip


async def metrics(request: Request) -> Response:
    """Prometheus text. Counters are of this process."""
    shelf: Shelf = request.app.state.shelf
    hosted = list(shelf.places.values())
    rows = [(model, label(model.name)) for model in hosted]
    lines = [
        *gauge("vllm:num_requests_running", "Sequences that hold KV pages.", "gauge",
               [(at, model.load.running) for model, at in rows]),
        *gauge("vllm:num_requests_waiting", "Sequences that wait for pages.", "gauge",
               [(at, model.load.waiting + len(model.waiters)) for model, at in rows]),
        *gauge("vllm:kv_cache_usage_perc", "Share of the KV cache in use, 1 is all.", "gauge",
               [(at, 1 - model.load.free / max(1, model.load.capacity)) for model, at in rows]),
        *gauge("vllm:prompt_tokens_total", "Prompt tokens computed.", "counter",
               [(at, model.tally.prompt_tokens) for model, at in rows]),
        *gauge("vllm:generation_tokens_total", "Tokens generated.", "counter",
               [(at, model.tally.generation_tokens) for model, at in rows]),
        *gauge("vllm:spec_decode_num_drafts_total", "Drafts that were checked.", "counter",
               [(at, model.tally.passes) for model, at in rows]),
        *gauge("vllm:spec_decode_num_draft_tokens_total", "Tokens in them.", "counter",
               [(at, model.tally.drafted) for model, at in rows]),
        *gauge("vllm:spec_decode_num_accepted_tokens_total", "Those that came true.", "counter",
               [(at, model.tally.accepted) for model, at in rows]),
        *gauge("vllm:request_success_total", "Samples that ended, by reason.", "counter",
               [(label(model.name, finished_reason=reason), count)
                for model in hosted for reason, count in sorted(model.tally.finished.items())]),
        *gauge("edgewise:model_loaded", "1: it is in memory.", "gauge",
               [(at, float(model.hosted is not None)) for model, at in rows]),
        *gauge("edgewise:model_loads_total", "Times it was loaded on demand.", "counter",
               [(at, model.loads) for model, at in rows]),
        *gauge("edgewise:model_unloads_total", "Times it was unloaded.", "counter",
               [(at, model.unloads) for model, at in rows]),
        *gauge("edgewise:request_span_seconds_total", "Wall time of requests by span (see the ledger).", "counter",
               [(label(model.name, span=name), seconds)
                for model in hosted for name, seconds in model.tally.ledgers.sums[1].items()]),
        *gauge("edgewise:first_token_span_seconds_total", "The same, up to the first token.", "counter",
               [(label(model.name, span=name), seconds)
                for model in hosted for name, seconds in model.tally.ledgers.sums[0].items()]),
        *gauge("edgewise:engine_steps_total", "Batches computed.", "counter",
               [(at, model.load.steps) for model, at in rows]),
    ]  # fmt: skip
    for name in hosted[0].tally.histograms if hosted else ():
        lines += [f"# HELP {name} {hosted[0].tally.histograms[name][0]}", f"# TYPE {name} histogram"]
        for model, at in rows:
            lines += model.tally.histograms[name][1].lines(name, at)
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")
