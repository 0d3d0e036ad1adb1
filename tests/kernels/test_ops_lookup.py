"""Table lookup on every kernel table of this machine: the same bits as the dot products and as the numpy twins."""

import sys
from collections.abc import Callable

import numpy as np
import pytest

native = pytest.importorskip("edgewise._native")

from edgewise.kernels import formats, lookup  # noqa: E402
from edgewise.kernels.choices import RANGES, Question  # noqa: E402
from edgewise.kernels.devices.cpu import CpuDevice  # noqa: E402
from edgewise.kernels.lookup import last_cache_bytes  # noqa: E402
from edgewise.testing import twins  # noqa: E402

pytestmark = pytest.mark.native
ISAS = native.runnable_isas()
OWN = [name for name in formats.names() if name.partition(":")[0] in formats.OWN]
LOOKUPS = [name for name in OWN if not name.startswith("int8")]
COUNT = len(RANGES) + 1
ALWAYS, NEVER = (1,) * COUNT, (None,) * COUNT
TURNED_OFF = (sys.maxsize - 1,) * COUNT  # allowed, and never taken


def reader(stored: np.ndarray) -> Callable[[int, int], np.ndarray]:
    flat = np.ascontiguousarray(stored).reshape(-1).view(np.uint8)
    return lambda offset, nbytes: flat[offset : offset + nbytes]


