"""`edgewise train predictor MODEL`: for each layer a small network that says which neurons of a relu model will fire.

edgewise train predictor FOLDER                 # FOLDER/predictor.safetensors, found by `run --neurons predictor`
edgewise train predictor FOLDER --recall 0.99   # reads more, misses less

The engine itself runs a text; what enters each feed-forward part and who fires there is what torch learns from: two
matrices of low rank, a loss that weighs both answers alike (LLM in a flash, arXiv 2312.11514, section 3.1), and a
threshold that reaches the asked recall on text that was not learnt from. Nothing of torch is needed to use the result.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.assemble import Assembly, assemble
from edgewise.base import BadInput, Unsupported
from edgewise.convert.texts import library_text
from edgewise.models.layers import DenseFfn
from edgewise.models.neurons.predictor import FILE

TEST_SHARE = 8  # one token in so many is for the threshold, one for the figures
STEP, CHUNK = 512, 128  # tokens of a sequence, of a pass
BATCH, LEARNING_RATE = 512, 1e-2

Floats = npt.NDArray[np.float32]
Fires = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """What one layer's feed-forward part met: inputs (tokens, dim), normalised, and who fired (tokens, neurons)."""

    inputs: Floats
    fires: Fires


@dataclass(frozen=True)
class Heads:
    """score = outer @ (inner @ x) + bias; a neuron is expected to fire when its score is above 0."""

    inner: Floats  # (rank, dim)
    outer: Floats  # (neurons, rank)
    bias: Floats  # (neurons,)

    def expects(self, inputs: Floats) -> Fires:
        found: Fires = inputs @ self.inner.T @ self.outer.T + self.bias > 0
        return found


def watch(parts: Assembly, ids: Sequence[int]) -> list[Seen]:
    """Runs a text and notes what happens in every feed-forward part. Raises Unsupported where a gate is no relu."""
    layers = parts.model.layers  # type: ignore[attr-defined]  # every Decoder has them
    watched = [_Watched(layer.ffn, number) for number, layer in enumerate(layers)]
    try:
        for layer, ffn in zip(layers, watched, strict=True):
            layer.ffn = ffn
        step = min(parts.context, STEP)
        for begin in range(0, len(ids), step):
            for _ in parts.runner.score(list(ids[begin : begin + step]), CHUNK):
                pass
    finally:
        for layer, ffn in zip(layers, watched, strict=True):
            layer.ffn = ffn.inner
    return [Seen(np.concatenate(ffn.inputs), np.concatenate(ffn.fires)) for ffn in watched]


class _Watched:
    """A feed-forward part that notes what it meets."""

    def __init__(self, inner: Any, layer: int) -> None:
        if not isinstance(inner, DenseFfn) or inner.act != "relu" or inner.rows is not None:
            raise Unsupported(f"Layer {layer} has no dense relu gate in memory, so there is nothing to predict.")
        self.inner = inner
        self.inputs: list[Floats] = []
        self.fires: list[Fires] = []

    def run(self, device: Any, x: Any, norm: Any, batch: Any, add: Any = None) -> Any:
        y = x if norm is None else device.rms_norm(x, norm, self.inner.eps)
        gates = device.linear(y, self.inner.gate.weight, self.inner.gate.bias)
        self.inputs.append(np.array(device.download(y), np.float32))
        self.fires.append(np.array(device.download(gates)) > 0)
        return self.inner.run(device, x, norm, batch, add)


def fit(seen: Seen, *, rank: int, steps: int, seed: int = 0) -> Heads:
    """Learns two matrices; both answers weigh alike, however rare the one is."""
    import torch

    torch.manual_seed(seed)
    inputs, fires = torch.from_numpy(seen.inputs), torch.from_numpy(seen.fires)
    dim, count = inputs.shape[1], fires.shape[1]
    scale = float(inputs.square().mean().sqrt()) or 1.0
    inner = torch.nn.Parameter(torch.randn(rank, dim) / (dim**0.5 * scale))
    outer = torch.nn.Parameter(torch.randn(count, rank) * 0.1)
    share = fires.float().mean(0).clamp(1e-3, 1 - 1e-3)
    bias = torch.nn.Parameter(torch.zeros(count))
    weight = (1 - share) / share
    rule = torch.optim.Adam([inner, outer, bias], lr=LEARNING_RATE)
    order = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in rule.param_groups:
            group["lr"] = LEARNING_RATE * (1 - step / steps)
        some = torch.randint(len(inputs), (min(BATCH, len(inputs)),), generator=order)
        scores = inputs[some] @ inner.T @ outer.T + bias
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, fires[some].float(), pos_weight=weight)
        rule.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        rule.step()
    return Heads(*(np.array(one.detach().numpy(), np.float32) for one in (inner, outer, bias)))


