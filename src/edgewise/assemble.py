"""L8: the only file that knows every room. From a checkpoint and a few names to an engine, or one sentence why not."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgewise.base import BadInput
from edgewise.base.caps import check_needs
from edgewise.base.startup import milestone
from edgewise.decode.api import Room, Target
from edgewise.decode.samplers import SAMPLERS
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.verifiers import build_verifier
from edgewise.engine.loop import Engine
from edgewise.engine.policies import POLICIES
from edgewise.engine.runners import RUNNERS
from edgewise.engine.runners.text import TextRunner
from edgewise.kernels.api import Device
from edgewise.kernels.devices import DEVICES
from edgewise.kv import CACHES
from edgewise.kv.api import KVCache
from edgewise.kv.sizing import page_count, page_count_within
from edgewise.kv.swap import open_swap
from edgewise.kv.types import NARROW, cache_type, token_bytes
from edgewise.models import Loading, begin_model, read_spec
from edgewise.models.api import Model, ModelSpec
from edgewise.models.neuron_stream import NeuronStream, streaming
from edgewise.models.streaming import Stream, budget_of
from edgewise.plan.api import Tuning
from edgewise.plan.applying import apply_measured
from edgewise.plan.float8 import float8_for
from edgewise.plan.narrow_kv import choose_kv
from edgewise.text import ends_of, has_words, load_template, load_tokenizer, pieces_of
from edgewise.text.api import ChatTemplate, Tokenizer
from edgewise.weights import open_checkpoint
from edgewise.weights.api import Header
from edgewise.weights.checkpoints.streamed import StreamedCheckpoint

CONTEXT = 4096  # the default context of a model that could take more


@dataclass(frozen=True)
class Assembly:
    """A model that is ready to run, and everything it was put together from."""

    header: Header
    spec: ModelSpec
    device: Device
    model: Model
    kv: KVCache
    kv_dtype: str
    kv_bytes: int  # reserved for the whole cache; touched as it fills
    context: int
    runner: TextRunner
    engine: Engine
    tokenizer: Tokenizer | None  # None: the checkpoint has none, only token ids go in and out
    template: ChatTemplate | None
    loading: Loading
    tuning: Tuning | None  # to be given some time between steps
    stream: Stream | None  # under a memory budget: the weights that come and go
    neurons: NeuronStream | None  # of a model laid out by neurons


def assemble(
    path: str | Path,
    *,
    device: str | Device = "cpu",
    threads: int | None = None,
    ctx_size: int | None = None,
    kv: str = "paged",
    kv_cache_dtype: str = "auto",
    page_tokens: int = 16,
    prefill_chunk: int = 512,
    max_num_seqs: int = 16,
    policy: str = "fcfs",
    swap: str = "none",
    speculator: str = "none",
    verifier: str = "auto",
    sampler: str = "standard",
    runner: str = "text",
    tuner: str = "none",
    seed: int = 0, fp8: str = "auto",
    ram_budget: str | int | None = None,
    residency: str = "", prefetch: str = "none",
    source: str = "auto", neurons: str = "",
) -> Assembly:
    """ctx_size: None is the model's context but at most 4096, 0 is the model's. Members go by catalog name, with
    settings ("ngram:n=3"); a device may be one that exists. What can be refused is, before the weights are read or
    while they are. fp8: what FP8 weights are computed as, "bf16", "int8" or "auto". swap: see `kv.swap.open_swap`.
    ram_budget: bytes, "2GiB" or "auto", all memory of the process; under it weights come from disk as they are wanted
    (residency, prefetch, source, neurons say how). Without it a model that memory cannot hold gets "auto"."""
    if max_num_seqs < 1 or prefill_chunk < 1:
        raise BadInput(f"max_num_seqs ({max_num_seqs}) and prefill_chunk ({prefill_chunk}) must be at least 1.")
    checkpoint = open_checkpoint(path)
    milestone("header read")
    header = checkpoint.header()
    spec, context = _context(header, ctx_size)

    def formats() -> Iterator[str]:
        return (checkpoint.info(name).format for name in checkpoint.names())

    dtype = cache_type(kv_cache_dtype, formats())
    schedule, swapping = POLICIES.build(policy), open_swap(swap)
    drafts = SPECULATORS.build(speculator)
    verify = build_verifier(verifier, speculator, SAMPLERS.build(sampler))
    check_needs(f"speculator '{speculator}'", drafts.needs, f"kv '{kv}'", CACHES.load(kv.partition(":")[0]).gives)
    machine: Device = DEVICES.build(device, threads=threads) if isinstance(device, str) else device
    per_token = token_bytes(spec.layers, spec.kv_heads, spec.head_dim, dtype)
    room = Room(prefill_chunk, 0, page_tokens, page_tokens * per_token, frozenset(formats()))
    target = Target(header, spec, machine, context, max_num_seqs, verify.odds, pieces_of, room)
    held = drafts.prepare(target)
    weights = held + sum(checkpoint.info(name).extent.nbytes for name in checkpoint.names())
    memory = machine.info.memory_bytes
    laid = checkpoint if isinstance(checkpoint, StreamedCheckpoint) else None  # its experts can only come and go
    budget = budget_of(ram_budget, weights, memory, laid is not None, hasattr(machine, "bundle"))
    if budget is None:
        pages = page_count(header.name, weights, memory, per_token, context, max_num_seqs, page_tokens, dtype)
    else:
        pages = page_count_within(budget, per_token, context, max_num_seqs, page_tokens)
    kv_bytes = (pages := min(pages, room.pages or pages)) * page_tokens * per_token
    stream = None if budget is None else streaming(
        spec, machine, header.files, budget_bytes=budget, residency=residency, prefetch=prefetch, source=source,
        reserved_bytes=kv_bytes + held, rows=room.rows, laid=laid, waits=target.waits, neurons=neurons,
    )  # fmt: skip
    tuning = apply_measured(machine, tuner)
    float8 = float8_for(fp8, checkpoint, machine)
    model, loading = begin_model(checkpoint, machine, context=context, float8=float8, stream=stream)
    milestone("weights being read")
    try:  # beside the reading: it leaves the interpreter to us
        tokenizer, template = _words(header, spec)
    except BaseException:
        loading.stop()
        raise
    milestone("tokenizer and template there")
    loading.wait()
    milestone("weights there")
    if stream is not None:
        stream.open()
        room.rows = stream.rows
        weakref.finalize(model, stream.close)

    def running(kind: str, tokens: int) -> TextRunner:
        cache = CACHES.build(
            kv, device=machine, layers=spec.layers, kv_heads=spec.kv_heads, head_dim=spec.head_dim,
            pages=-(-tokens // page_tokens), page_tokens=page_tokens, dtype=kind,
        )  # fmt: skip
        return RUNNERS.build(runner, model=model, kv=cache, device=machine)  # type: ignore[no-any-return]

    if dtype in NARROW:
        verdict = choose_kv(
            dtype, cache_type("auto", formats()), checkpoint, machine, tokenizer.encode if tokenizer else None,
            spec.vocab, context, lambda kind, text: running(kind, len(text)).score(text, room.rows),
        )  # fmt: skip
        if verdict.dtype != dtype:  # in the same room, but one sequence must fit
            per_token, dtype = token_bytes(spec.layers, spec.kv_heads, spec.head_dim, verdict.dtype), verdict.dtype
            pages = max(-(-context // page_tokens), kv_bytes // (page_tokens * per_token))
            kv_bytes = pages * page_tokens * per_token
            getattr(machine, "notes", []).append(verdict.note)
    work = running(dtype, pages * page_tokens)
    cache: KVCache = work.kv
    engine = Engine(
        work, cache, schedule, drafts, verify,
        vocab=model.spec.vocab, context=context, ends=ends_of(header, tokenizer, model.spec.vocab), rows=room.rows,
        sequences=max_num_seqs, page_tokens=page_tokens, seed=seed, swap=swapping,
        pieces=None if tokenizer is None else tokenizer.token_bytes,
    )  # fmt: skip
    bundles, rows = (None, stream) if isinstance(stream, NeuronStream) else (stream, None)
    return Assembly(
        header, model.spec, machine, model, cache, dtype, kv_bytes, context, work, engine, tokenizer, template,
        loading, tuning, bundles, rows,
    )


def _context(header: Header, wanted: int | None) -> tuple[ModelSpec, int]:
    """The model's shape, and the longest sequence that will be served."""
    if wanted is None or wanted == 0:
        spec = read_spec(header)
        return spec, spec.context if wanted == 0 else min(spec.context, CONTEXT)
    if wanted < 0:
        raise BadInput(f"ctx_size is {wanted}; give a number of tokens, or 0 for the model's own context.")
    spec = read_spec(header, wanted)
    if wanted > spec.context:
        raise BadInput(
            f"ctx_size is {wanted} but {header.name} was made for {spec.context} tokens at most. Ask for fewer."
        )
    return spec, wanted


def _words(header: Header, spec: ModelSpec) -> tuple[Tokenizer | None, ChatTemplate | None]:
    """The tokenizer and chat template, checked against the model. A checkpoint without a tokenizer is still a model."""
    if not has_words(header):
        return None, None
    tokenizer = load_tokenizer(header)
    if tokenizer.vocab > spec.vocab:
        raise BadInput(
            f"The tokenizer of {header.name} has {tokenizer.vocab} tokens but the embedding has {spec.vocab} rows: "
            "some tokens have no vector. Tokenizer and weights do not belong together."
        )
    return tokenizer, load_template(header)
