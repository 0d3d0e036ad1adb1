"""`edgewise train medusa MODEL`: heads that guess the tokens after the next one, on a model that stays as it is.

edgewise train medusa                       # heads for the embedded model, on what it writes itself
edgewise train medusa MODEL --text FOLDER   # texts begin like this folder's files
edgewise train medusa MODEL --root 0        # heads as in the paper, which do not know the next token
edgewise train medusa MODEL --smoke         # the whole way in seconds
edgewise train medusa MODEL --joint FILE    # Medusa-2: the model learns too; FILE.gguf is the changed model

Medusa-1: only the heads are trained. The loss is the sum over heads of 0.8^k times the cross entropy of the token k + 1
places after the next one. How often each head's ten best tokens are right on held-out text, in all and by how sure the
head is, is kept in the file; trees are made with it. Saved beside the model, where `--speculator medusa` finds them.
The next token is known when heads draft (it is the root of the tree), and the state that they read was not told of it:
a block that all heads share mixes the two (as EAGLE does before its layer: Li et al. 2024,
https://arxiv.org/abs/2401.15077). Twice the model's width inside by default; --root 0 leaves it out.
Medusa-2 (--joint, dense members of the family): from the heads of the first stage on, model and heads learn together;
the model is held to what it said before (cross entropy against its own old distribution), so that it stays what it was.
It is another model then: its perplexity is printed beside the old one's; drafting is lossless for the new one.
Paper: Cai et al. 2024, https://arxiv.org/abs/2401.10774
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewise.decode.drafting_weights import MEASURED, beside, read_tensors, write_tensors
from edgewise.kernels.api import Floats
from edgewise.train.drafters._calibration import Calibration, Counts
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
    embeddings_of,
    opened,
    projection_of,
    states_of,
    write,
)  # fmt: skip
from edgewise.train.export import load_model
from edgewise.train.loop import fit
from edgewise.train.recipe import TrainPlan

FADE = 0.8  # of a head's loss, for every place farther
USUAL = 768
TOKEN = "root.token.weight"
SHARE = 0.2  # of the heads' loss when the model learns too


class Heads(nn.Module):
    """z + silu(W_k z + b_k), k-th head; `project` makes logits of it. z is the state x, or with a root block
    x + out silu(state x + token e), e the embedding of the token after x. They begin as the identity.

    embeddings (vocab, dim), root: width of that block, 0: none."""

    def __init__(self, heads: int, projection: Tensor, embeddings: Tensor | None = None, root: int = 0) -> None:
        super().__init__()
        self.vocab, dim = projection.shape
        for k in range(heads):
            linear = nn.Linear(dim, dim)
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
            self.add_module(f"{k}", nn.ModuleList([nn.ModuleDict({"linear": linear})]))
        self.count = heads
        self.register_buffer("projection", projection, persistent=False)
        self.root: nn.ModuleDict | None = None
        if root and embeddings is not None:
            out = nn.Linear(root, dim, bias=False)
            nn.init.zeros_(out.weight)
            parts = {"state": nn.Linear(dim, root), "token": nn.Linear(dim, root, bias=False), "out": out}
            self.root = nn.ModuleDict(parts)
            self.unit = float(embeddings.square().mean().sqrt())  # learnt from embeddings as large as states are
            self.register_buffer("embeddings", embeddings / self.unit, persistent=False)

    def linear(self, k: int) -> nn.Linear:
        found: nn.Linear = self.get_submodule(f"{k}.0.linear")  # type: ignore[assignment]
        return found

    def forward(
        self, states: Tensor, newest: Tensor, some: Tensor | None = None, projection: Tensor | None = None
    ) -> list[Tensor]:
        """Logits (…, vocab) of every head, or of some tokens only. newest (…): the token after each state.
        projection: of a model that learns, too, whose embeddings it is as well."""
        if self.root is not None:
            known = self.embeddings if projection is None else projection / self.unit
            table: Tensor = known  # type: ignore[assignment]
            inner = self.root["state"](states) + self.root["token"](functional.embedding(newest, table))
            states = states + self.root["out"](functional.silu(inner))
        said = [states + functional.silu(self.linear(k)(states)) for k in range(self.count)]
        whole: Tensor = self.projection if projection is None else projection  # type: ignore[assignment]
        projection = whole if some is None else whole[some]
        return [functional.linear(one, projection) for one in said]

    def tensors(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, Floats]:
        """As they are written: the root block takes embeddings as the model has them."""
        found = {name: value.float().cpu().numpy() for name, value in (weights or self.state_dict()).items()}
        if TOKEN in found:
            found[TOKEN] = found[TOKEN] / self.unit
        return found

    @staticmethod
    def read(file: Path, projection: Tensor, embeddings: Tensor) -> "Heads":
        tensors = {n: torch.from_numpy(v) for n, v in read_tensors(file)[1].items() if n not in MEASURED}
        count = sum(name.endswith(".0.linear.weight") for name in tensors)
        heads = Heads(count, projection, embeddings, len(tensors[TOKEN]) if TOKEN in tensors else 0)
        if TOKEN in tensors:
            tensors[TOKEN] = tensors[TOKEN] * heads.unit
        heads.load_state_dict(tensors)
        return heads


def pick(states: Tensor, tokens: Tensor, heads: int, rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """states (n, dim) at (row, place), and (n, 1 + heads) the tokens that follow: the next one, then each head's."""
    ahead = torch.arange(1, heads + 2, device=tokens.device)
    return states[rows, places].float(), tokens[rows[:, None], places[:, None] + ahead].long()


