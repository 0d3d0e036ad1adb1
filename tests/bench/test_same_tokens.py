"""GGUF files written here say the same in llama.cpp, if LLAMA_COMPLETION names its binary of that name."""

import os
import stat
from pathlib import Path

import pytest

pytest.importorskip("edgewise._native", reason="needs the compiled extension")

import same_tokens
from edgewise import LLM, SamplingParams
from edgewise.embedded import embedded_model
from edgewise.testing.tiny import tiny_model

pytestmark = pytest.mark.native
VARIABLE = "LLAMA_COMPLETION"  # not EDGEWISE_…: tests run without those
NEAR_TIE = 0.25  # logits; llama.cpp rounds the inputs of K formats over 256 columns where we do over 32


def binary(folder: Path, text: str) -> Path:
    """A llama-completion that says `text`."""
    (folder / "said").write_text(text + "\n")
    script = folder / "llama"
    script.write_text(f"#!/bin/sh\nexec cat {folder / 'said'}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def test_equal_texts_and_where_others_part(tmp_path):
    model = tiny_model("llama", tmp_path / "m")
    with LLM(model, threads=1) as llm:
        ids = llm.generate("ab", SamplingParams(temperature=0, max_tokens=8))[0].outputs[0].token_ids
        said = same_tokens.after(llm, "ab", ids)
        start = same_tokens.after(llm, "ab", ids[:3])
    [same] = same_tokens.compare(binary(tmp_path, said + "more"), model, ("m", "f32"), ["ab"], 8)
    assert (same.same, same.tokens, same.gap) == (8, 8, None)
    [other] = same_tokens.compare(binary(tmp_path, start + "\x00"), model, ("m", "f32"), ["ab"], 8)
    assert other.same == 3
    assert other.gap is None or other.gap > 0


@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} names no llama-completion of llama.cpp")
@pytest.mark.parametrize("quant", ["q4_0", "q8_0", "q4_k_s"])
def test_llama_cpp_says_the_same(quant, tmp_path):
    from edgewise.convert.converting import convert

    convert(embedded_model(), tmp_path / "m.gguf", quant=quant)
    label, prompts = ("embedded", quant), same_tokens.PROMPTS[:3]
    found = same_tokens.compare(Path(os.environ[VARIABLE]), tmp_path / "m.gguf", label, prompts, 40)
    for one in found:
        assert one.same == one.tokens or (one.gap is not None and one.gap < NEAR_TIE), one
    assert any(one.same == one.tokens for one in found)
