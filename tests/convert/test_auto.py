"""`--quant auto` takes the smallest recipe it measured to be good enough, or refuses; the same every time."""

import json

import numpy as np
import pytest

from edgewise.base import BadInput, Incompatible, Unsupported
from edgewise.convert import auto
from edgewise.convert.choosing import convert_auto, ladder_of, texts
from edgewise.convert.passes import score
from edgewise.convert.widths import Part, joined, parts_of, path
from edgewise.serve.cli import main
from edgewise.testing.tiny import tiny_model
from edgewise.text import load_tokenizer
from edgewise.weights import open_checkpoint

pytestmark = pytest.mark.native
SHAPE = {
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "vocab_size": 300,
}  # fmt: skip
LEARN = "a text to learn from, over and over again. " * 20
HELD = "quite another text, which nobody has seen before: 0 1 2 3 4 5 6 7 8 9! " * 3


def run(model, out, max_loss, **more):
    more = {"ladder": ladder_of("auto"), "quantiser": "rtn", "calibrate": LEARN, "held_out": HELD, **more}
    return convert_auto(model, out, max_loss=max_loss, **more)


def test_steps_go_where_a_byte_saves_most():
    small = Part("small", [10, 20, 40], [4.0, 1.0, 0.25], 2.0, 0)
    large = Part("large", [100, 200, 400], [4.0, 1.0, 0.25], 8.0, 0)
    cheap = Part("cheap", [10, 20, 40], [4.0, 1.0, 0.25], -1.0, 0)  # noise said that fewer bits are better
    recipes = path([small, large, cheap])
    assert recipes[0] == (0, 0, 0)
    assert recipes[-1] == (2, 2, 2)
    assert recipes[1:5] == [(1, 0, 0), (1, 1, 0), (2, 1, 0), (2, 2, 0)]
    parts = (small, large, cheap)
    sizes = [sum(p.nbytes[i] for p, i in zip(parts, r, strict=True)) for r in recipes]
    assert sizes == sorted(sizes)


def test_a_step_that_the_next_one_beats_is_left_out():
    dent = Part("dent", [10, 20, 30], [4.0, 3.9, 0.0], 1.0, 0)
    assert path([dent]) == [(0,), (2,)]
    no_better = Part("same", [10, 20], [1.0, 1.0], 1.0, 0)
    assert path([no_better]) == [(0,)]


def test_parts_are_coarser_in_deep_models():
    names = [f"blk.{i}.{kind}.weight" for i in range(30) for kind in ("attn_q", "attn_v", "ffn_up", "ffn_down")]
    shallow = parts_of([*names[:8], "token_embd.weight"], 2)
    assert list(shallow) == [
        *(f"layer {i} {kind}" for i in range(2) for kind in ("q k", "v o", "gate up", "down")), "token_embd",
    ]  # fmt: skip
    assert list(parts_of(names[:8], 20)) == [f"layer {i} {k}" for i in range(2) for k in ("attention", "feed-forward")]
    assert len(parts_of(names, 30)) == 30


def test_the_smallest_good_recipe_is_taken(tmp_path):
    model, out = tiny_model("llama", tmp_path / "m", **SHAPE), tmp_path / "a.gguf"
    _, rows, _ = run(model, tmp_path / "all.gguf", 9.0)
    worst = rows[0]
    assert len(rows) == 1  # the fewest bits were good enough, so nothing else was measured
    written, rows, taken = run(model, out, abs(worst.loss) / 2 if worst.loss > 0 else worst.loss * 2)
    assert taken.loss <= worst.loss / 2
    assert taken.nbytes == min(row.nbytes for row in rows if row.loss <= worst.loss / 2)
    checkpoint = open_checkpoint(out)
    tokenizer = load_tokenizer(checkpoint.header())
    tokens = tokenizer.encode(HELD)
    assert score(checkpoint, tokens, tokenizer.bos, 512).perplexity == taken.perplexity
    assert sum(checkpoint.info(name).extent.nbytes for name in checkpoint.names()) == taken.nbytes
    assert written.nbytes == out.stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gguf", "all.gguf", "m"]


