"""Whether a narrow KV cache keeps what a model says: tried on a short text when the model is loaded, then remembered.

The model reads the text twice, once with each cache. The narrow one stays when perplexity rises by no more than 1 %
(the usual bound; 8-bit caches are known to ruin some models) and the distributions stay near each other.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgewise.kernels.api import Device, Floats
from edgewise.plan.probe import fingerprint
from edgewise.plan.store import Store
from edgewise.weights.api import Checkpoint

LENGTH = 192  # tokens that are read at most
MOST_RISE = 1.01  # of perplexity
MOST_NATS = 0.02  # mean divergence of a token's distribution
ROWS = 32
LEAST_SAME = 0.9  # share of tokens with the same best one
TEXT = """\
The kettle had been on the stove for ten minutes before anyone noticed that the gas was off. "It was you who wanted \
tea," said Marta, without looking up from her book; 17 pages were left, and she meant to finish them before the train \
reached Lyon. Outside, the river ran fast and brown between the willows, as it does every April when the snow melts.

def mean(values):
    total = 0.0
    for value in values:
        total += value
    return total / len(values) if values else None

Water boils at 100 degrees Celsius at sea level, but at about 93 degrees in a town 2,000 metres above it: the air is \
thinner there, and its pressure lower. Cooks who move to the mountains learn this within a week. They add a few \
minutes to every recipe, then a few more, and in the end they buy a pressure cooker. 1. Fill it half. 2. Close the \
lid. 3. Wait until the valve whistles, turn the flame down, and count: rice 6 minutes, beans 25, potatoes 9.
"""


class Verdict(NamedTuple):
    """The type to use, and a sentence for the user when it is not the one asked for."""

    dtype: str
    note: str = ""


class Loss(NamedTuple):
    rise: float  # perplexity over that of the default cache
    nats: float
    same: float

    @property
    def small(self) -> bool:  # written so that NaN is not
        return self.rise <= MOST_RISE and self.nats <= MOST_NATS and self.same >= LEAST_SAME


def choose_kv(
    wanted: str, default: str, checkpoint: Checkpoint, device: Device, encode: Callable[[str], Sequence[int]] | None,
    vocab: int, context: int, score: Callable[[str, Sequence[int]], Iterable[Floats]],
) -> Verdict:
    """encode: None when the checkpoint has no tokenizer; any tokens are read then. score(dtype, tokens) → the logits
    after each of them with a cache of that type, some rows at a time, each valid until the next. Nothing is scored when
    this model was tried here before."""
    store = Store(fingerprint(device.info.threads, device.info.isa))
    key = f"kv:{wanted}:{default}:{model_key(checkpoint)}"
    entry = store.get("choices", key) or {}
    try:
        loss = Loss(float(entry["rise"]), float(entry["nats"]), float(entry["same"]))
    except (KeyError, TypeError, ValueError):
        tokens = list(encode(TEXT)) if encode else np.random.default_rng(0).integers(0, vocab, LENGTH).tolist()
        tokens = tokens[: min(LENGTH, context)]
        narrow, plain = (np.concatenate([rows.copy() for rows in score(kind, tokens)]) for kind in (wanted, default))
        loss = loss_of(narrow, plain, tokens)
        found: dict[str, Any] = {"best": wanted if loss.small else default, "us": {}, **loss._asdict()}
        store.put("choices", {key: found})
    if loss.small:
        return Verdict(wanted)
    return Verdict(
        default,
        f"The {wanted} KV cache is off, {default} is used: it would have changed what {checkpoint.header().name} says. "
        f"On a test text perplexity was {loss.rise:.3f} times that of {default} ({MOST_RISE} is allowed), the mean "
        f"divergence {loss.nats:.3f} nats ({MOST_NATS}), and {loss.same:.0%} of the best tokens were the same.",
    )


def loss_of(narrow: Floats, plain: Floats, tokens: Sequence[int]) -> Loss:
    """logits (tokens, vocab) with each cache, of the same tokens."""
    nats = rise = same = 0.0
    count = len(tokens)
    for at in range(0, count, ROWS):  # the whole in double precision could be gigabytes
        ours, theirs = _log_softmax(narrow[at : at + ROWS]), _log_softmax(plain[at : at + ROWS])
        nats += float((np.exp(theirs) * (theirs - ours)).sum())
        same += float((ours.argmax(-1) == theirs.argmax(-1)).sum())
        known = np.array(tokens[at + 1 : at + 1 + ROWS], np.int64)
        row = np.arange(len(known))
        rise += float((theirs[row, known] - ours[row, known]).sum())
    return Loss(math.exp(min(rise / max(1, count - 1), 50.0)), nats / count, same / count)


def _log_softmax(logits: Floats) -> Any:
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


def model_key(checkpoint: Checkpoint) -> str:
    """A model's files as they are now, without reading them: names, sizes, times, and what each tensor is."""
    header, digest = checkpoint.header(), hashlib.blake2b(digest_size=16)
    for file in header.files:
        about = file.stat()
        digest.update(f"{file.resolve()}:{about.st_size}:{about.st_mtime_ns}\n".encode())
    for name in checkpoint.names():
        info = checkpoint.info(name)
        digest.update(f"{name}:{info.shape}:{info.format}:{info.extent.offset}\n".encode())
    return digest.hexdigest()
