"""The emulated per-tensor accelerator: exact integers, shadows that restore what overflowed, rows by themselves."""

import numpy as np
import pytest

from edgewise.base import BadInput
from edgewise.kernels.devices.npu import NpuDevice
from edgewise.kernels.devices.reference import ReferenceDevice


def weight(device, values):
    data = np.ascontiguousarray(values, np.float32).tobytes()
    return device.load(values.shape, "F32", lambda offset, count: data[offset : offset + count])


def ready(rows, columns, shadow, loud=None, chunk=4):
    rng = np.random.default_rng(1)
    device = NpuDevice(chunk=chunk, inner="reference")
    w = weight(device, rng.normal(size=(7, columns)).astype(np.float32))
    x = rng.normal(size=(rows, columns)).astype(np.float32)
    if loud is not None:
        x[:, loud] *= 100
    device.profile()
    assert np.array_equal(device.linear(x, w), ReferenceDevice().linear(x, w.inner))
    device.freeze(shadow)
    return device, w, x


@pytest.mark.parametrize("columns", [8, 1500, 3000])
def test_without_outliers_it_is_the_integer_product(columns):
    device, w, x = ready(9, columns, 0.0)
    codes = np.rint(x / np.float32(w.step)).clip(-127, 127).astype(np.int64)
    want = (codes @ w.codes.astype(np.int64).T).astype(np.float64) * (w.step * w.scale)
    assert np.array_equal(device.linear(x, w), want.astype(np.float32))


def test_a_shadow_restores_what_overflowed():
    exact = ReferenceDevice()
    plain, w, x = ready(6, 400, 0.0, loud=17)
    naive = np.abs(plain.linear(x, w) - exact.linear(x, w.inner)).max()
    shadowed, w, x = ready(6, 400, 1.0, loud=17)
    left = np.abs(shadowed.linear(x, w) - exact.linear(x, w.inner)).max()
    assert left < naive / 5
    assert w.overflow[17] == len(x) > w.overflow[:17].sum()


def test_a_row_does_not_depend_on_its_chunk():
    device, w, x = ready(11, 64, 1.0, loud=3)
    whole = device.linear(x, w)
    alone = np.concatenate([device.linear(x[i : i + 1], w) for i in range(len(x))])
    assert np.array_equal(whole, alone)


def test_padding_is_counted():
    device, w, x = ready(6, 8, 1.0)
    device.linear(x, w)
    assert (device.rows_used, device.rows_padded) == (6, 2)


def test_the_order_of_calls_is_checked():
    device = NpuDevice(inner="reference")
    with pytest.raises(BadInput, match="profile"):
        device.freeze()
    with pytest.raises(BadInput, match="between 0 and 1"):
        device.freeze(1.5)
    with pytest.raises(BadInput, match="at least one row"):
        NpuDevice(chunk=0)