def test_mixed_recipes_are_found_and_the_search_repeats_itself(tmp_path):
    model = tiny_model("llama", tmp_path / "m", **SHAPE)
    ladder, found = ladder_of("auto:q4_0,q8_0"), []
    loss = run(model, tmp_path / "l.gguf", 9.0, ladder=ladder)[1][0].loss
    for quantiser in ("rtn", "rtn", "gptq"):
        out = tmp_path / f"{len(found)}.gguf"
        found.append((run(model, out, 0.4 * loss, ladder=ladder, quantiser=quantiser)[1:], out.read_bytes()))
    assert found[0] == found[1]
    assert found[0][1] != found[2][1]
    rows, taken = found[0][0]
    assert rows[0].nbytes < taken.nbytes < rows[1].nbytes


@pytest.mark.parametrize("kind", ["llama", "phi3"])
def test_a_folder_takes_our_own_formats(tmp_path, kind):
    """A recipe of few bits, measured in GGUF's layout, says the same as a folder; phi3 has fused matrices there."""
    out = tmp_path / "own"
    ladder = ladder_of("auto:int8:group=32,int4:group=32", "safetensors")
    assert list(ladder) == ["int4:group=32", "int8:group=32"]
    for seed in range(5):  # some random weights do better with fewer bits
        model = tiny_model(kind, tmp_path / "m", seed, **SHAPE)
        rows = run(model, tmp_path / "l", 9.0, ladder=ladder, force=True)[1]
        if rows[0].loss > 0:
            break
    written, rows, taken = run(model, out, 0.4 * rows[0].loss, ladder=ladder)
    assert rows[0].nbytes < taken.nbytes < rows[1].nbytes
    assert {"int4:group=32", "int8:group=32"} <= set(written.formats)
    checkpoint = open_checkpoint(out)
    assert checkpoint.header().dialect == "hf"
    tokenizer = load_tokenizer(checkpoint.header())
    assert score(checkpoint, tokenizer.encode(HELD), tokenizer.bos, 512).perplexity == taken.perplexity
    assert sum(checkpoint.info(name).extent.nbytes for name in checkpoint.names()) == taken.nbytes
    assert sorted(p.name for p in tmp_path.iterdir()) == ["l", "m", "own"]


def test_a_gguf_file_becomes_a_folder_of_few_bits(tmp_path):
    run(tiny_model("llama", tmp_path / "m", **SHAPE), tmp_path / "a.gguf", 9.0, ladder=ladder_of("auto:q8_0"))
    ladder = ladder_of("auto:int4:group=32", "safetensors")
    written, _, taken = run(tmp_path / "a.gguf", tmp_path / "own", 9.0, ladder=ladder)
    checkpoint = open_checkpoint(tmp_path / "own")
    tokenizer = load_tokenizer(checkpoint.header())
    assert score(checkpoint, tokenizer.encode(HELD), tokenizer.bos, 512).perplexity == taken.perplexity
    assert written.nbytes == taken.nbytes


def test_a_killed_search_goes_on_from_what_it_measured(tmp_path, monkeypatch):
    model, out = tiny_model("llama", tmp_path / "m", **SHAPE), tmp_path / "a.gguf"
    ladder = ladder_of("auto:q4_0,q8_0")
    loss = run(model, tmp_path / "l.gguf", 9.0, ladder=ladder)[1][0].loss
    plain = auto.Search._measure
    with monkeypatch.context() as patch:
        patch.setattr(auto.Search, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(model, out, 0.4 * loss, ladder=ladder)
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / ".a.gguf.parts").iterdir()}
    scored = []
    monkeypatch.setattr(auto.Search, "_measure", lambda self, *given: scored.append(given) or plain(self, *given))
    monkeypatch.setattr("edgewise.convert.choosing.score", lambda *_: pytest.fail("this was measured before"))
    monkeypatch.setattr("edgewise.convert.parts.Parts.keep", lambda *_: pytest.fail("this was made before"))
    run(model, out, 0.4 * loss, ladder=ladder)
    assert made
    assert scored
    assert out.exists()