def placed(heads: Heads, seen: Seen, recall: float) -> Heads:
    """The same heads with the threshold that finds this share of the neurons that fired here."""
    scores = seen.inputs @ heads.inner.T @ heads.outer.T + heads.bias
    fired = scores[seen.fires]
    shift = np.float32(np.quantile(fired, 1 - recall)) if fired.size else np.float32(0)
    return Heads(heads.inner, heads.outer, heads.bias - shift + np.float32(1e-6))


def judged(heads: Heads, seen: Seen) -> dict[str, float]:
    """recall, precision, and the shares of neurons that fired and that were expected to."""
    expected = heads.expects(seen.inputs)
    both = float((expected & seen.fires).sum())
    return {
        "recall": both / max(1.0, float(seen.fires.sum())), "precision": both / max(1.0, float(expected.sum())),
        "fire": float(seen.fires.mean()), "expected": float(expected.mean()),
    }  # fmt: skip


def train_predictor(
    model: Path, *, rank: int = 0, tokens: int = 16384, steps: int = 600, recall: float = 0.95, text: str | None = None,
    threads: int | None = None,
) -> list[dict[str, float]]:  # fmt: skip
    """Writes predictor.safetensors into the model's folder, whole or not at all; what each layer's heads are worth.

    rank: 0 is half of the width, at most 128. The last eighths of the tokens are not learnt from."""
    from safetensors.numpy import save_file

    if not model.is_dir():
        raise BadInput(f"{model} is no folder: the predictor is found beside a model's files. Convert it to a folder.")
    if not 0.5 <= recall < 1:
        raise BadInput(f"--recall must be between 0.5 and 1 but is {recall}.")
    parts = assemble(model, threads=threads, max_num_seqs=1)
    words = library_text(held_out=False, chars=8 * tokens) if text is None else text
    if parts.tokenizer is None:
        raise BadInput(f"{model} has no tokenizer, so no text can be run.")
    ids = parts.tokenizer.encode(words)[:tokens]
    if len(ids) < 8 * TEST_SHARE:
        raise BadInput(f"The text has only {len(ids)} tokens; some thousands are needed.")
    part = len(ids) // TEST_SHARE
    made: dict[str, Floats] = {}
    table = []
    for layer, seen in enumerate(watch(parts, ids)):
        learn, place, test = (
            Seen(seen.inputs[rows], seen.fires[rows])
            for rows in (slice(None, -2 * part), slice(-2 * part, -part), slice(-part, None))
        )
        heads = fit(learn, rank=rank or min(128, seen.inputs.shape[1] // 2), steps=steps)
        heads = placed(heads, place, recall)
        table.append({"layer": layer, **judged(heads, test)})
        for name, values in (("in", heads.inner), ("out", heads.outer), ("bias", heads.bias)):
            made[f"layers.{layer}.{name}"] = np.ascontiguousarray(values, np.float32)
    half = model / f".{FILE}.part"
    save_file(made, half)
    os.replace(half, model / FILE)
    return table


def main(argv: Sequence[str]) -> None:
    it = argparse.ArgumentParser(
        "edgewise train predictor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("model", type=Path, help="a Hugging Face folder of a dense model with a relu gate")
    it.add_argument("--rank", type=int, default=0, help="of the two matrices (default: half of the width, at most 128)")
    it.add_argument("--recall", type=float, default=0.95, help="share of the firing neurons that must be found")
    it.add_argument("--tokens", type=int, default=16384, help="of text to learn from and to test on")
    it.add_argument("--steps", type=int, default=600, help="of learning, for each layer")
    it.add_argument("--text", type=Path, help="a UTF-8 text (default: this interpreter's standard library)")
    it.add_argument("--smoke", action="store_true", help="a few steps on a few tokens: whether it works at all")
    args = it.parse_args(argv)
    if args.smoke:
        args.tokens, args.steps = 512, 20
    text = None if args.text is None else args.text.read_text(encoding="utf-8")
    rows = train_predictor(
        args.model, rank=args.rank, tokens=args.tokens, steps=args.steps, recall=args.recall, text=text
    )  # fmt: skip
    print("layer  recall  precision  fire  expected   (on text not learnt from)")
    for row in rows:
        shares = f"{row['recall']:6.1%}  {row['precision']:9.1%}  {row['fire']:4.1%}  {row['expected']:8.1%}"
        print(f"{row['layer']:5.0f}  {shares}")
    print(f"{args.model / FILE}: use it with --neurons predictor, after convert --layout neurons", file=sys.stderr)
