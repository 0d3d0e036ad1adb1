"""What a memory budget means for this model on this machine: what stays, how fast it will be, how fast it was."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from edgewise.assemble import Assembly
from edgewise.base.limits import peak_resident_bytes
from edgewise.models.forecast import Costs
from edgewise.models.streaming import speed
from edgewise.serve.options import human
from edgewise.weights.store import Counts

PROBE_BUNDLES = 16
PROBE_TOKENS = 4


@dataclass(frozen=True)
class Outlook:
    """Costs as just measured, and the tokens per second of one sequence that follow from them."""

    budget_bytes: int
    slots: int
    bundles: int
    slot_bytes: int
    costs: Costs
    disk_bytes_s: float  # reading and packing bundles, several at once
    uniform_tok_s: float  # when every bundle is as likely as any other
    resident_tok_s: float  # when everything that is wanted is here
    source: str  # how files are read
    laid_out: bool  # by `convert --layout streamed`; else bundles are gathered and repacked from the file as it is

    def at(self, assembly: Assembly, hit_rate: float) -> float:
        """Tokens per second at another hit rate."""
        assert assembly.stream is not None
        return speed(assembly.stream, self.costs, hit_rate)

    def words(self) -> str:
        share = self.slots / self.bundles
        return (
            f"budget {human(self.budget_bytes)}: room for {self.slots} of {self.bundles} bundles of "
            f"{human(self.slot_bytes)} ({share:.0%}); disk {self.disk_bytes_s / 1e9:.2f} GB/s ({self.source})"
            f"{'' if self.laid_out else ' repacking (convert --layout streamed reads faster)'}, "
            f"{1e3 * self.costs.token_s:.1f} ms a token without reading; predicted {self.uniform_tok_s:.1f} tok/s if "
            f"every bundle is as likely as any other, {self.resident_tok_s:.1f} if all that is wanted is here"
        )


def outlook(assembly: Assembly) -> Outlook:
    """Measures reading and computing for a fraction of a second (what is read stays) and predicts."""
    stream = assembly.stream
    assert stream is not None
    store = stream.running
    disk, first, following, cpu = _reading(assembly)
    needs = stream.needs(0, 0)
    token, bundle = _computing(assembly)
    store.counts = Counts()
    _stalled(assembly)
    costs = Costs(token, bundle, first, following, cpu, assembly.device.info.threads)
    share = uniform_share(store.slots.count, needs.bundles, bool(stream.layers))
    return Outlook(
        stream.budget_bytes, store.slots.count, needs.bundles, store.slots.nbytes, costs, disk,
        speed(stream, costs, share), speed(stream, costs, 1.0), stream.source,
        stream.laid is not None,
    )  # fmt: skip


def uniform_share(slots: int, bundles: int, experts: bool) -> float:
    """Hits to be expected when every bundle is as likely; a ring of layers misses one more than it lacks."""
    return min(1.0, slots / bundles * (1.0 if experts or slots >= bundles else 1.0 - 1.0 / bundles))


def _reading(assembly: Assembly) -> tuple[float, float, float, float]:
    """Bytes per second of several bundles at once; seconds of the first of them, of each other, and of processor."""
    stream = assembly.stream
    assert stream is not None
    store = stream.running
    count, total = min(PROBE_BUNDLES, store.slots.count), len(store.stored)
    together = min(count, max(1, stream.needs(0, 0).least)) if stream.layers else count

    def fetch(keys: Sequence[int]) -> tuple[float, float]:
        begin, busy = time.perf_counter(), time.process_time()
        with store.pin(keys):
            return time.perf_counter() - begin, (time.process_time() - busy) / len(keys)

    def spread(number: int, turn: int) -> list[int]:
        if not stream.layers:
            return list(range(number))
        return list(dict.fromkeys((at * total // number + turn) % total for at in range(number)))

    disk = cpu = 0.0
    for turn in range(2):  # the first one's memory is new, which costs more than reading
        store.drop_all()
        keys = spread(count, turn)
        took, cpu = fetch(keys)
        disk = sum(store.stored[key].bundle.nbytes for key in keys) / took
    slot = stream.needs(0, 0).slot
    if not stream.layers:  # a window reads all the time
        return disk, slot / disk, slot / disk, cpu
    alone, many = [], []
    for turn in range(3):
        store.drop_all()
        alone.append(fetch([(turn * total // 3 + 5) % total])[0])
        store.drop_all()
        many.append(fetch(spread(together, turn + 2))[0])
    first = float(np.median(alone))
    return disk, first, max(0.0, float(np.median(many)) - first) / max(1, together - 1), cpu


def _computing(assembly: Assembly) -> tuple[float, float]:
    """Seconds of a token that finds everything here, and the share of one bundle in it."""
    stream, device, model = assembly.stream, assembly.device, assembly.model
    assert stream is not None
    store = stream.running
    head = model.head_weight  # type: ignore[attr-defined]  # every Decoder has one
    needs = stream.needs(0, 0)
    bundles = needs.least * len(stream.layers) if stream.layers else needs.bundles
    met = head.nbytes + needs.slot * bundles + (attention_bytes(assembly) if stream.layers else 0)
    if not stream.layers:  # large products, beside which nothing else counts
        x = device.upload(np.ones((1, model.spec.dim), np.float32))
        token = min(_seconds(lambda: device.linear(x, head)) for _ in range(3)) * met / head.nbytes
        return token, token * needs.slot / met
    # The same token over and over asks for the same experts, so after the first pass they are here if they all fit;
    # if not, what was waited for is taken off.
    best = np.inf
    _stalled(assembly)
    steps = assembly.runner.score([model.spec.vocab // 2] * PROBE_TOKENS, 1)
    for at in range(PROBE_TOKENS):
        waited = store.counts.waited_s
        took = _seconds(lambda: next(steps))
        waited = _stalled(assembly) + store.counts.waited_s - waited
        if at:
            best = min(best, max(took - waited, 0.0))
    steps.close()
    return best, best * needs.slot / met


def _stalled(assembly: Assembly) -> float:
    """Seconds that experts were waited for since the last call."""
    return float(getattr(assembly.device, "stalled_s", lambda: 0.0)())


def _seconds(work: Any) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def attention_bytes(assembly: Assembly) -> int:
    """Weights of attention in all layers."""
    total = 0
    for layer in assembly.model.layers:  # type: ignore[attr-defined]
        attention = layer.attention
        total += sum(part.weight.nbytes for part in (attention.q, attention.k, attention.v, attention.o))
    return total


def counted(assembly: Assembly) -> Counts:
    """A copy of what was counted so far."""
    assert assembly.stream is not None
    return replace(assembly.stream.running.counts)


def report(assembly: Assembly, seen: Outlook, prompt: Counts) -> dict[str, Any]:
    """What --json says about the budget. prompt: what had been counted when the first token was there; a prediction is
    about the tokens after it."""
    assert assembly.stream is not None
    counts = assembly.stream.running.counts
    asked = counts.asked - prompt.asked
    writing = (counts.hits - prompt.hits) / asked if asked else counts.hit_rate
    return {
        **asdict(seen), **asdict(counts), "io_wait_s": counts.waited_s + _stalled(assembly),
        "hit_rate": counts.hit_rate, "writing_hit_rate": writing, "peak_bytes": peak_resident_bytes(),
        "predicted_tok_s": seen.at(assembly, writing),
    }  # fmt: skip


def afterwards(found: dict[str, Any], tok_s: float) -> str:
    """One line: measured beside predicted. found: what `report` says."""
    peak, budget = found["peak_bytes"], found["budget_bytes"]
    return (
        f"hit rate {found['hit_rate']:.1%} ({found['writing_hit_rate']:.1%} while writing), "
        f"{human(found['bytes_read'])} read; measured {tok_s:.1f} tok/s, predicted "
        f"{found['predicted_tok_s']:.1f} at that hit rate; peak memory {human(peak)} of {human(budget)}"
        f"{'' if peak <= budget else ': MORE than the budget, please report it'}"
    )