def wild(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Activations of very different sizes: a row of zeros, an outlier in a group, equal neighbours."""
    x = (rng.normal(size=shape) * np.exp(rng.normal(size=(shape[0], 1)) * 3)).astype(np.float32)
    x[shape[0] // 2] = 0
    x[0, 3] = 1e4
    x[-1] = np.where(np.arange(shape[1]) % 2, 1.0, -1.0)
    return x


@pytest.mark.parametrize("fmt", LOOKUPS)
@pytest.mark.parametrize("isa", ISAS)
def test_equals_dot_products_and_twin(isa: str, fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWISE_ISA", isa)
    dev = CpuDevice(1)
    block = formats.find(fmt).block
    for rows, groups in ((1, 1), (16, 2), (37, 3), (50, 5)):
        rng = np.random.default_rng(rows)
        cols = groups * block
        stored = twins.random_own_blocks(fmt, rows, cols, rng)
        w = dev.load((rows, cols), fmt, reader(stored))
        x = wild(rng, (19, cols))
        want = twins.matmul_own(fmt, stored, x, lookup=True)
        for n in (19, 17, 16, 9, 8, 7, 6, 5, 4, 3, 2, 1):
            dev.set_lookup(fmt, ALWAYS)
            np.testing.assert_array_equal(dev.download(dev.linear(dev.upload(x[:n]), w)), want[:n])
            dev.set_lookup(fmt, TURNED_OFF)
            np.testing.assert_array_equal(dev.download(dev.linear(dev.upload(x[:n]), w)), want[:n])


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_tables_of_the_twin_fit_a_byte(bits: int) -> None:
    """The slow way through tables gives the integer sums, for the sharpest activations that quantising lets through."""
    rng = np.random.default_rng(bits)
    x = rng.normal(size=(40, 32)).astype(np.float32) * np.exp(rng.normal(size=(40, 32))).astype(np.float32)
    x[0] = 1
    x[1, 1:] = 0
    codes = rng.integers(0, 1 << bits, (25, 32))
    quants, _ = twins.quantise_activations(x, 32, twins.pair_step(bits))
    for row in quants:
        np.testing.assert_array_equal(twins.lookup_sums(codes, row, bits), codes @ row)
    far, _ = twins.quantise_activations(x, 32)
    with pytest.raises(ValueError, match="fit a byte"):  # the limit is needed
        twins.lookup_sums(codes, far[0], bits)


@pytest.mark.parametrize("fmt", ["int1", "ternary", "int2", "int3", "int4"])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_error_beside_floats(fmt: str, group: int) -> None:
    """The sums lose nothing but the activations' rounding: normalised mean square error at most 5e-4."""
    rng = np.random.default_rng(group)
    name, cols = f"{fmt}:group={group}", 1024
    stored = formats.quantize(name, rng.normal(size=(256, cols)).astype(np.float32))
    values = formats.dequantize(name, stored, 256 * cols).reshape(256, cols).astype(np.float64)
    dev = CpuDevice(1)
    dev.set_lookup(name, ALWAYS)
    x = rng.normal(size=(8, cols)).astype(np.float32)
    got = np.array(dev.download(dev.linear(dev.upload(x), dev.load((256, cols), name, reader(stored)))))
    want = x.astype(np.float64) @ values.T
    assert ((got - want) ** 2).sum() / (want**2).sum() < 5e-4


@pytest.mark.parametrize("fmt", ["int2:group=64", "int3:group=32", "int1:group=128", "int4:group=128"])
def test_threads_and_fused_parts(fmt: str) -> None:
    """Tables are made by many threads, strip by strip in the feed-forward part, once for weights that share them."""
    rng = np.random.default_rng(3)
    dim, hidden = 256, 384
    shapes = ((hidden, dim), (hidden, dim), (dim, hidden))
    stored = [twins.random_own_blocks(fmt, *shape, rng) for shape in shapes]
    x = rng.normal(size=(21, dim)).astype(np.float32)
    results = []
    for choice, threads in ((TURNED_OFF, 1), (ALWAYS, 1), (ALWAYS, 3)):
        dev = CpuDevice(threads)
        dev.set_lookup(fmt, choice)
        load = [dev.load(shape, fmt, reader(raw)) for shape, raw in zip(shapes, stored, strict=True)]
        results.append([np.array(dev.download(dev.ffn(dev.upload(x[:n]), *load, "silu"))) for n in (1, 2, 8, 21)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_mixture_of_experts_looks_up() -> None:
    rng = np.random.default_rng(9)
    fmt, dim, hidden, experts = "int2:group=32", 64, 96, 5
    raw = {part: [twins.random_own_blocks(fmt, *shape, rng) for _ in range(experts)]
           for part, shape in (("gate", (hidden, dim)), ("up", (hidden, dim)), ("down", (dim, hidden)))}
    logits, x = rng.normal(size=(13, experts)).astype(np.float32), rng.normal(size=(13, dim)).astype(np.float32)
    results = []
    for choice in (NEVER, ALWAYS):
        dev = CpuDevice(2)
        dev.set_lookup(fmt, choice)
        parts = [dev.experts([dev.load((hidden, dim) if part != "down" else (dim, hidden), fmt, reader(one))
                              for one in raw[part]]) for part in ("gate", "up", "down")]
        for n in (1, 13):
            routing = dev.top_k(dev.upload(logits[:n]), 2, "softmax", False)
            results.append(np.array(dev.download(dev.moe(dev.upload(x[:n]), routing, *parts, "silu"))))
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(results[1], results[3])


def test_what_cannot_look_up_is_refused() -> None:
    dev = CpuDevice(1)
    with pytest.raises(ValueError, match="no lookup kernel"):
        dev.set_lookup("int8:group=64", ALWAYS)
    with pytest.raises(ValueError, match="six numbers"):
        dev.set_lookup("int2:group=64", (1,))


def test_allowing_lookup_changes_the_bits_of_int4_only() -> None:
    rng = np.random.default_rng(1)
    for fmt in LOOKUPS:
        stored, x = twins.random_own_blocks(fmt, 40, 256, rng), rng.normal(size=(3, 256)).astype(np.float32)
        dev = CpuDevice(1)
        w = dev.load((40, 256), fmt, reader(stored))
        plain = np.array(dev.download(dev.linear(dev.upload(x), w)))
        np.testing.assert_array_equal(plain, twins.matmul_own(fmt, stored, x))
        dev.set_lookup(fmt, ALWAYS)
        assert np.array_equal(plain, dev.download(dev.linear(dev.upload(x), w))) == (not fmt.startswith("int4"))
        dev.set_lookup(fmt, NEVER)
        np.testing.assert_array_equal(plain, dev.download(dev.linear(dev.upload(x), w)))


def test_least_rows_from_measured_answers() -> None:
    def known(question: Question) -> str:
        assert question.cols == lookup.COLS
        wins = {1: 0, 2: 256, 4: 5000, 8: 512, 64: 64, 128: 4096}[question.columns]
        return lookup.LOOKUP if question.rows >= wins else lookup.DOT

    assert lookup.least_rows(known, "int2:group=64") == (64, 256, None, 512, 64, 4096)
    assert lookup.least_rows(lambda q: known(q) if q.columns < 64 else None, "int2:group=64") is None
    assert lookup.least_rows(lambda q: lookup.LOOKUP, "int2:group=64") == (64,) * COUNT


def test_weights_from_memory_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large tables are not made where weights do not fit the last-level cache; small ones are."""
    monkeypatch.setattr(lookup, "last_cache_bytes", lambda: 100_000)
    rng = np.random.default_rng(8)
    for fmt in ("int1:group=128", "int2:group=64", "int3:group=64"):
        stored, x = twins.random_own_blocks(fmt, 300, 2048, rng), rng.normal(size=(9, 2048)).astype(np.float32)
        dev = CpuDevice(1)
        dev.set_lookup(fmt, ALWAYS)
        weights = [dev.load((300, 2048), fmt, reader(stored)) for _ in range(2)]
        want = twins.matmul_own(fmt, stored, x)
        for n in (1, 2, 5, 9):
            np.testing.assert_array_equal(dev.download(dev.linear(dev.upload(x[:n]), weights[1])), want[:n])
    assert 1 << 20 <= last_cache_bytes() < 1 << 34


def test_every_table_has_an_answer_for_every_format() -> None:
    for isa in (*ISAS, "neon"):
        for fmt in lookup.FORMATS:
            least = lookup.usual(isa, fmt)
            assert len(least) == COUNT == len(lookup.COLUMNS)
            assert isa in lookup.USUAL or least == NEVER


def test_a_device_that_is_told_dot_products_are_faster_says_the_same() -> None:
    rng = np.random.default_rng(4)
    fmt = "int1:group=64"
    stored, x = twins.random_own_blocks(fmt, 300, 128, rng), rng.normal(size=(5, 128)).astype(np.float32)
    results = []
    for answer in (lookup.LOOKUP, lookup.DOT):
        dev = CpuDevice(2)
        dev.consult(lambda question, answer=answer: answer)
        results.append(np.array(dev.download(dev.linear(dev.upload(x), dev.load((300, 128), fmt, reader(stored))))))
    np.testing.assert_array_equal(*results)
