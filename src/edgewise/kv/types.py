"""What cached keys and values are stored as: the names people give, and what a token takes."""

from collections.abc import Iterable

from edgewise.base import Unsupported
from edgewise.base.catalog import nearest

ITEM_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "int8": 1}
SCALE_BYTES = {"int8": 2}  # of each head's keys, and of its values, for each token
NARROW = frozenset({"int8"})  # these may change what a model says
NAMES = {
    **{name: name for name in ITEM_BYTES}, "fp16": "f16", "float16": "f16", "bfloat16": "bf16", "fp32": "f32",
    "float32": "f32", "i8": "int8",
}  # fmt: skip


def cache_type(wanted: str, weights: Iterable[str]) -> str:
    """The type of that name. auto: f32 where all weights (their formats) are F32, so that such a model is computed as
    it is written; else f16. Raises Unsupported."""
    if wanted == "auto":
        return "f32" if all(name == "F32" for name in weights) else "f16"
    if wanted.lower() not in NAMES:
        raise Unsupported(f"There is no KV cache type '{wanted}'.{nearest(wanted, ['auto', *NAMES])}")
    return NAMES[wanted.lower()]


def token_bytes(layers: int, kv_heads: int, head_dim: int, dtype: str) -> int:
    """Bytes that one cached token takes in all layers, keys and values together."""
    if dtype not in ITEM_BYTES:
        raise Unsupported(f"There is no KV cache type '{dtype}'. Known: {', '.join(ITEM_BYTES)}.")
    return 2 * layers * kv_heads * (head_dim * ITEM_BYTES[dtype] + SCALE_BYTES.get(dtype, 0))
