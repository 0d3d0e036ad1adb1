"""The same greedy tokens here and in llama.cpp, from GGUF files that edgewise wrote.

    python bench/same_tokens.py --llama LLAMA_COMPLETION [MODEL ...] [-q q4_0,q8_0,q4_k_s] [-n 48] [--json]

Converts every model (none: the embedded one) to every format, completes the prompts in both engines at temperature 0,
and compares text. llama.cpp rounds activations in other places, so a near-tie may fall the other way: where the texts
part, it prints after how many tokens, and how far our logits of the two choices were apart there.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgewise import LLM, SamplingParams
from edgewise.convert.converting import convert
from edgewise.embedded import embedded_model

# llama-completion cuts a newline off a prompt's end, and the last tokens off the text: so none ends in one, and it is
# asked for MORE tokens than are compared.
PROMPTS = ("import os", "def add(a, b):", "class Stack:\n    def __init__(self", "Once upon a time", "The")
MORE = 32
TIMEOUT_S = 120


@dataclass(frozen=True)
class Outcome:
    """same: of `tokens`, how many came before the texts parted. gap: our logit of our choice less that of theirs."""

    model: str
    quant: str
    prompt: str
    tokens: int
    same: int
    gap: float | None = None


def theirs(binary: Path, model: Path, prompt: str, tokens: int) -> str:
    """What llama.cpp completes, without the prompt."""
    command = [
        str(binary), "-m", str(model), "-p", prompt, "-n", str(tokens), "--temp", "0", "-no-cnv", "--no-display-prompt",
        "--simple-io", "--no-warmup", "-t", "1",
    ]  # fmt: skip
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=TIMEOUT_S)
    if done.returncode:
        raise SystemExit(f"{binary} failed: {done.stderr.decode(errors='replace')[-500:]}")
    return done.stdout.decode(errors="replace").removesuffix("\n")


def compare(binary: Path, model: Path, label: tuple[str, str], prompts: Sequence[str], tokens: int) -> list[Outcome]:
    found = []
    with LLM(model, threads=1) as llm:
        for prompt in prompts:
            params = SamplingParams(temperature=0, max_tokens=tokens)
            ours = llm.generate(prompt, params)[0].outputs[0]
            ids = list(ours.token_ids)
            if llm.tokenizer.eos and ids and ids[-1] in llm.tokenizer.eos:
                ids.pop()
            text = theirs(binary, model, prompt, tokens + MORE)
            same = next((i for i in range(len(ids)) if not reads(llm, prompt, ids[: i + 1], text)), len(ids))
            gap = None if same == len(ids) else _gap(llm, prompt, ids, same, text)
            found.append(Outcome(*label, prompt, len(ids), same, gap))
    return found


def reads(llm: LLM, prompt: str, ids: Sequence[int], text: str) -> bool:
    """Whether a text begins with these tokens. A character that is not finished yet may still become anything."""
    return text.startswith(after(llm, prompt, ids).rstrip("\ufffd"))


def after(llm: LLM, prompt: str, ids: Sequence[int]) -> str:
    """Text of tokens as it reads behind the prompt."""
    start = llm.tokenize(prompt)
    return llm.detokenize([*start, *ids])[len(llm.detokenize(start)) :]


def _gap(llm: LLM, prompt: str, ids: Sequence[int], same: int, text: str) -> float | None:
    """How much less likely than ours their token was to us; None when it is not among our ten likeliest."""
    bos = [llm.tokenizer.bos] if llm.tokenizer.add_bos else []
    logits = np.asarray(llm.logits([*bos, *llm.tokenize(prompt), *ids[:same]]))[-1]
    for token in np.argsort(-logits, kind="stable")[1:11].tolist():
        if reads(llm, prompt, [*ids[:same], token], text):
            return float(logits[ids[same]] - logits[token])
    return None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--llama", type=Path, required=True, help="llama.cpp's llama-completion")
    parser.add_argument("-q", "--quants", default="q4_0,q8_0,q4_k_s")
    parser.add_argument("-n", "--tokens", type=int, default=48)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    found: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models or [embedded_model()]:
            for quant in options.quants.split(","):
                file = Path(folder, f"{quant}.gguf")
                convert(model, file, quant=quant, force=True)
                found += compare(options.llama, file, (model.name, quant), PROMPTS, options.tokens)
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=1))
        return 0
    for one in found:
        parted = "" if one.same == one.tokens else \
            f", then our logits were {'more than ten tokens' if one.gap is None else f'{one.gap:.4f}'} apart"
        print(f"{one.model} {one.quant:<8} {one.prompt[:24]!r:<28} {one.same} of {one.tokens} tokens equal{parted}")
    print(f"{sum(o.same == o.tokens for o in found)} of {len(found)} completions equal, "
          f"{sum(o.same for o in found)} of {sum(o.tokens for o in found)} tokens before any parting")
    return 0


if __name__ == "__main__":
    sys.exit(main())
