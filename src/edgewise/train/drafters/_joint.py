"""A model and what drafts for it, learning together: the drafts' loss pulls at the model, its old self holds it.

Of each step one half is what the model wrote itself, where drafts learn, and one half ordinary text, which is what
perplexity is measured on. On both the model is held to the distribution that it had before (cross entropy against
it). The model's rate is a share of the drafts' own (the authors of Medusa-2 take a quarter), and the drafts' part of
the loss grows from nothing to its share over the first steps, so that what is new to the other pulls at nobody.
Paper: Cai et al. 2024, https://arxiv.org/abs/2401.10774, section 2.2.2; appendix B.1
"""

import argparse
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgewise.assemble import Assembly
from edgewise.convert.converting import convert
from edgewise.decode.choices import expected, searched
from edgewise.train import dataset
from edgewise.train.drafters._own_text import HELD_OUT, LENGTH, OwnText, beginnings
from edgewise.train.export import folder_of
from edgewise.train.hf import load_tensors, save_tensors
from edgewise.train.loop import fit
from edgewise.train.model import Transformer
from edgewise.train.recipe import OWN, TrainPlan

WINDOW, WINDOWS, JUDGED = 512, 4096, 256  # of ordinary text: tokens of a window, windows to learn from, held-out ones
WATCHED = 24  # of the held-out ones, at every look
EVERY = 2  # one of so many tokens is asked what the old model said
MODEL_RATE, RATE = 0.2, 1e-3  # the model's rate beside the drafts' own
NODES = 12  # of the tree that the log speaks of
GROWS = 0.1  # of the steps, until the drafts' loss has its share

