"""`edgewise train medusa MODEL`: heads that guess the tokens after the next one, on a model that stays as it is.

edgewise train medusa                       # heads for the embedded model, on what it writes itself
edgewise train medusa MODEL --text FOLDER   # texts begin like this folder's files
edgewise train medusa MODEL --smoke         # the whole way in seconds
edgewise train medusa MODEL --joint FILE    # Medusa-2: the model learns too; FILE.gguf is the changed model

Medusa-1: only the heads are trained. The loss is the sum over heads of 0.8^k times the cross entropy of the token k + 1
places after the next one. How often each head's ten best tokens are right on held-out text is kept in the file; trees
are searched with it. Saved beside the model, where `--speculator medusa` finds them.
Medusa-2 (--joint, dense members of the family): from the heads of the first stage on, model and heads learn together;
the model is held to what it said before (cross entropy against its own old distribution), so that it stays what it was.
It is another model then: its perplexity is printed beside the old one's; drafting is lossless for the new one.
Paper: Cai et al. 2024, https://arxiv.org/abs/2401.10774
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewise.decode.drafting_weights import beside, read_tensors, write_tensors
from edgewise.train.drafters._joint import (
    WATCHED,
    Joint,
    Ordinary,
    add_joint_options,
    joint_settings,
    learn_together,
    ordinary,
    promised,
    write_model,
)
from edgewise.train.drafters._own_text import (
    OwnText,
    add_text_options,
    add_training_options,
    device_of,
    opened,
    projection_of,
    states_of,
    write,
)  # fmt: skip
from edgewise.train.export import load_model
from edgewise.train.loop import fit
from edgewise.train.recipe import TrainPlan

FADE = 0.8  # of a head's loss, for every place farther
RANKS = 10
USUAL = 768
SHARE = 0.2  # of the heads' loss when the model learns too


class Heads(nn.Module):
    """x + silu(W_k x + b_k), k-th head; `project` makes logits of it. They begin as the identity."""

    def __init__(self, heads: int, projection: Tensor) -> None:
        super().__init__()
        self.vocab, dim = projection.shape
        for k in range(heads):
            linear = nn.Linear(dim, dim)
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
            self.add_module(f"{k}", nn.ModuleList([nn.ModuleDict({"linear": linear})]))
        self.count = heads
        self.register_buffer("projection", projection, persistent=False)

    def linear(self, k: int) -> nn.Linear:
        found: nn.Linear = self.get_submodule(f"{k}.0.linear")  # type: ignore[assignment]
        return found

    def forward(
        self, states: Tensor, some: Tensor | None = None, projection: Tensor | None = None
    ) -> list[Tensor]:
        """Logits (…, vocab) of every head, or of some tokens only. projection: instead of the one it began with."""
        said = [states + functional.silu(self.linear(k)(states)) for k in range(self.count)]
        whole: Tensor = self.projection if projection is None else projection  # type: ignore[assignment]
        projection = whole if some is None else whole[some]
        return [functional.linear(one, projection) for one in said]


def pick(
    states: Tensor, tokens: Tensor, prompt: int, heads: int, rows: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    """states (n, dim) at (row, place), and targets (n, heads): the tokens k + 2 places later."""
    ahead = torch.arange(2, heads + 2, device=tokens.device)
    return states[rows, places].float(), tokens[rows[:, None], places[:, None] + ahead].long()


def shortlist(model: Heads, targets: Tensor, usual: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The tokens a step is about: the usual ones, those that are right, as many at random; and targets among them.

    A softmax over a fifth of the vocabulary costs a fifth, and it is nearly all that a step costs."""
    numbers = torch.Generator().manual_seed(seed)
    others = torch.randint(model.vocab, (len(usual) // 2,), generator=numbers).to(targets.device)
    some = torch.unique(torch.cat((usual, targets.flatten(), others)))
    return some, torch.searchsorted(some, targets)


def heads_loss(logits: list[Tensor], targets: Tensor) -> Tensor:
    each = [functional.cross_entropy(one.float(), targets[:, k]) * FADE**k for k, one in enumerate(logits)]
    return torch.stack(each).sum()


@torch.no_grad()
def calibrate(model: Heads, states: Tensor, tokens: Tensor, prompt: int) -> Tensor:
    """How often each head's token of each rank is the right one: (heads, ranks)."""
    hits, count = torch.zeros(model.count, RANKS), 0
    for row in range(len(tokens)):
        places = torch.arange(prompt - 1, tokens.shape[1] - model.count - 1)
        x, targets = pick(states, tokens, prompt, model.count, torch.full_like(places, row), places)
        for k, logits in enumerate(model(x)):
            hits[k] += (logits.topk(RANKS, -1).indices == targets[:, k : k + 1]).float().sum(0)
        count += len(places)
    return hits / max(1, count)


def train(
    text: OwnText, states: Any, projection: Any, to: Path, out: Path, *, heads: int, plan: TrainPlan, device: str,
    minutes: float | None, bf16: bool, resume: bool, quiet: bool = False,
) -> Tensor:
    """Trains, and writes `to`. Returns the calibration (heads, ranks)."""
    model = Heads(heads, torch.from_numpy(projection)).to(device)
    held, tokens = torch.from_numpy(states).to(device), torch.from_numpy(text.tokens).to(device)
    first, last = text.prompt - 1, tokens.shape[1] - heads - 1

    def batches(step: int) -> tuple[Tensor, Tensor]:
        numbers = torch.Generator().manual_seed(plan.seed + step)
        rows = torch.randint(text.split, (plan.batch_tokens,), generator=numbers)
        places = torch.randint(first, last, (plan.batch_tokens,), generator=numbers)
        return pick(held, tokens, text.prompt, heads, rows.to(device), places.to(device))

    @torch.no_grad()
    def held_out(step: int) -> float:
        numbers = torch.Generator().manual_seed(1)
        rows = torch.randint(text.split, len(tokens), (2048,), generator=numbers)
        places = torch.randint(first, last, (2048,), generator=numbers)
        x, targets = pick(held, tokens, text.prompt, heads, rows.to(device), places.to(device))
        return float(heads_loss(model(x), targets))

    steps = iter(range(1 << 40))
    counts = torch.bincount(tokens[:, text.prompt :].flatten(), minlength=len(projection))
    usual = counts.topk(min(USUAL, len(projection))).indices

    def objective(x: Tensor, targets: Tensor) -> Tensor:
        some, among = shortlist(model, targets, usual, next(steps))
        return heads_loss(model(x, some), among)

    best: dict[str, Tensor] = {}
    fit(
        model, plan, out, batches=batches, objective=objective,
        held_out=held_out, save=best.update, identity={"heads": heads, "plan": vars(plan), "texts": len(tokens)},
        device=device, minutes=minutes, resume=resume, bf16=bf16, quiet=quiet,
    )  # fmt: skip
    model.load_state_dict(best)
    accuracy = calibrate(model, held[text.split :], tokens[text.split :], text.prompt)
    found = {name: value.float().cpu().numpy() for name, value in model.state_dict().items()}
    write_tensors(to, {**found, "accuracy": accuracy.numpy()}, {"scale": "1"})
    return accuracy


def train_joint(
    text: OwnText, plain: Ordinary, model: Path, first_stage: Path, to: Path, out: Path, **how: Any
) -> tuple[Tensor, float, float]:
    """Writes `to`, a GGUF file, and its heads beside it. Returns calibration and perplexity before and after."""
    device = how["device"]
    tensors = read_tensors(first_stage)[1]
    count = len(tensors["accuracy"])
    old, base = load_model(model).to(device).requires_grad_(False), load_model(model).to(device)
    heads = Heads(count, base.model.embed_tokens.weight.detach())
    heads.load_state_dict({n: torch.from_numpy(v) for n, v in tensors.items() if n != "accuracy"})
    joint = Joint(base, heads.to(device))
    tokens = torch.from_numpy(text.tokens).long().to(device)
    first, last = text.prompt - 1, tokens.shape[1] - count - 1
    counts = torch.bincount(tokens[:, text.prompt :].flatten(), minlength=heads.vocab)
    usual = counts.topk(min(USUAL, heads.vocab)).indices

    def see(ids: Tensor, step: int) -> tuple[Tensor, Tensor]:
        states = base.states(ids)[0]
        places = torch.arange(first + step % 2, last, 2, device=device)
        ahead = places[:, None] + torch.arange(2, count + 2, device=device)
        some, among = shortlist(heads, ids[:, ahead].flatten(0, 1), usual, step)
        said = heads(states[:, places].flatten(0, 1), some, base.model.embed_tokens.weight)
        return states, heads_loss(said, among)

    def accuracy_of(held: Tensor) -> Tensor:
        with torch.no_grad():
            states = torch.cat([base.states(row[None])[0].half() for row in held])
        heads.projection = base.model.embed_tokens.weight.detach()
        return calibrate(heads, states, held, text.prompt)

    def good() -> float:
        return promised(accuracy_of(tokens[text.split : text.split + WATCHED]))

    before, after = learn_together(joint, old, see, good, text, plain, out, **how)
    accuracy = accuracy_of(tokens[text.split :])
    write_model(base, model, to)
    found = {name: value.float().cpu().numpy() for name, value in heads.state_dict().items()}
    write_tensors(to.with_name(f"{to.stem}.{Path(__file__).stem}.safetensors"),
                  {**found, "accuracy": accuracy.numpy()}, {"scale": "1"})  # fmt: skip
    return accuracy, before, after


def main(argv: list[str]) -> None:
    it = argparse.ArgumentParser(
        "edgewise train medusa", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_text_options(it)
    add_joint_options(it, SHARE)
    it.add_argument("--heads", type=int, default=4, help="places after the next token (default: 4)")
    add_training_options(it, Path(__file__).stem, 2000, 3e-3)
    it.add_argument("--again", action="store_true", help="train anew on the text that is in OUT already")
    args = it.parse_args(argv)
    device = device_of(args, 8)
    parts = opened(args, 64)
    to = args.to or beside(parts.header, Path(__file__).stem)
    args.out.mkdir(parents=True, exist_ok=True)
    kept = args.out / "own.npz"  # text and states: a resumed run needs the same
    if (args.resume or args.again) and kept.is_file():
        with np.load(kept) as was:
            text, states = OwnText(was["tokens"], int(was["prompt"])), was["states"]
    else:
        text = write(parts, args)
        states = states_of(parts, text)
        np.savez(kept, tokens=text.tokens, prompt=text.prompt, states=states)
    projection, plain = projection_of(parts), ordinary(parts, args) if args.joint else None
    model = parts.header.files[0] if parts.header.dialect == "gguf" else parts.header.folder
    del parts
    plan = TrainPlan(
        steps=args.steps, lr=args.lr, batch_tokens=1024 if not args.smoke else 64, optimiser="adamw",
        warmup_steps=40, weight_decay=0.0, eval_every=100 if not args.smoke else 4,
    )  # fmt: skip
    if plain is not None:
        accuracy, before, after = train_joint(text, plain, model, to, args.joint, args.out / "joint",
                                              **joint_settings(args, plan, device))  # fmt: skip
        print(f"perplexity {before:.3f} before, {after:.3f} after: {after / before:.4f}x")
        say(accuracy, args.joint)
        return
    accuracy = train(
        text, states, projection, to, args.out, heads=args.heads, plan=plan, device=device, minutes=args.minutes,
        bf16=args.bf16 or device == "cuda", resume=args.resume,
    )  # fmt: skip
    say(accuracy, to)


def say(accuracy: Tensor, to: Path) -> None:
    for k, row in enumerate(accuracy):
        print(f"head {k + 1}: the best token is right {row[0]:.1%}, one of the best ten {row.sum():.1%} of the time")
    print(f"{to}: {to.stat().st_size:,} bytes")