def shortlist(model: Heads, targets: Tensor, usual: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The tokens a step is about: the usual ones, those that are right, as many at random; and targets among them.

    A softmax over a fifth of the vocabulary costs a fifth, and it is nearly all that a step costs."""
    numbers = torch.Generator().manual_seed(seed)
    others = torch.randint(model.vocab, (len(usual) // 2,), generator=numbers).to(targets.device)
    some = torch.unique(torch.cat((usual, targets.flatten(), others)))
    return some, torch.searchsorted(some, targets.contiguous())


def heads_loss(logits: list[Tensor], targets: Tensor) -> Tensor:
    each = [functional.cross_entropy(one.float(), targets[:, k]) * FADE**k for k, one in enumerate(logits)]
    return torch.stack(each).sum()


@torch.no_grad()
def calibrate(model: Heads, states: Tensor, tokens: Tensor, prompt: int) -> Calibration:
    counts = Counts(model.count)
    for row in range(len(tokens)):
        places = torch.arange(prompt - 1, tokens.shape[1] - model.count - 1)
        x, follow = pick(states, tokens, model.count, torch.full_like(places, row), places)
        counts.saw(model(x, follow[:, 0]), follow[:, 1:])
    return counts.calibration()


def train(
    text: OwnText, states: Any, projection: Any, embeddings: Any, to: Path, out: Path, *, heads: int, root: int,
    plan: TrainPlan, device: str, minutes: float | None, bf16: bool, resume: bool, quiet: bool = False,
) -> Calibration:
    """Trains, and writes `to`."""
    model = Heads(heads, torch.from_numpy(projection), torch.from_numpy(embeddings), root).to(device)
    held, tokens = torch.from_numpy(states).to(device), torch.from_numpy(text.tokens).to(device)
    first, last = text.prompt - 1, tokens.shape[1] - heads - 1

    def batches(step: int) -> tuple[Tensor, Tensor]:
        numbers = torch.Generator().manual_seed(plan.seed + step)
        rows = torch.randint(text.split, (plan.batch_tokens,), generator=numbers)
        places = torch.randint(first, last, (plan.batch_tokens,), generator=numbers)
        return pick(held, tokens, heads, rows.to(device), places.to(device))

    @torch.no_grad()
    def held_out(step: int) -> float:
        numbers = torch.Generator().manual_seed(1)
        rows = torch.randint(text.split, len(tokens), (2048,), generator=numbers)
        places = torch.randint(first, last, (2048,), generator=numbers)
        x, follow = pick(held, tokens, heads, rows.to(device), places.to(device))
        return float(heads_loss(model(x, follow[:, 0]), follow[:, 1:]))

    steps = iter(range(1 << 40))
    counts = torch.bincount(tokens[:, text.prompt :].flatten(), minlength=len(projection))
    usual = counts.topk(min(USUAL, len(projection))).indices

    def objective(x: Tensor, follow: Tensor) -> Tensor:
        some, among = shortlist(model, follow[:, 1:], usual, next(steps))
        return heads_loss(model(x, follow[:, 0], some), among)

    best: dict[str, Tensor] = {}
    fit(
        model, plan, out, batches=batches, objective=objective,
        held_out=held_out, save=best.update,
        identity={"heads": heads, "root": root, "plan": vars(plan), "texts": len(tokens)},
        device=device, minutes=minutes, resume=resume, bf16=bf16, quiet=quiet,
    )  # fmt: skip
    model.load_state_dict(best)
    measured = calibrate(model, held[text.split :], tokens[text.split :], text.prompt)
    write_tensors(to, {**model.tensors(), **measured.tensors()}, {"scale": "1"})
    return measured


def train_joint(
    text: OwnText, plain: Ordinary, model: Path, first_stage: Path, to: Path, out: Path, **how: Any
) -> tuple[Calibration, float, float]:
    """Writes `to`, a GGUF file, and its heads beside it. Returns calibration and perplexity before and after."""
    device = how["device"]
    old, base = load_model(model).to(device).requires_grad_(False), load_model(model).to(device)
    table = base.model.embed_tokens.weight.detach()
    heads = Heads.read(first_stage, table, table)
    count = heads.count
    joint = Joint(base, heads.to(device))
    tokens = torch.from_numpy(text.tokens).long().to(device)
    first, last = text.prompt - 1, tokens.shape[1] - count - 1
    counts = torch.bincount(tokens[:, text.prompt :].flatten(), minlength=heads.vocab)
    usual = counts.topk(min(USUAL, heads.vocab)).indices

    def see(ids: Tensor, step: int) -> tuple[Tensor, Tensor]:
        states = base.states(ids)[0]
        places = torch.arange(first + step % 2, last, 2, device=device)
        follow = ids[:, places[:, None] + torch.arange(1, count + 2, device=device)].flatten(0, 1)
        some, among = shortlist(heads, follow[:, 1:], usual, step)
        said = heads(states[:, places].flatten(0, 1), follow[:, 0], some, base.model.embed_tokens.weight)
        return states, heads_loss(said, among)

    def measure(held: Tensor) -> Calibration:
        with torch.no_grad():
            states = torch.cat([base.states(row[None])[0].half() for row in held])
        heads.projection = base.model.embed_tokens.weight.detach()
        if heads.root is not None:
            heads.embeddings = heads.projection / heads.unit
        return calibrate(heads, states, held, text.prompt)

    def good() -> float:
        return promised(measure(tokens[text.split : text.split + WATCHED]).accuracy)

    before, after = learn_together(joint, old, see, good, text, plain, out, **how)
    measured = measure(tokens[text.split :])
    write_model(base, model, to)
    write_tensors(to.with_name(f"{to.stem}.{Path(__file__).stem}.safetensors"),
                  {**heads.tensors(), **measured.tensors()}, {"scale": "1"})  # fmt: skip
    return measured, before, after


def main(argv: list[str]) -> None:
    it = argparse.ArgumentParser(
        "edgewise train medusa", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_text_options(it)
    add_joint_options(it, SHARE)
    it.add_argument("--heads", type=int, default=4, help="places after the next token (default: 4)")
    it.add_argument("--root", type=int, help="of the block that mixes in the next token: its width (default: 2 dim)")
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
    projection, embeddings = projection_of(parts), embeddings_of(parts)
    plain = ordinary(parts, args) if args.joint else None
    model = parts.header.files[0] if parts.header.dialect == "gguf" else parts.header.folder
    del parts
    plan = TrainPlan(
        steps=args.steps, lr=args.lr, batch_tokens=1024 if not args.smoke else 64, optimiser="adamw",
        warmup_steps=40, weight_decay=0.0, eval_every=100 if not args.smoke else 4,
    )  # fmt: skip
    if plain is not None:
        measured, before, after = train_joint(text, plain, model, to, args.joint, args.out / "joint",
                                              **joint_settings(args, plan, device))  # fmt: skip
        print(f"perplexity {before:.3f} before, {after:.3f} after: {after / before:.4f}x")
        say(measured, args.joint)
        return
    root = 2 * projection.shape[1] if args.root is None else args.root
    measured = train(
        text, states, projection, embeddings, to, args.out, heads=args.heads, root=root, plan=plan,
        device=device, minutes=args.minutes, bf16=args.bf16 or device == "cuda", resume=args.resume,
    )  # fmt: skip
    say(measured, to)


def say(measured: Calibration, to: Path) -> None:
    for k, row in enumerate(measured.accuracy):
        print(f"head {k + 1}: the best token is right {row[0]:.1%}, one of the best ten {row.sum():.1%} of the time")
    print(f"{to}: {to.stat().st_size:,} bytes")
