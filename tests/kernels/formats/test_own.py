"""Our own formats: names with a group, the encoder beside its numpy twin, codes there and back, what each keeps."""

import numpy as np
import pytest

from edgewise.base import BadInput, Unsupported
from edgewise.kernels import formats

_native = pytest.importorskip("edgewise._native", reason="needs the compiled extension")
pytestmark = pytest.mark.native
NAMES = [name for name in formats.names() if name.partition(":")[0] in formats.OWN]
DEFAULTS = {"int1": 64, "ternary": 64, "int2": 64, "int3": 64, "int4": 128, "int8": 128}


def weights(group: int) -> np.ndarray:
    """Blocks of every size a weight may have, zeros, equal values, ties, one outlier, an offset, numbers past half."""
    rng = np.random.default_rng(group)
    x = rng.standard_normal((400, group)).astype(np.float32)
    x *= np.exp2(rng.integers(-24, 8, (len(x), 1))).astype(np.float32)
    x[0], x[1], x[2] = 0, 0.125, -3
    x[3, ::2], x[3, 1::2] = 1, -1
    x[4, 5] = 1000
    x[5] += 100
    x[6] = np.round(x[6] * 4) / 4
    x[7] *= 1e30
    x[8] = np.linspace(-1e-38, 1e-38, group)
    return x


@pytest.mark.parametrize("name", NAMES)
def test_encoder_equals_twin(name: str) -> None:
    spec = formats.find(name)
    x = weights(spec.block)
    with np.errstate(over="ignore"):
        twin = spec.narrow(x)
    native = formats.quantize(name, x, threads=2)
    np.testing.assert_array_equal(native, twin.view(np.uint8))
    assert np.isfinite(formats.dequantize(name, native, x.size)).all()


@pytest.mark.parametrize("name", NAMES)
def test_codes_there_and_back(name: str) -> None:
    spec = formats.find(name)
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 1 << spec.bits, (50, spec.block))
    d, m = rng.standard_normal(50).astype(np.float16), rng.standard_normal(50).astype(np.float16)
    b = spec.pack(codes, d, m if spec.affine else None)
    np.testing.assert_array_equal(spec.codes(b), codes)
    zero = {"int1": 0.5, "ternary": 1, "int2": 0, "int3": 0, "int4": 8, "int8": 128}[spec.label]
    step = d.astype(np.float64)[:, None] * (2 if spec.label == "int1" else 1)
    want = step * (codes - zero) + (m.astype(np.float64)[:, None] if spec.affine else 0)
    got = formats.dequantize(name, b.tobytes(), codes.size).reshape(codes.shape)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_the_first_weights_are_the_lowest_fields() -> None:
    """The layout as docs/formats.md tells it, by hand."""
    codes = np.zeros((1, 64), np.int64)
    codes[0, [0, 9, 33]] = [1, 3, 2]
    b = formats.find("int2:group=64").pack(codes, [1.0], [0.5])
    assert b.tobytes().hex() == "003c" + "0038" + "010c000000000000" + "0002000000000000"
    codes[0, 33] = 6
    b = formats.find("int3:group=64").pack(codes, [1.0], [0.5])
    assert b.tobytes().hex() == "003c0038" + "010c000000000000" + "0002000000000000" + "00000000" + "00010000"
    codes[0, [0, 9, 33]] = [5, 1, 7]
    b = formats.find("int4:group=64").pack(codes, [1.0])
    assert b.tobytes().hex() == "003c" + "05" + "00" * 8 + "01" + "00" * 6 + "0007" + "00" * 14


@pytest.mark.parametrize("group", formats.GROUPS)
def test_ternary_and_sign_weights_survive(group: int) -> None:
    rng = np.random.default_rng(group)
    for name, values in (("ternary", [-0.25, 0, 0.25]), ("int1", [-0.25, 0.25]), ("int2", [-0.5, 0, 0.5, 1])):
        x = rng.choice(np.float32(values), (20, group))
        fmt = f"{name}:group={group}"
        np.testing.assert_array_equal(formats.dequantize(fmt, formats.quantize(fmt, x), x.size).reshape(x.shape), x)


def test_fewer_bits_and_larger_groups_err_more() -> None:
    x = np.random.default_rng(0).standard_normal(128 * 500).astype(np.float32)

    def error(fmt: str) -> float:
        return float(((formats.dequantize(fmt, formats.quantize(fmt, x), x.size) - x) ** 2).mean())

    for label in ("int8", "int4", "int3"):
        assert error(f"{label}:group=32") < error(f"{label}:group=64") < error(f"{label}:group=128")
    assert error("int8") < 5e-5 < error("int4") < 0.012 < error("int3") < 0.05 < error("ternary") < 0.21 < error("int1")


def test_names_have_one_canonical_form() -> None:
    for label, group in DEFAULTS.items():
        spec = formats.find(label)
        assert spec.name == f"{label}:group={group}"
        assert formats.find(spec.name) is spec
        assert spec.ggml_type is None
    assert formats.nbytes("int4", 256) == formats.nbytes("int4:group=128", 256) == 2 * 66
    np.testing.assert_array_equal(formats.quantize("int2", np.ones(64)), formats.quantize("int2:group=64", np.ones(64)))


@pytest.mark.parametrize("bad", ["int4:group=48", "int4:group=0", "int4:group=64.0", "int4:group=x", "int4:groups=64"])
def test_unknown_groups_are_refused(bad: str) -> None:
    with pytest.raises(BadInput, match=r"32, 64, 128|Did you mean 'group'"):
        formats.find(bad)


def test_unknown_widths_name_the_nearest() -> None:
    with pytest.raises(Unsupported, match="Did you mean 'int"):
        formats.find("int5:group=32")
