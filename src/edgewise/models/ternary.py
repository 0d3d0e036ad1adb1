"""Ternary weights as BitNet checkpoints pack them, read as rows of our own format.

A packed tensor (out / 4, in) of bytes holds row r of the weight in bits 2q and 2q + 1 of its row r % (out / 4), where
q = r // (out / 4): the code of -1 is 0, of 0 is 1, of 1 is 2. `weight_scale`, one number beside it, divides
("bitlinear") or multiplies ("autobitlinear"). https://huggingface.co/docs/transformers/quantization/bitnet
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgewise.base import BadInput, Unsupported
from edgewise.kernels import formats
from edgewise.kernels.api import Device, Ints, ReadAt, Weight
from edgewise.weights.api import Header, TensorInfo

PER_BYTE = 4


def is_packed_ternary(settings: Any, where: str) -> bool:
    """Whether `quantization_config` names packed ternary weights. Raises Unsupported for variants of the method."""
    if not isinstance(settings, Mapping) or settings.get("quant_method") != "bitnet":
        return False
    usual: dict[str, tuple[Any, ...]] = {
        "linear_class": ("bitlinear", "autobitlinear"), "quantization_mode": ("offline",), "use_rms_norm": (False,),
    }  # fmt: skip
    for key, known in usual.items():
        if settings.get(key, known[0]) not in known:
            raise Unsupported(
                f"'{key}' of 'quantization_config' in {where} is {settings.get(key)!r}; only "
                f"{' and '.join(map(repr, known))} can be read. Take the repository with packed weights."
            )
    return True


class PackedTernary:
    """One packed weight of (out, in) and its scale, whose rows are made when they are read."""

    def __init__(self, info: TensorInfo, shape: tuple[int, int], scale: float, header: Header, read: ReadAt) -> None:
        rows, cols = shape
        self.info = info
        self.rows, self.cols = rows, cols
        self._read = read
        groups = [group for group in formats.GROUPS if cols % group == 0]
        if rows % PER_BYTE or not groups:
            raise Unsupported(
                f"Tensor '{info.name}' in {header.name} packs {rows} x {cols} ternary weights; rows must be a multiple "
                f"of {PER_BYTE} and columns of 32."
            )
        self.format = f"ternary:group={max(groups)}"
        self.layout = formats.find(self.format).layout
        self.group = max(groups)
        settings = header.config.get("quantization_config") or {}
        times = settings.get("linear_class", "bitlinear") == "autobitlinear"
        step = np.float64(scale) if times else 1 / np.float64(scale or np.nan)
        self.step = np.float16(step)
        if not np.isfinite(self.step) or (self.step == 0 and step != 0):
            raise BadInput(
                f"Tensor '{info.name}_scale' in {header.name} is {scale!r}, which half precision cannot hold."
            )

    def load(self, device: Device, rows: Ints | None) -> Weight:
        return device.load((self.rows, self.cols), self.format, self.stored, rows)

    def stored(self, offset: int, nbytes: int) -> Any:
        """Bytes of the weight as rows of `format`, one after the other."""
        size = formats.nbytes(self.format, self.cols)
        first, end = offset // size, -(-(offset + nbytes) // size)
        quarter = self.rows // PER_BYTE
        out = np.empty((end - first, self.cols // self.group), self.layout)
        out["d"] = self.step
        at = first
        while at < end:
            field, low = divmod(at, quarter)
            count = min(end - at, quarter - low)
            raw = np.frombuffer(self._read(low * self.cols, count * self.cols), np.uint8)
            # a run of 32 weights becomes 8 bytes: fields of 8 neighbours
            runs = (raw >> np.uint8(2 * field) & np.uint8(3)).reshape(count, -1, self.group // 32, 4, 8)
            packed = runs[..., 0, :] | runs[..., 1, :] << 2 | runs[..., 2, :] << 4 | runs[..., 3, :] << 6
            out["qs"][at - first : at - first + count] = packed.reshape(count, -1, self.group // 4)
            at += count
        return out.view(np.uint8).reshape(-1)[offset - first * size :][:nbytes]
