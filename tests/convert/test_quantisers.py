"""What quantisers keep to: the right bytes, near the numbers, by their own measure no worse than round to nearest."""

from functools import cache

import numpy as np
import pytest

from edgewise.base import BadInput, Unsupported
from edgewise.convert.grids import GRIDS
from edgewise.convert.quantisers import QUANTISERS
from edgewise.convert.quantisers.api import Balancer, Statistics
from edgewise.convert.quantisers.gptq import inverted, triangle
from edgewise.kernels import formats

pytestmark = pytest.mark.native
NARROWING = ["rtn", "rtn:clip=True", "hqq", "hqq:scale=False", "awq:steps=4", "gptq", "gptq:act_order=True"]
SOME = ["Q4_0", "Q4_1", "Q8_0", "Q2_K", "Q4_K", "Q6_K"]


def build(name):
    return QUANTISERS.build(name)


def weights(rows=8, columns=512):
    return (np.random.default_rng(1).standard_t(4, (rows, columns)) * 0.02).astype(np.float32)


@cache
def inputs(columns=512, tokens=800):
    """Rows whose columns hang together, some much larger than others, one always 0."""
    rng = np.random.default_rng(2)
    mixing = np.eye(columns) + 0.05 * rng.standard_normal((columns, columns))
    x = (rng.standard_normal((tokens, columns)) @ mixing * np.exp(rng.standard_normal(columns))).astype(np.float32)
    x[:, 5] = 0
    return x


def seen_of(x):
    return Statistics(len(x), np.abs(x).mean(0), np.square(x).mean(0), x.T @ x / np.float32(len(x)))


def narrowed(name, w, fmt, seen):
    """The numbers that come back, with balanced columns taken apart again."""
    quantiser, scales = build(name), None
    if isinstance(quantiser, Balancer) and seen is not None:
        scales = quantiser.balance([w], [fmt], seen)
    scales = np.ones(w.shape[1], np.float32) if scales is None else scales
    assert (scales > 0).all()
    known = None if seen is None else seen.divided(scales)
    packed = quantiser.quantise("w", np.ascontiguousarray(w * scales), fmt, known)
    assert packed.dtype == np.uint8
    assert packed.nbytes == formats.nbytes(fmt, w.size)
    return formats.dequantize(fmt, packed, w.size).reshape(w.shape) / scales


def loss(name, w, y, seen):
    """A quantiser's own measure of an error."""
    e = (w - y).astype(np.float64)
    if name.startswith("hqq"):
        return (np.abs(e) ** 0.7).sum()
    if name.startswith("gptq"):
        return ((e @ seen.hessian) * e).sum()
    return (e * e * (1 if seen is None else seen.square)).sum()


@pytest.mark.parametrize("name", ["none", *NARROWING])
def test_rows_that_a_format_holds_come_back(name):
    rows = (np.random.default_rng(0).integers(-8, 8, (6, 64)) / 16).astype(np.float32)
    for fmt in ("F32", "F16", "BF16"):
        packed = build(name).quantise("w", rows, fmt)
        assert packed.nbytes == formats.nbytes(fmt, rows.size)
        np.testing.assert_array_equal(formats.dequantize(fmt, packed, rows.size).reshape(rows.shape), rows)


@pytest.mark.parametrize("fmt", SOME)
@pytest.mark.parametrize("name", NARROWING)
def test_none_is_worse_than_round_to_nearest(name, fmt):
    w, seen = weights(), seen_of(inputs())
    if name.startswith("hqq"):
        seen = None
    plain = formats.dequantize(fmt, formats.quantize(fmt, w), w.size).reshape(w.shape)
    assert loss(name, w, narrowed(name, w, fmt, seen), seen) <= 1.000001 * loss(name, w, plain, seen)


@pytest.mark.parametrize("fmt", ["Q4_0", "Q2_K", "Q3_K"])
def test_data_pays(fmt):
    """On inputs that hang together: AWQ at most 0.8 and GPTQ at most half of round to nearest's output error."""
    x = inputs()
    w, seen = weights(), seen_of(x)

    def output_error(name):
        return np.square((w - narrowed(name, w, fmt, seen)) @ x.T).sum()

    plain = output_error("rtn:clip=False")
    assert output_error("gptq") < 0.5 * plain
    assert output_error("awq:steps=4") < 0.8 * plain


@pytest.mark.parametrize("name", NARROWING)
@pytest.mark.parametrize("fmt", ["Q4_0", "Q4_K"])
def test_rows_do_not_depend_on_their_company(name, fmt):
    w, seen = weights(5), seen_of(inputs())
    whole = build(name).quantise("w", w, fmt, seen)
    single = np.concatenate([build(name).quantise("w", row[None], fmt, seen) for row in w])
    np.testing.assert_array_equal(whole, single)


@pytest.mark.parametrize("columns", [256, 768, 1280])
@pytest.mark.parametrize("name", NARROWING)
def test_blocks_at_the_end_of_a_row(name, columns):
    w = weights(3, columns)
    x = inputs(columns, 60)  # fewer tokens than columns: the second moments are singular
    for fmt in ("Q4_0", "Q3_K"):
        y = narrowed(name, w, fmt, seen_of(x))
        assert np.square((w - y) @ x.T).sum() < 0.5 * np.square(w @ x.T).sum()


@pytest.mark.parametrize("fmt", sorted(GRIDS))
@pytest.mark.parametrize("name", NARROWING)
def test_zeros_constants_and_unseen_inputs(name, fmt):
    w = np.zeros((4, 256), np.float32)
    w[1], w[2], w[3, 0] = 0.25, -1e-6, 1
    silent = Statistics(9, np.zeros(256, np.float32), np.zeros(256, np.float32), np.zeros((256, 256), np.float32))
    for seen in (None, silent, seen_of(inputs(256))):
        y = narrowed(name, w, fmt, seen)
        assert np.isfinite(y).all()
        assert not y[0].any()
        np.testing.assert_allclose(y[1], 0.25, rtol=0.14)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", NARROWING)
def test_weights_that_are_no_numbers_are_refused(name, bad):
    w = weights(2)
    w[1, 7] = bad
    with pytest.raises(BadInput, match="'w' holds a weight that is not finite"):
        build(name).quantise("w", w, "Q4_0")


def test_formats_that_are_only_read_are_refused():
    with pytest.raises(Unsupported, match="read but not written"):
        build("rtn").quantise("w", np.zeros((1, 256), np.float32), "IQ4_XS")


def test_settings_out_of_range_are_refused():
    for name in ("gptq:damp=0", "gptq:block=0", "awq:steps=0"):
        with pytest.raises(BadInput):
            build(name)


def test_quantisers_print_as_they_are_built():
    names = ("none", "rtn", "hqq", "awq", "gptq")
    assert [repr(build(name)) for name in names] == [
        "NoQuantiser()", "RtnQuantiser(clip=None)", "HqqQuantiser(p=0.7, beta=10.0, kappa=1.01, rounds=20, scale=True)",
        "AwqQuantiser(steps=20)", "GptqQuantiser(damp=0.01, block=128, act_order=False)",
    ]  # fmt: skip


def test_a_triangle_is_found_and_inverted_in_its_place():
    numbers = np.random.default_rng(0).normal(size=(70, 140))
    lower = np.linalg.cholesky(numbers @ numbers.T)
    want = np.linalg.inv(lower)
    for step in (16, 35, 70, 256):
        np.testing.assert_allclose(triangle(numbers @ numbers.T, step), lower, atol=1e-11)
        np.testing.assert_allclose(inverted(lower.copy(), step), want, atol=1e-12)
