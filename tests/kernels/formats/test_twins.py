"""Every format's numpy twin equals the native decoder bit for bit; the room's functions check what they are given."""

import numpy as np
import pytest

from edgewise.base import BadInput, Unsupported
from edgewise.kernels import formats

_native = pytest.importorskip("edgewise._native", reason="needs the compiled extension")
pytestmark = pytest.mark.native


def test_both_tables_say_the_same():
    ours = [
        (f.name, -1 if f.ggml_type is None else f.ggml_type, f.block, f.layout.itemsize)
        for f in map(formats.find, formats.names())
    ]
    assert ours == [row[:4] for row in _native.formats()]
    assert [f[0] for f in ours] == formats.names()
    for name in formats.FORMATS:
        number = formats.find(name).ggml_type
        assert number is None or formats.by_ggml_type(number) is formats.find(name)


@pytest.mark.parametrize("name", formats.names())
def test_twin_equals_native(name):
    spec = formats.find(name)
    raw = np.random.default_rng(11).integers(0, 256, (3000, spec.layout.itemsize), dtype=np.uint8)
    with np.errstate(all="ignore"):
        twin = spec.widen(raw.reshape(-1).view(spec.layout))
    native = formats.dequantize(name, raw.tobytes(), 3000 * spec.block)
    assert twin.shape == (3000, spec.block)
    assert twin.dtype == np.float32
    missing = np.isnan(twin.ravel())
    assert np.array_equal(missing, np.isnan(native))
    np.testing.assert_array_equal(twin.ravel().view(np.uint32)[~missing], native.view(np.uint32)[~missing])


@pytest.mark.parametrize("name", ["F32", "F16", "Q4_0", "Q6_K"])
def test_there_and_back_is_idempotent_on_bytes_of_any_shape(name):
    x = np.random.default_rng(1).standard_normal((3, 256)).astype(np.float32)
    packed = formats.quantize(name, x)
    assert packed.nbytes == formats.nbytes(name, 768)
    y = formats.dequantize(name, packed, 768)
    assert np.abs(y - x.ravel()).max() < 0.5


def test_refusals_name_what_is_wrong():
    with pytest.raises(Unsupported, match="Did you mean 'MXFP4'"):
        formats.nbytes("MXFP", 32)
    with pytest.raises(BadInput, match="whole blocks of 32"):
        formats.nbytes("Q4_0", 33)
    with pytest.raises(BadInput, match="take 18 bytes, but there are 17"):
        formats.dequantize("Q4_0", bytes(17), 32)
    with pytest.raises(Unsupported, match="read but not written"):
        formats.quantize("IQ4_XS", np.zeros(256, np.float32))
    with pytest.raises(Unsupported, match="ggml type 99"):
        formats.by_ggml_type(99)
