"""The native decoders and encoders against the gguf package: the same bits for every format."""

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")
_native = pytest.importorskip("edgewise._native", reason="needs the compiled extension")
pytestmark = pytest.mark.native

TABLE = {row[0]: row for row in _native.formats() if row[1] >= 0}  # those that ggml has
SAME_ENCODER = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


def kind(name):
    return gguf.GGMLQuantizationType[name]


def decode(name, packed, threads=1):
    _, _, block, size, _ = TABLE[name]
    out = np.empty(packed.size // size * block, np.float32)
    _native.dequantize(name, packed, out, threads)
    return out


def encode(name, values, threads=1):
    _, _, block, size, _ = TABLE[name]
    out = np.empty(values.size // block * size, np.uint8)
    _native.quantize(name, values, out, threads)
    return out


def same_bits(ours, oracle):
    """Equal bit for bit wherever the oracle's value is a number; not-a-number in the same places."""
    ours, oracle = ours.ravel(), oracle.ravel()
    missing = np.isnan(oracle)
    assert np.array_equal(np.isnan(ours), missing)
    np.testing.assert_array_equal(ours.view(np.uint32)[~missing], oracle.view(np.uint32)[~missing])


def test_sizes_and_numbers_match_gguf():
    assert len(TABLE) == 16
    for name, number, block, size, _ in TABLE.values():
        assert kind(name) == number
        assert gguf.GGML_QUANT_SIZES[kind(name)] == (block, size)


@pytest.mark.parametrize("name", list(TABLE))
def test_random_bytes_decode_as_the_oracle(name):
    size = TABLE[name][3]
    packed = np.random.default_rng(7).integers(0, 256, (4096, size), dtype=np.uint8)
    packed[:4] = [[0], [255], [128], [1]]
    with np.errstate(all="ignore"):
        oracle = gguf.quants.dequantize(packed, kind(name))
    same_bits(decode(name, packed.ravel()), oracle)


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_every_half_decodes_as_the_oracle(name):
    packed = np.arange(65536, dtype=np.uint16).view(np.uint8)
    same_bits(decode(name, packed), gguf.quants.dequantize(packed, kind(name)))


def every_scale_blocks(name, block, size):
    """One block for each half-precision bit pattern of the first scale; MXFP4: each of its 256 exponents."""
    at = {"Q2_K": 80, "Q3_K": 108, "Q6_K": 208}.get(name, 0)
    packed = np.random.default_rng(8).integers(0, 256, (65536, size), dtype=np.uint8)
    packed[:, at : at + 2] = np.arange(65536, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    return packed[:: 1 if block == 32 else 7]


@pytest.mark.parametrize("name", [n for n in TABLE if TABLE[n][2] > 1])
def test_every_scale_decodes_as_the_oracle(name):
    _, _, block, size, _ = TABLE[name]
    packed = every_scale_blocks(name, block, size)
    with np.errstate(all="ignore"):
        oracle = gguf.quants.dequantize(packed, kind(name))
    same_bits(decode(name, packed.ravel()), oracle)


def weights(seed=0, rows=512):
    """Rows of every size a weight may have, with zeros, equal values and ties between +x and -x."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 256)).astype(np.float32)
    x *= np.exp2(rng.integers(-20, 8, (rows, 1))).astype(np.float32)
    x[0] = 0
    x[1] = 0.125
    x[2] = -3
    x[3, ::2], x[3, 1::2] = 1, -1
    x[4, 5] = 1000
    x[5] = np.abs(x[5])
    x[6] = np.round(x[6] * 4) / 4 + 1
    return x


@pytest.mark.parametrize("name", SAME_ENCODER)
def test_encodes_as_the_oracle(name):
    x = weights()
    oracle = gguf.quants.quantize(x, kind(name)).view(np.uint8)
    np.testing.assert_array_equal(encode(name, x.ravel()), oracle.ravel())


def test_f16_rounds_every_boundary_to_even():
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (halves[:-1].astype(np.float64) + halves[1:]) / 2
    exact = middle.astype(np.float32)
    x = np.concatenate([exact, np.nextafter(exact, np.float32(0)), np.nextafter(exact, np.float32(1e9)), halves])
    x = np.concatenate([x, -x, np.float32([65519.99, 65520, 1e30, np.inf, -np.inf])])
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(encode("F16", x).view(np.uint16), expected)
    assert np.isnan(encode("F16", np.float32([np.nan])).view(np.float16))[0]


@pytest.mark.parametrize("name", [name for name in TABLE if TABLE[name][4]])
def test_weights_too_small_for_a_step_become_finite_numbers(name):
    for size in (1e-38, 1e-40, 1e-45):
        x = np.linspace(-size, size, 256).astype(np.float32)
        assert np.isfinite(decode(name, encode(name, x))).all()


def test_threads_change_nothing():
    x = np.random.default_rng(3).standard_normal(256 * 4000).astype(np.float32)
    for name, row in TABLE.items():
        if not row[4]:
            continue
        one, four = encode(name, x, 1), encode(name, x, 4)
        np.testing.assert_array_equal(one, four)
        np.testing.assert_array_equal(decode(name, one, 1), decode(name, one, 4))


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="whole blocks"):
        _native.dequantize("Q4_0", np.zeros(18, np.uint8), np.zeros(31, np.float32), 1)
    with pytest.raises(ValueError, match="do not fit"):
        _native.dequantize("Q4_0", np.zeros(17, np.uint8), np.zeros(32, np.float32), 1)
    with pytest.raises(ValueError, match="do not fit"):
        _native.quantize("Q8_0", np.zeros(32, np.float32), np.zeros(33, np.uint8), 1)
    with pytest.raises(KeyError, match="no weight format"):
        _native.dequantize("Q9_9", np.zeros(18, np.uint8), np.zeros(32, np.float32), 1)
