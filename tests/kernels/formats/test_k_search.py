"""The K-block encoders have no oracle: they must beat plain rounding block by block, and stay under a fixed error."""

import numpy as np
import pytest

_native = pytest.importorskip("edgewise._native", reason="needs the compiled extension")
pytestmark = pytest.mark.native

AFFINE = {"Q2_K": (16, 3, 15), "Q4_K": (32, 15, 63), "Q5_K": (32, 31, 63)}  # run length, largest q, largest scale
SYMMETRIC = {"Q3_K": (16, 4, 32), "Q6_K": (16, 32, 128)}  # run length, -smallest q, -smallest scale
BOUND = {"Q2_K": 0.075, "Q3_K": 0.022, "Q4_K": 0.0053, "Q5_K": 0.0013, "Q6_K": 0.00032}  # of N(0, 1): error / power
BYTES = {row[0]: row[3] for row in _native.formats()}


def half(x):
    return x.astype(np.float16).astype(np.float64)


def inverse(x):
    return np.divide(1.0, x, out=np.zeros_like(x), where=x != 0)


def plain_affine(x, length, levels, steps):
    runs = x.reshape(len(x), -1, length)
    low, high = np.minimum(runs.min(-1), 0), runs.max(-1)
    step, drop = (high - low) / levels, -low
    d, dmin = half(step.max(-1, keepdims=True) / steps), half(drop.max(-1, keepdims=True) / steps)
    s = (d * np.clip(np.round(step * inverse(d)), 0, steps))[..., None]
    m = (dmin * np.clip(np.round(drop * inverse(dmin)), 0, steps))[..., None]
    return (np.clip(np.round((runs + m) * inverse(s)), 0, levels) * s - m).reshape(x.shape)


def plain_symmetric(x, length, half_range, steps):
    runs = x.reshape(len(x), -1, length)
    extreme = np.take_along_axis(runs, np.abs(runs).argmax(-1)[..., None], -1)[..., 0]
    step = extreme / -half_range
    top = np.take_along_axis(step, np.abs(step).argmax(-1)[:, None], -1)
    d = half(top / -steps)
    s = (d * np.clip(np.round(step * inverse(d)), -steps, steps - 1))[..., None]
    return (np.clip(np.round(runs * inverse(s)), -half_range, half_range - 1) * s).reshape(x.shape)


def through(name, x):
    packed = np.empty(x.size // 256 * BYTES[name], np.uint8)
    out = np.empty(x.size, np.float32)
    _native.quantize(name, x.ravel(), packed, 1)
    _native.dequantize(name, packed, out, 1)
    return out.reshape(x.shape).astype(np.float64)


def samples():
    rng = np.random.default_rng(1)
    yield "normal", rng.standard_normal((300, 256)) * 0.02
    yield "heavy tails", rng.standard_t(3, (300, 256)) * 0.02
    yield "one sided", np.abs(rng.standard_normal((100, 256))) + 0.5
    yield "sizes differ", rng.standard_normal((100, 16, 16)) * np.exp2(rng.integers(-8, 8, (100, 16, 1)))
    yield "sparse", rng.standard_normal((100, 256)) * (rng.random((100, 256)) < 0.05)
    yield "constant", np.full((2, 256), [[0.25], [-0.25]])


@pytest.mark.parametrize("name", [*AFFINE, *SYMMETRIC])
def test_never_worse_than_plain_rounding(name):
    for what, values in samples():
        x = values.reshape(-1, 256).astype(np.float32)
        plain = plain_affine(x.astype(np.float64), *AFFINE[name]) if name in AFFINE else plain_symmetric(
            x.astype(np.float64), *SYMMETRIC[name]
        )
        ours, theirs = ((through(name, x) - x) ** 2).sum(-1), ((plain - x) ** 2).sum(-1)
        assert np.all(ours <= theirs * 1.001 + 1e-12), what


@pytest.mark.parametrize("name", list(BOUND))
def test_error_of_normal_weights(name):
    x = np.random.default_rng(2).standard_normal((500, 256)).astype(np.float32)
    assert ((through(name, x) - x) ** 2).mean() / (x**2).mean() < BOUND[name]


@pytest.mark.parametrize("name", list(BOUND))
def test_zeros_and_tiny_weights_stay_finite(name):
    assert not through(name, np.zeros((1, 256), np.float32)).any()
    assert np.isfinite(through(name, np.full((1, 256), 1e-38, np.float32))).all()
    assert np.isfinite(through(name, np.linspace(-1e-7, 1e-7, 256, dtype=np.float32)[None])).all()