See = Callable[[Tensor, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Ordinary:
    """tokens (windows, length) that nobody wrote for this; those from `split` on are held out."""

    tokens: npt.NDArray[np.int32]
    split: int


class Joint(nn.Module):
    """A model and what drafts for it."""

    def __init__(self, base: Transformer, drafts: nn.Module) -> None:
        super().__init__()
        self.base, self.drafts = base, drafts


def add_joint_options(it: argparse.ArgumentParser, share: float) -> None:
    it.add_argument("--joint", type=Path, help="the model learns too: a GGUF file to write, its drafts beside it")
    it.add_argument("--share", type=float, default=share, help=f"of the drafts' loss with --joint (default: {share})")
    rate = f"with --joint, the model's beside the drafts' (default: {MODEL_RATE})"
    it.add_argument("--model-rate", type=float, default=MODEL_RATE, help=rate)


def ordinary(parts: Assembly, args: argparse.Namespace) -> Ordinary:
    """Of the prepared arrays (--data) with their held-out part; else of the text that beginnings are taken from."""
    size = min(WINDOW if not args.smoke else 40, parts.context)
    many, judged = (WINDOWS, JUDGED) if not args.smoke else (8, 2)
    if args.data is None:
        found = np.array(beginnings(parts, args, many, size), np.int32)
        return Ordinary(found, many - max(1, int(many * HELD_OUT)))
    data, numbers = dataset.load(args.data), np.random.default_rng(22)
    texts = [text.tokens for name, text in data.texts.items() if name != OWN and text.said is None]
    windows = []
    for _ in range(many):
        tokens = texts[int(numbers.integers(len(texts)))]
        begin = int(numbers.integers(len(tokens) - size))
        windows.append(tokens[begin : begin + size])
    held = data.held_out[: len(data.held_out) // size * size].reshape(-1, size)
    held = held[np.linspace(0, len(held) - 1, min(judged, len(held))).astype(int)]
    return Ordinary(np.concatenate((np.stack(windows), held)).astype(np.int32), many)


def joint_settings(args: argparse.Namespace, plan: TrainPlan, device: str) -> dict[str, Any]:
    """Of `learn_together`: what a joint training takes of a first stage's arguments, and what it takes another way."""
    tokens, looks = (16 * LENGTH, 50) if not args.smoke else (80, plan.steps)
    mine = replace(plan, lr=min(args.lr, RATE), batch_tokens=tokens, warmup_steps=20, eval_every=looks)
    return {
        "plan": mine, "share": args.share, "model_rate": args.model_rate, "device": device, "minutes": args.minutes,
        "bf16": args.bf16 or device == "cuda", "resume": args.resume,
    }  # fmt: skip


def promised(accuracy: Tensor) -> float:
    """Tokens of a pass with a searched tree of NODES nodes, if guesses were right or wrong independently."""
    found = accuracy.cpu().numpy()
    return 1 + expected(searched(found, NODES), found)


@torch.no_grad()
def perplexity(model: Transformer, ids: Tensor) -> float:
    """Of each token after the first of windows (windows, length)."""
    costs = [float(model.loss(some[:, :-1], some[:, 1:], "sum")) for some in ids.split(8)]
    return math.exp(sum(costs) / ids[:, 1:].numel())


def learn_together(
    joint: Joint,
    old: Transformer,
    see: See,
    good: Callable[[], float],
    text: OwnText,
    plain: Ordinary,
    out: Path,
    *,
    plan: TrainPlan,
    share: float,
    model_rate: float,
    device: str,
    minutes: float | None,
    bf16: bool,
    resume: bool,
    quiet: bool = False,
) -> tuple[float, float]:
    """Leaves the best weights in `joint`. Returns perplexity before and after, of held-out ordinary text.

    see: of own text (rows, length) and a step's number the last hidden states (rows, length, dim) and the drafts' loss.
    good: tokens a pass that the drafts promise on held-out text, for the log."""
    tokens = torch.from_numpy(text.tokens).long().to(device)
    around = torch.from_numpy(plain.tokens).long().to(device)
    rows, windows = (max(1, plan.batch_tokens // 2 // one.shape[1]) for one in (tokens, around))
    grows = max(1.0, GROWS * plan.steps)
    judged = around[plain.split :]
    watched = judged[:: max(1, len(judged) // WATCHED)]
    before = perplexity(old, watched)
    step = 0

    def batches(now: int) -> tuple[Tensor, Tensor]:
        nonlocal step
        step = now
        numbers = torch.Generator().manual_seed(plan.seed + now)
        some = torch.randint(text.split, (rows,), generator=numbers)
        return tokens[some.to(device)], around[torch.randint(plain.split, (windows,), generator=numbers).to(device)]

    def kept(states: Tensor, ids: Tensor, first: int) -> Tensor:
        with torch.no_grad():
            said = old.head(old.states(ids)[0][:, first::EVERY]).float().softmax(-1)
        return -(said * joint.base.head(states[:, first::EVERY]).float().log_softmax(-1)).sum(-1).mean()

    def both(ids: Tensor, windows: Tensor, now: int, weight: float) -> Tensor:
        states, drafted = see(ids, now)
        held = kept(states, ids, now % EVERY) + kept(joint.base.states(windows)[0], windows, now % EVERY)
        return held / 2 + weight * drafted

    def objective(ids: Tensor, windows: Tensor) -> Tensor:
        return both(ids, windows, step, share * min(1.0, (step + 1) / grows))

    @torch.no_grad()
    def held_out(now: int) -> float:
        return float(both(tokens[text.split : text.split + 16], watched[:8], 0, share))

    def watch() -> dict[str, float]:
        return {"perplexity": perplexity(joint.base, watched) / before, "tokens_per_pass": good()}

    best: dict[str, Tensor] = {}
    fit(
        joint, plan, out, batches=batches, objective=objective, held_out=held_out, watch=watch, save=best.update,
        device=device, minutes=minutes, resume=resume, bf16=bf16, quiet=quiet,
        rates=lambda name: model_rate if name.startswith("base.") else 1.0,
        identity={"plan": vars(plan), "texts": len(tokens), "share": share, "model_rate": model_rate},
    )  # fmt: skip
    joint.load_state_dict(best)
    return perplexity(old, judged), perplexity(joint.base, judged)


def write_model(base: Transformer, model: Path, to: Path) -> None:
    """`to`: a GGUF file as `model` is, a folder or a file, with these weights."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with folder_of(model) as folder, tempfile.TemporaryDirectory() as temporary:
        changed = Path(temporary) / "model"
        shutil.copytree(folder, changed)
        weights = dict(base.state_dict())
        if "lm_head.weight" in load_tensors(folder):
            weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        save_tensors(weights, changed, torch.float32)
        convert(changed, to, quant="q8_0", pure=True, force=True)
