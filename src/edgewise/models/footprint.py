"""What a pass of a model takes besides weights and KV: activations and logits, as the CPU device's allocator counts.

A layer is at its widest in the feed-forward part; of experts, in their places. Blocks come in powers of two and halfway
between. For integer formats the formula gives the allocator's own number, and not less for others.
"""

from collections.abc import Collection

from edgewise.models.api import ModelSpec

SIDE = 5 * 4 / 32  # bytes of side record for each quantised activation (csrc/base/views.h: kSideRows words a kGroup)
ATTENTION_ROWS = 64  # query rows that a thread holds (csrc/ops/table.h: kAttendQueries)
SMALLEST = 256


def block_bytes(nbytes: float) -> int:
    """The size class that the allocator gives for so many bytes (csrc/base/memory.cc: class_of)."""
    whole = max(SMALLEST, int(-(-nbytes // 1)))
    half = 3 << (whole - 1).bit_length() - 2
    return half if whole <= half else 1 << (whole - 1).bit_length()


def pass_bytes(spec: ModelSpec, rows: int, wanted: int, formats: Collection[str] = ()) -> int:
    """The most that a pass of `rows` tokens holds, logits of `wanted` of them included. formats: of the matrices."""
    each = 1 + SIDE  # of an activation as integer formats meet it
    if "F16" in formats or not set(formats) - {"F32"}:
        each = 4.0 if formats else each
    elif "BF16" in formats:
        each = 2.0

    def floats(count: float) -> int:
        return block_bytes(4 * count)

    def met(count: int, width: int) -> int:
        return block_bytes(each * count * width + 64)

    places, hidden = (rows * spec.experts_per_token, spec.ffn_dim) if spec.experts else (rows, spec.ffn_dim)
    stream = floats(rows * spec.dim)
    ffn = 2 * floats(places * hidden) + met(places, hidden) + met(places if spec.experts else rows, spec.dim) + stream
    if spec.experts:
        ffn += floats(places * spec.dim) + stream
    heads, kv_heads = rows * spec.heads * spec.head_dim, rows * spec.kv_heads * spec.head_dim
    layer = stream + 2 * floats(heads) + 2 * floats(kv_heads)
    head = 2 * floats(wanted * spec.dim) + floats(wanted * spec.vocab)
    return layer + ffn + head


def table_bytes(spec: ModelSpec, context: int) -> int:
    """Of the tables of angles, once the first pass has made them."""
    reach = max(context, min(spec.context, 1024))  # models/ropes.py: RopeTable.upto
    return len(spec.extra.get("ropes", ())) * block_bytes(4 * reach * spec.head_dim)
