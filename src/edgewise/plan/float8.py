"""What FP8 weights are computed as here: BF16, which holds their exact values, or INT8 in groups of 32, which does not.

An INT8 dot product takes twice the columns of a BF16 one, so that prompts and batches run faster; a single token costs
the same, for both read a byte a weight. The choice changes logits (by less than FP8 itself did), so nothing is measured
behind the user's back: `auto` is what was measured on this machine and stored, or else always the same.
"""

from collections.abc import Mapping

from edgewise.base import BadInput
from edgewise.kernels.api import Device
from edgewise.kernels.formats import FLOAT8
from edgewise.plan.probe import fingerprint
from edgewise.plan.store import Store
from edgewise.weights.api import Checkpoint

KEY = "float8"
CHOICES = ("auto", "bf16", "int8")
DEFAULT = "int8"  # where nothing was measured; see decision record 0081
NEAR = 1.05  # how much slower than the faster one a choice may be


def choose_float8(wanted: str, device: Device) -> tuple[str, str]:
    """("bf16" or "int8", why). Nothing is measured."""
    if wanted not in CHOICES:
        raise BadInput(f"FP8 weights cannot be computed as '{wanted}'. Known: {', '.join(CHOICES)}.")
    if wanted != "auto":
        return wanted, "as asked"
    entry = Store(fingerprint(device.info.threads, device.info.isa)).get("choices", KEY)
    best = entry.get("best") if entry else None
    if best in CHOICES[1:]:
        return str(best), "measured on this machine"
    return DEFAULT, "the default; `edgewise bench fp8-int8 --store` measures this machine"


def float8_for(wanted: str, checkpoint: Checkpoint, device: Device) -> str:
    """What FP8 weights become; the user is told when that is not what the file says. Raises BadInput."""
    if not any(checkpoint.info(name).format in FLOAT8 for name in checkpoint.names()):
        if wanted != "auto":
            raise BadInput(f"{checkpoint.header().name} has no FP8 weights; leave out fp8 '{wanted}'.")
        return wanted
    choice, why = choose_float8(wanted, device)
    if choice == "int8" and wanted == "auto":
        notes: list[str] = getattr(device, "notes", [])
        notes.append(f"FP8 weights become INT8 in groups of 32 ({why}); fp8 'bf16' computes with their exact values.")
    return choice


def best_of(bf16: Mapping[int, float], int8: Mapping[int, float]) -> str:
    """Seconds by rows of activations → the choice: exact weights where they are never more than NEAR times slower, else
    whichever is least behind where it is furthest behind."""
    worst = {
        "bf16": max(bf16[n] / min(bf16[n], int8[n]) for n in bf16),
        "int8": max(int8[n] / min(bf16[n], int8[n]) for n in bf16),
    }
    return "bf16" if worst["bf16"] <= max(NEAR, worst["int8"]) else "int8"


def store_float8(device: Device, best: str, bf16: Mapping[int, float], int8: Mapping[int, float]) -> str:
    """Makes `best` what auto means on this machine; a sentence when it could not be kept, else nothing."""
    store = Store(fingerprint(device.info.threads, device.info.isa))
    us = {f"{name} n={n}": taken[n] * 1e6 for name, taken in (("bf16", bf16), ("int8", int8)) for n in taken}
    store.put("choices", {KEY: {"best": best, "us": us}})
    return store.complaint
