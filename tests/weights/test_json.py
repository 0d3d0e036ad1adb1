"""Strict JSON: what Python's parser reads, we read the same; what the standard does not allow, we refuse."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.base import BadInput
from edgewise.kernels.parsing import parse_json
from edgewise.weights import open_checkpoint
from edgewise.weights.bundle import read_json

from .conftest import write_hf

pytestmark = pytest.mark.native

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**38), 10**38) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=30)


@settings(max_examples=300, deadline=None)
@given(TREES, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_what_json_writes_reads_back(tree: object, ascii: bool, indent: int | str | None) -> None:
    text = json.dumps(tree, ensure_ascii=ascii, indent=indent).encode()
    read = parse_json(text, "x")
    assert read == tree
    assert json.dumps(read) == json.dumps(tree)  # 1 and 1.0 and True differ here


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=40) | st.text('{}[]",:0123.eE+-tfnul \\"ud8cNaI', max_size=30).map(str.encode))
def test_nothing_is_read_that_python_would_not_read(text: bytes) -> None:
    try:
        read = parse_json(text, "x")
    except BadInput:
        return
    assert json.loads(text) == read


BAD = {
    "a duplicate key": b'{"a":1,"a":1}',
    "a duplicate by escape": b'{"a":1,"\\u0061":1}',
    "NaN": b"[NaN]",
    "infinity": b"[Infinity]",
    "minus infinity": b"[-Infinity]",
    "overflow": b"[1e999]",
    "a leading zero": b"[01]",
    "a plus": b"[+1]",
    "a bare point": b"[1.]",
    "a trailing comma": b"[1,]",
    "no comma": b"[1 2]",
    "no colon": b'{"a" 1}',
    "no value": b'{"a":}',
    "a bare key": b"{a:1}",
    "single quotes": b"{'a':1}",
    "a control character": b'["\n"]',
    "an unknown escape": b'["\\x"]',
    "half an escape": b'["\\u12',
    "a lone surrogate": b'["\\udc00"]',
    "a reversed pair": b'["\\udc00\\ud800"]',
    "not UTF-8": b'["\xff"]',
    "an overlong NUL": b'["\xc0\x80"]',
    "a raw surrogate": b'["\xed\xa0\x80"]',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "nothing": b"",
    "a comment": b"[] // x",
    "two values": b"1 2",
    "a NUL": b"[]\0",
    "an open list": b"[",
    "a wrong bracket": b"[}",
    "41 digits": b"1" * 41,
    "nul": b"nul",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_json_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"^x: JSON at byte \d+: .*[.?]$"):
        parse_json(BAD[name], "x")


@pytest.mark.parametrize("text", [b"[" * 64 + b"]" * 64, b'{"a":' * 64 + b"1" + b"}" * 64])
def test_depth_is_limited(text: bytes) -> None:
    parse_json(text, "x")
    with pytest.raises(BadInput, match="deeper than 64"):
        parse_json(b"[" + text + b"]", "x")
    with pytest.raises(BadInput, match="deeper than 64"):
        parse_json(b"[" * 10_000_000, "x")


def test_the_number_of_values_is_limited() -> None:
    assert len(parse_json(b"[" + b"0," * 99 + b"0]", "x", values=101)) == 100
    with pytest.raises(BadInput, match="more than 100 values"):
        parse_json(b"[" + b"0," * 99 + b"0]", "x", values=100)


def test_config_files_are_read_strictly_and_within_limits(tmp_path: Path) -> None:
    write_hf(tmp_path)
    config = tmp_path / "config.json"
    for text, sentence in {
        '{"model_type":"llama","model_type":"qwen2"}': "twice",
        '{"model_type":"llama","x":NaN}': "NaN",
        '["llama"]': "JSON object",
        '{"x":1}': "model_type",
        '{"model_type":7}': "model_type",
        '{"model_type":"llama"}' + " " * (1 << 21): "more than the limit",
        '{"model_type":"lla': "cut short",
    }.items():
        config.write_text(text)
        with pytest.raises(BadInput, match=sentence) as caught:
            open_checkpoint(tmp_path)
        assert "config.json" in str(caught.value)
    config.write_text('{"model_type": "llama", "text_config": {"a": [1]}}')
    assert open_checkpoint(tmp_path).header().config["text_config"] == {"a": [1]}
    assert read_json(config)["model_type"] == "llama"
