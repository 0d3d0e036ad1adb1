"""`edgewise bench lookup`: what it prints, and that its counts of repeated patterns are right."""

import json

import numpy as np
import pytest

pytest.importorskip("edgewise._native")

from edgewise.serve.benches import lookup

pytestmark = pytest.mark.native
SMALL = ("--shapes", "64x128", "-n", "1,3", "--stream", 0)


def test_prints_every_promised_figure(cli):
    found = json.loads(cli("bench", "lookup", *SMALL, "--widths", "int1,int4", "--groups", "32,128", "--json").out)
    rows = found["cached"]
    assert [(r["format"], r["columns"]) for r in rows] == [
        (f"{w}:group={g}", n) for w in ("int1", "int4") for g in (32, 128) for n in (1, 3)
    ]
    assert all(r["nmse"] < 5e-4 and r["ratio"] > 0 and r["chosen"] in ("dot", "lookup") for r in rows)
    assert [(r["group"], r["columns"]) for r in found["four_over_one"]] == [(32, 1), (32, 3), (128, 1), (128, 3)]
    shares = found["redundancy"]["activations"]["high planes"]
    assert shares["model"] > 2 * shares["shuffled"]  # the sign fills the high bits
    text = cli("bench", "lookup", *SMALL, "--widths", "int2", "--model", "none").out
    assert "one by one" in text
    assert "shuffled" not in text


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [("--widths", "int8", "no lookup kernel"), ("--shapes", "64x100", "multiple of 128"), ("-n", "0", "from 1 on"),
     ("--groups", "48", "32, 64, 128")],
)  # fmt: skip
def test_refusals(cli, option, value, words):
    got = cli("bench", "lookup", option, value)
    assert got.code == 2
    assert words in got.err


def test_planes_and_repeats():
    x = np.array([[1.0, -1.0, 0.0, 0.5] * 4], np.float32)  # int8: 127, -127, 0, 64 (ties to even)
    planes = lookup.activation_planes(x)
    values = (planes * (1 << np.arange(8))[:, None, None]).sum(0).astype(np.uint8).view(np.int8)
    assert values[0, :4].tolist() == [127, -127, 0, 64]
    assert lookup.repeats(np.zeros((8, 3, 17), np.uint8), 0, 7) == (7 * 3 * 2, 7 * 3 * 2)
    noise = np.random.default_rng(0).integers(0, 2, (8, 50, 64)).astype(np.uint8)
    same, total = lookup.repeats(noise, 0, 7)
    assert same / total < 0.02
    assert lookup.shuffled(planes, np.random.default_rng(1)).sum((1, 2)).tolist() == planes.sum((1, 2)).tolist()


def test_weight_repeats():
    codes = np.zeros((33, 9), np.int32)
    assert lookup.weight_repeats(codes) == (2 * 15 * 2, 2 * 16 * 2)
    codes[:16, 0] = np.arange(16) % 4
    assert lookup.weight_repeats(codes)[0] == 2 * 15 * 2 - 3
