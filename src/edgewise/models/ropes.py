"""Rotary embeddings: inverse frequencies of every scaling kind, and the table of cosines and sines a device rotates by.

Kinds: default, linear, dynamic (NTK), llama3, yarn, longrope, and "factors" (a GGUF file that stores the divisors).
Frequencies are a function of the settings and the context asked for at load, never of a sequence's length, so that a
row's result does not depend on its neighbours or on chunking: within the context a model was made for this equals the
reference implementations; dynamic and longrope models change frequencies only when loaded for a longer context.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgewise.base import BadInput, Unsupported
from edgewise.kernels.api import Array, Device, Floats
from edgewise.models.api import Rope

KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")


class RopeSettings:
    """One kind of layer's rotary settings, checked. `columns` is how many columns of a head are rotated."""

    def __init__(self, params: Mapping[str, Any], head_dim: int, theta: float, context: int, where: str) -> None:
        self._given = (head_dim, theta, context, where)
        self.params = params
        self.where = where
        self.kind = str(params.get("rope_type") or params.get("type") or "default")
        self.kind = {"su": "longrope", "none": "default"}.get(self.kind, self.kind)
        if self.kind == "yarn" and "long_factor" in params:
            self.kind = "longrope"  # some Phi-3 settings say yarn and mean this
        if self.kind not in (*KINDS, "factors"):
            raise Unsupported(f"Rope kind '{self.kind}' in {where} is not known. Known: {', '.join(KINDS)}.")
        self.theta = self.number("rope_theta", theta)
        if self.theta <= 1:
            raise BadInput(f"'rope_theta' in {where} must be above 1 but is {self.theta:g}.")
        self.columns = int(head_dim * self.number("partial_rotary_factor", 1.0))
        if self.columns % 2 or not 0 < self.columns <= head_dim:
            raise BadInput(f"{where} rotates {self.columns} of a head's {head_dim} columns; the number must be even.")
        self.trained = context  # positions the settings speak about, before any extension
        self.original = int(self.number("original_max_position_embeddings", context))
        if self.original < 2:
            raise BadInput(f"'original_max_position_embeddings' in {where} must be at least 2 but is {self.original}.")

    def with_params(self, params: Mapping[str, Any]) -> "RopeSettings":
        return RopeSettings(params, *self._given)

    def number(self, key: str, default: float | None = None) -> float:
        value = self.params.get(key)
        value = default if value is None else value
        if value is None:
            raise BadInput(f"The rope settings in {self.where} (kind '{self.kind}') have no '{key}'.")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
            raise BadInput(f"'{key}' in the rope settings in {self.where} must be a positive number but is {value!r}.")
        return float(value)

    def factors(self, key: str) -> Floats:
        values = self.params.get(key)
        if not isinstance(values, list | tuple | np.ndarray) or len(values) != self.columns // 2:
            size = "no values" if values is None else f"{np.size(values)} values"
            raise BadInput(f"'{key}' in {self.where} has {size} but the rope rotates {self.columns // 2} pairs.")
        if not all(isinstance(v, int | float | np.floating) and 0 < v < 1e30 for v in values):
            raise BadInput(f"'{key}' in {self.where} holds values that are not positive numbers.")
        return np.asarray(values, np.float32)

    def reach(self, context: int | None) -> int:
        """The longest sequence to serve when `context` is asked for (None: what needs no change of frequencies)."""
        if self.kind == "longrope":
            usual, most = min(self.original, self.trained), self.trained
        elif self.kind == "dynamic":
            usual, most = self.trained, int(self.trained * self.number("factor"))
        elif self.kind == "yarn":
            usual = most = max(self.trained, int(self.original * self.number("factor", 1.0)))
        else:
            usual = most = self.trained
        return usual if context is None or context <= usual else min(context, most)

    def rope(self, context: int) -> Rope:
        """Frequencies for sequences of up to `context` tokens."""
        exponents = np.arange(0, self.columns, 2).astype(np.float32) / np.float32(self.columns)
        base, factor = self.theta, 1.0
        if self.kind == "dynamic" and context > self.trained:
            growth = self.number("factor") * context / self.trained - (self.number("factor") - 1)
            base *= growth ** (self.columns / max(self.columns - 2, 1))
        inverse = (1 / (np.float64(base) ** exponents.astype(np.float64)).astype(np.float32)).astype(np.float32)
        if self.kind == "linear":
            inverse = inverse / np.float32(self.number("factor"))
        elif self.kind in ("llama3", "factors"):
            inverse = inverse / (self.factors("factors") if self.kind == "factors" else self.llama3(inverse))
        elif self.kind == "longrope":
            inverse = inverse / self.factors("short_factor" if context <= self.original else "long_factor")
            factor = self._longrope_factor()
        elif self.kind == "yarn":
            inverse, factor = self._yarn(inverse)
        return Rope(inverse.astype(np.float32), float(np.float32(factor)))  # GGUF files store factors in float32

    def llama3(self, inverse: Floats) -> Floats:
        """Llama 3.1's divisor of every frequency: long waves are stretched, short ones kept, a ramp between.

        This is also what a GGUF file stores as rope_freqs.weight.
        """
        stretch, low, high = (self.number(k) for k in ("factor", "low_freq_factor", "high_freq_factor"))
        if high <= low:
            raise BadInput(f"'high_freq_factor' in {self.where} is {high:g}, not above 'low_freq_factor', {low:g}.")
        waves = 2 * math.pi / inverse.astype(np.float64)
        smooth = np.clip((self.original / waves - low) / (high - low), 0, 1)
        ramp: Floats = (1 / ((1 - smooth) / stretch + smooth)).astype(np.float32)
        return ramp

    def _longrope_factor(self) -> float:
        given = self.params.get("attention_factor")
        stretch = self.number("factor", self.trained / self.original)
        if given is not None or stretch <= 1:
            return self.number("attention_factor", 1.0)
        return math.sqrt(1 + math.log(stretch) / math.log(self.original))

    def _yarn(self, inverse: Floats) -> tuple[Floats, float]:
        """Frequencies that turn often are kept, those that turn rarely are divided; a ramp between the two."""
        stretch = self.number("factor", self.trained / self.original)

        def magnitude(weight: float) -> float:
            return 1.0 if stretch <= 1 else 0.1 * weight * math.log(stretch) + 1

        if self.params.get("attention_factor") is not None:
            factor = self.number("attention_factor")
        elif self.params.get("mscale") and self.params.get("mscale_all_dim"):
            factor = magnitude(self.number("mscale")) / magnitude(self.number("mscale_all_dim"))
        else:
            factor = magnitude(1.0)

        def column(turns: float) -> float:  # the pair that makes so many turns over the original context
            return self.columns * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(self.theta))

        low, high = column(self.number("beta_fast", 32.0)), column(self.number("beta_slow", 1.0))
        if self.params.get("truncate", True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.columns - 1)
        pairs = np.arange(self.columns // 2, dtype=np.float32)
        ramp = np.clip((pairs - low) / (high - low if high != low else 0.001), 0, 1).astype(np.float32)
        return inverse / np.float32(stretch) * ramp + inverse * (1 - ramp), factor * self.number("extra_factor", 1.0)


class RopeTable:
    """Cosines and sines on a device, (2, positions, pairs), grown by doubling so that a long context costs nothing."""

    def __init__(self, device: Device, rope: Rope, context: int) -> None:
        self.device = device
        self.rope = rope
        self.context = context
        self._array: Array = None
        self._positions = 0

    def upto(self, position: int) -> Array:
        """A table that reaches `position`; rows do not depend on how far it reaches."""
        if position >= self._positions:
            self._positions = max(position + 1, min(self.context, max(1024, 2 * self._positions)))
            # The angle is a float32 product, as the reference implementations have it; cos and sin are then exact.
            angles = np.outer(np.arange(self._positions, dtype=np.float32), self.rope.inv_freq).astype(np.float64)
            table = np.stack([np.cos(angles), np.sin(angles)]) * self.rope.factor
            self._array = self.device.upload(table.astype(np.float32))
        return self._array