def test_what_no_recipe_reaches_is_refused(tmp_path):
    model, out = tiny_model("llama", tmp_path / "m", **SHAPE), tmp_path / "a.gguf"
    loss = run(model, tmp_path / "l.gguf", 9.0, ladder=ladder_of("auto:q4_0"))[1][0].loss
    if loss > 0:
        with pytest.raises(BadInput, match="the best, q4_0, costs"):
            run(model, out, loss / 2, ladder=ladder_of("auto:q4_0"))
        assert not out.exists()
        assert not (tmp_path / ".a.gguf.parts").exists()
    with pytest.raises(Incompatible, match="scales matrices together"):
        run(model, out, 0.01, quantiser="awq")
    with pytest.raises(BadInput, match="at least 64"):
        run(model, out, 0.01, held_out="short")
    with pytest.raises(BadInput, match="part of the calibration text"):
        run(model, out, 0.01, held_out=LEARN[:80])


def test_the_held_out_text_is_never_learnt_from():
    whole = "".join(f"line {i}\n" for i in range(1000))
    learnt, measured = texts(whole, None)
    assert learnt + measured == whole
    assert learnt.endswith("\n")
    assert 0.2 < len(measured) / len(whole) < 0.3
    assert texts(LEARN, HELD) == (LEARN, HELD)
    learnt, measured = texts(None, None)
    assert len(learnt) > 1000 < len(measured)
    assert not {line for line in learnt.split("\n\n") if len(line) > 200} & set(measured.split("\n\n"))
    assert texts(None, HELD)[1] == HELD


def test_ladders():
    assert ladder_of("q4_0") is None
    assert list(ladder_of("AUTO:q8_0,q2_k, q4_k")) == ["q2_k", "q4_k", "q8_0"]
    with pytest.raises(BadInput, match="twice"):
        ladder_of("auto:q4_k,q4_k_s")
    with pytest.raises(Unsupported, match="GGUF has no int2"):
        ladder_of("auto:int2,q4_k")
    with pytest.raises(Unsupported, match="cannot hold q4_k"):
        ladder_of("auto:int2,q4_k", "safetensors")
    assert next(iter(ladder_of("auto", "safetensors") or ())) == "int2:group=64"


def test_names_that_belong_together_are_one_part():
    parts = {"a": ["a1", "a2"], "b": ["b1"], "c": ["c1"]}
    assert joined(parts, [{"a2", "b1"}, {"c1"}]) == {"a": ["a1", "a2", "b1"], "c": ["c1"]}


def test_the_command_prints_the_table(tmp_path, capsys):
    model = tiny_model("llama", tmp_path / "m", **SHAPE)
    (tmp_path / "held.txt").write_text(HELD)
    (tmp_path / "learn.txt").write_text(LEARN)
    arguments = ["convert", str(model), "-q", "auto", "--quantiser", "rtn", "--calibrate", str(tmp_path / "learn.txt"),
                 "--held-out", str(tmp_path / "held.txt")]  # fmt: skip
    assert main([*arguments, "-o", str(tmp_path / "a.gguf"), "--max-loss", "900%"]) == 0
    head, first = capsys.readouterr().out.splitlines()[:2]
    assert head.split() == ["recipe", "bits/weight", "bytes", "perplexity", "loss"]
    assert first.endswith("taken")
    assert main([*arguments, "-o", str(tmp_path / "b.gguf"), "--max-loss", "9", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["taken"] == facts["recipes"][0]["recipe"] == "q4_k_s"
    assert np.isfinite(facts["recipes"][0]["loss"])
    for more, words in (
        (["--max-loss", "much"], "1%"), (["--pure"], "--pure"), (["-q", "q4_0", "--max-loss", "1%"], "--quant auto"),
    ):  # fmt: skip
        assert main([*arguments, "-o", str(tmp_path / "c.gguf"), *more]) == 2
        assert words in capsys.readouterr().err
