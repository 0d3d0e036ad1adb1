"""What a memory budget means for this model on this machine: what stays, how fast it will be, how fast it was."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgewise.assemble import Assembly
from edgewise.base.limits import peak_resident_bytes
from edgewise.models.streaming import speed
from edgewise.serve.options import human
from edgewise.weights.store import Counts

PROBE_BUNDLES = 16


@dataclass(frozen=True)
class Outlook:
    """Rates as just measured (bytes per second), and the tokens per second of one sequence that follow from them."""

    budget_bytes: int
    slots: int
    bundles: int
    slot_bytes: int
    token_bytes: int  # weights that a token meets
    disk_bytes_s: float  # reading and packing bundles
    weights_bytes_s: float  # weights passing by
    uniform_tok_s: float  # when every bundle is as likely as any other
    resident_tok_s: float  # when everything that is wanted is here
    laid_out: bool  # by `convert --layout streamed`; else bundles are gathered and repacked from the file as it is

    def at(self, assembly: Assembly, hit_rate: float) -> float:
        """Tokens per second at another hit rate."""
        assert assembly.stream is not None
        return speed(assembly.stream, self.token_bytes, self.weights_bytes_s, self.disk_bytes_s, hit_rate)

    def words(self) -> str:
        share = self.slots / self.bundles
        return (
            f"budget {human(self.budget_bytes)}: room for {self.slots} of {self.bundles} bundles of "
            f"{human(self.slot_bytes)} ({share:.0%}); disk {self.disk_bytes_s / 1e9:.2f} GB/s"
            f"{'' if self.laid_out else ' repacking (convert --layout streamed reads faster)'}, weights "
            f"{self.weights_bytes_s / 1e9:.1f} GB/s; predicted {self.uniform_tok_s:.1f} tok/s if every bundle is as "
            f"likely as any other, {self.resident_tok_s:.1f} if all that is wanted is here"
        )


def outlook(assembly: Assembly) -> Outlook:
    """Measures disk and kernels for a fraction of a second (what is read stays) and predicts."""
    stream = assembly.stream
    assert stream is not None
    store = stream.running
    count, total = min(PROBE_BUNDLES, store.slots.count), len(store.stored)
    disk = 0.0
    for turn in range(2):  # the first one's memory is new, which costs more than reading
        store.drop_all()
        keys = [(at * total // count + turn) % total for at in range(count)] if stream.layers else list(range(count))
        begin = time.perf_counter()
        with store.pin(keys):
            disk = sum(store.stored[key].bundle.nbytes for key in keys) / (time.perf_counter() - begin)
    store.counts = Counts()
    device, model = assembly.device, assembly.model
    head = model.head_weight  # type: ignore[attr-defined]  # every Decoder has one
    x = device.upload(np.ones((1, model.spec.dim), np.float32))
    best = np.inf
    for _ in range(3):
        begin = time.perf_counter()
        device.linear(x, head)
        best = min(best, time.perf_counter() - begin)
    weights = head.nbytes / best
    streamed = stream.needs(0, 0)
    token = head.nbytes + streamed.slot * (streamed.least * len(stream.layers) or streamed.bundles)
    if stream.layers:
        token += attention_bytes(assembly)
    share = 1.0 if stream.layers else 1.0 - 1.0 / streamed.bundles  # a ring of layers misses one more than it lacks
    uniform = store.slots.count / streamed.bundles * share
    return Outlook(
        stream.budget_bytes, store.slots.count, streamed.bundles, store.slots.nbytes, token, disk, weights,
        speed(stream, token, weights, disk, min(1.0, uniform)), speed(stream, token, weights, disk, 1.0),
        stream.laid is not None,
    )  # fmt: skip


def attention_bytes(assembly: Assembly) -> int:
    """Weights of attention in all layers."""
    total = 0
    for layer in assembly.model.layers:  # type: ignore[attr-defined]
        attention = layer.attention
        total += sum(part.weight.nbytes for part in (attention.q, attention.k, attention.v, attention.o))
    return total


def report(assembly: Assembly, seen: Outlook) -> dict[str, Any]:
    """What --json says about the budget."""
    assert assembly.stream is not None
    counts = assembly.stream.running.counts
    return {
        **asdict(seen), **asdict(counts), "hit_rate": counts.hit_rate, "peak_bytes": peak_resident_bytes(),
        "predicted_tok_s": seen.at(assembly, counts.hit_rate),
    }  # fmt: skip


def afterwards(assembly: Assembly, seen: Outlook, tok_s: float) -> str:
    """One line: measured beside predicted."""
    found = report(assembly, seen)
    peak = found["peak_bytes"]
    return (
        f"hit rate {found['hit_rate']:.1%}, {human(found['bytes_read'])} read; measured {tok_s:.1f} tok/s, predicted "
        f"{found['predicted_tok_s']:.1f} at that hit rate; peak memory {human(peak)} of {human(seen.budget_bytes)}"
        f"{'' if peak <= seen.budget_bytes else ': MORE than the budget, please report it'}"
    )
