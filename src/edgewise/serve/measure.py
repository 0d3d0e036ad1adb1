"""Timed passes through a loaded model, below sampling and text: what `edgewise bench` and bench/ count.

The conventions are llama-bench's: a prefill of random tokens into an empty cache (logits of the last one), and a
decode from an empty cache, one random token a sequence a step. Tokens of sequence 0 do not depend on the batch, so
that by law 1 its logits, and the hash printed beside every figure, do not either.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgewise.base import BadInput, SeqId
from edgewise.decode.scoring import Sums, framed, tally, windows
from edgewise.engine.api import Runner, Work
from edgewise.kernels.api import Floats
from edgewise.kv.api import KVCache
from edgewise.weights.api import Checkpoint

if TYPE_CHECKING:
    from edgewise.serve.llm import LLM

CHUNK = 512  # rows of a prefill step, as llama.cpp's default ubatch


class Loaded(Protocol):
    """What a measurement needs of an engine."""

    runner: Any
    kv: Any
    vocab: int


@dataclass(frozen=True)
class Timed:
    """One measured pass."""

    tokens: int
    steps: int
    seconds: float
    logits_hash: str

    @property
    def tok_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def steps_s(self) -> float:
        return self.steps / self.seconds


class Stepper:
    """Drives an engine's runner and cache directly; the engine must be idle."""

    def __init__(self, engine: Loaded, chunk: int = CHUNK) -> None:
        self.runner: Runner = engine.runner
        self.kv: KVCache = engine.kv
        self.vocab = engine.vocab
        self.chunk = chunk

    def prefill(self, tokens: int) -> Timed:
        """One prompt of random ids, in chunks."""
        ids = self._ids(0, tokens)
        seq = SeqId(-2)
        self.kv.open(seq, ids)
        try:
            start = time.perf_counter()
            for past in range(0, tokens, self.chunk):
                part = ids[past : past + self.chunk]
                last = past + len(part) == tokens
                self.kv.reserve(seq, past + len(part))
                logits = self.runner.step([Work(seq, part, past, int(last))])
            seconds = time.perf_counter() - start
            return Timed(tokens, -(-tokens // self.chunk), seconds, hash_of(logits[0]))
        finally:
            self.kv.close(seq)

    def decode(self, tokens: int, batch: int = 1) -> Timed:
        """`tokens` steps of `batch` sequences, each from an empty cache."""
        seqs = [SeqId(-2 - i) for i in range(batch)]
        ids = [self._ids(i, tokens) for i in range(batch)]
        for seq in seqs:
            self.kv.open(seq, ())
        try:
            start = time.perf_counter()
            for past in range(tokens):
                for seq in seqs:
                    self.kv.reserve(seq, past + 1)
                work = [Work(seq, ids[i][past : past + 1], past, 1) for i, seq in enumerate(seqs)]
                logits = self.runner.step(work)
            seconds = time.perf_counter() - start
            return Timed(tokens * batch, tokens, seconds, hash_of(logits[0]))
        finally:
            for seq in seqs:
                self.kv.close(seq)

    def _ids(self, seed: int, count: int) -> list[int]:
        return [int(token) for token in np.random.default_rng(seed).integers(0, self.vocab, count)]


def perplexity(llm: "LLM", text: str, limit: int) -> float:
    """Of the first `limit` tokens of a text, in windows of at most 512 that overlap by half. Raises BadInput."""
    tokens, size, sums = llm.tokenize(text)[:limit], min(llm.context, 512), Sums()
    if len(tokens) < 2:
        raise BadInput("The text has fewer than two tokens; give a longer one.")
    bos = llm.tokenizer.bos if llm.tokenizer.add_bos else None
    for window in windows(len(tokens), size - 1, size // 2):
        ids, first = framed(tokens, window, bos)
        tally(([logits] for logits in llm.logits_chunks(ids)), ids, first, sums)
    return sums.perplexity


def hash_of(logits: Floats) -> str:
    """Sixteen hexadecimal digits that change when any bit of the logits does."""
    return hashlib.sha256(np.ascontiguousarray(logits, np.float32).tobytes()).hexdigest()[:16]


def step_bytes(checkpoint: Checkpoint, batch: int = 1) -> int:
    """Weight bytes that one step must read: all but the rows of an untied embedding, and of the experts those in use.

    With more rows than one, each draws its own experts; the expected share of distinct ones assumes even routing.
    """
    infos = [checkpoint.info(name) for name in checkpoint.names()]
    head = any(info.name in ("output.weight", "lm_head.weight") for info in infos)
    share = _expert_share(checkpoint.header().config, batch)
    total = 0.0
    for info in infos:
        if head and info.name in ("token_embd.weight", "model.embed_tokens.weight"):
            continue
        expert = "_exps." in info.name or (".experts." in info.name and "shared" not in info.name)
        total += info.extent.nbytes * (share if expert else 1.0)
    return round(total)


def main_format(checkpoint: Checkpoint) -> str:
    """The number format that holds most of the bytes."""
    return max(formats(checkpoint).items(), key=lambda item: item[1][1])[0]


def formats(checkpoint: Checkpoint) -> dict[str, tuple[int, int]]:
    """format → (tensors, bytes)."""
    found: dict[str, tuple[int, int]] = {}
    for name in checkpoint.names():
        info = checkpoint.info(name)
        count, nbytes = found.get(info.format, (0, 0))
        found[info.format] = (count + 1, nbytes + info.extent.nbytes)
    return found


def _expert_share(config: Any, batch: int) -> float:
    def first(keys: Sequence[str], suffix: str) -> int:
        for key, value in config.items():
            if key in keys or key.endswith(suffix):
                return int(value)
        return 0

    experts = first(("num_experts", "num_local_experts", "n_routed_experts"), ".expert_count")
    used = first(("num_experts_per_tok", "moe_topk"), ".expert_used_count")
    if not experts or not used:
        return 1.0
    return float(1 - (1 - used / experts) ** batch)
