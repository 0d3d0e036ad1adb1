"""Pages of int8: every table stores the twin's bytes and gives the baseline's bits."""

import numpy as np
import pytest

pytest.importorskip("edgewise._native")

from edgewise import _native
from edgewise.kernels.api import AttnSpec, Floats, SeqRows
from edgewise.kernels.devices.cpu import CpuDevice
from edgewise.kernels.devices.reference import ReferenceDevice, to_int8

HEADS, KV_HEADS, DIM, ROWS = 6, 2, 40, 77
ISAS = _native.runnable_isas()


def hostile(numbers: np.random.Generator, heads: int) -> Floats:
    """Rows of all magnitudes, with halves (where rounding can go wrong), zeros and subnormals."""
    x = numbers.standard_normal((ROWS, heads, DIM)).astype(np.float32)
    x *= np.exp2(numbers.integers(-40, 16, (ROWS, heads, 1))).astype(np.float32)
    x[3], x[5, 0], x[7, :, 1:] = 0, 1e-40, 0.5
    x[9] = np.round(x[9] / np.abs(x[9]).max() * 254) / 2
    return x.reshape(ROWS, heads * DIM)


@pytest.mark.native
@pytest.mark.parametrize("isa", ISAS)
def test_what_is_stored_is_the_twins(isa: str) -> None:
    numbers = np.random.default_rng(1)
    values = hostile(numbers, KV_HEADS)
    device = CpuDevice(2, isa)
    table = np.arange(ROWS, dtype=np.int32)[: -(-ROWS // 16)]
    pool = device.alloc_pages(len(table), 16, KV_HEADS, DIM, "int8")
    plan = device.attn_plan([SeqRows(0, 0, ROWS, 0)], [table], 16)
    device.append(pool, device.upload(values), device.upload(values), plan)
    quants, scales = to_int8(values.reshape(ROWS, KV_HEADS, DIM))
    for page in range(ROWS // 16):
        raw = device.save_pages(pool, np.array([page], np.int32))
        kept = slice(16 * page, 16 * page + 16)
        keys = raw[: KV_HEADS * 16 * DIM].view(np.int8).reshape(KV_HEADS, DIM, 16)
        assert np.array_equal(keys.transpose(2, 0, 1), quants[kept])
        padded = -(-DIM // 16) * 16
        rest = raw[KV_HEADS * 16 * DIM :]
        stored = rest[: KV_HEADS * 16 * padded].view(np.int8).reshape(KV_HEADS, 16, padded)[..., :DIM]
        assert np.array_equal(stored.transpose(1, 0, 2), quants[kept])
        ends = rest[KV_HEADS * 16 * padded :].view(np.float16).reshape(2, KV_HEADS, 16)
        for found in ends:
            assert np.array_equal(found.T.view(np.uint16), scales[kept].view(np.uint16))


@pytest.mark.native
def test_all_tables_give_the_same_bits() -> None:
    numbers = np.random.default_rng(2)
    q, k, v = (numbers.standard_normal((600, heads * DIM), np.float32) for heads in (HEADS, KV_HEADS, KV_HEADS))
    spec = AttnSpec(0, HEADS, KV_HEADS, DIM, DIM**-0.5, softcap=20.0)
    table = np.random.default_rng(3).permutation(90).astype(np.int32)[:38]
    found = {}
    for isa in ISAS:
        device = CpuDevice(2, isa)
        pool = device.alloc_pages(90, 16, KV_HEADS, DIM, "int8")
        plan = device.attn_plan([SeqRows(0, 0, 600, 0)], [table], 16)
        device.append(pool, device.upload(k), device.upload(v), plan)
        found[isa] = np.array(device.download(device.attention(spec, device.upload(q), pool, plan)))
    want = found["baseline"]
    assert all(np.array_equal(got.view(np.uint32), want.view(np.uint32)) for got in found.values())
    slow = ReferenceDevice()
    pool = slow.alloc_pages(90, 16, KV_HEADS, DIM, "int8")
    plan = slow.attn_plan([SeqRows(0, 0, 600, 0)], [table], 16)
    slow.append(pool, k, v, plan)
    np.testing.assert_allclose(want, slow.attention(spec, q, pool, plan), rtol=2e-4, atol=2e-5)
