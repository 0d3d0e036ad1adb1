"""`edgewise train streaming MODEL`: streams through the top layers of a model that stays as it is.

edgewise train streaming                    # for the embedded model, on what it writes itself
edgewise train streaming MODEL --layers 3   # streams join below the third layer from the top
edgewise train streaming MODEL --joint FILE # the shared mode: the model learns too; FILE.gguf is the changed model
edgewise train streaming --smoke            # the whole way in seconds

Stream j of a token is its hidden state below the top layers plus a learnt vector (and, with --rank, a small matrix
of low rank), plus a matrix of low rank of the next token's embedding, which is known when streams draft but not to that
state (--token-rank 0: as in the paper, without it); in each top layer it attends to the main tokens up to its own and
to its streams up to j, j places farther, and the model's own head reads from it the token j + 1 places later. Nothing
of the model is trained (the lossless mode), except with --joint: from the streams of a first stage on (--to, or those
beside the model) both learn, and the model is held to what it said before. The loss is the sum of the streams' cross
entropies. An adapter of rank 8 on the same state learns to say the next token early; drafts can be pruned by it.
Paper: Bhendawade et al. 2024, https://arxiv.org/abs/2402.11131
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewise.base import BadInput
from edgewise.decode.drafting_weights import MEASURED, beside, read_tensors, write_tensors
from edgewise.kernels.api import Floats
from edgewise.train.drafters._calibration import Calibration, Counts
from edgewise.train.drafters._joint import (
    Joint,
    Ordinary,
    add_joint_options,
    joint_settings,
    learn_together,
    ordinary,
    promised,
    write_model,
)
from edgewise.train.drafters._own_text import OwnText, add_text_options, add_training_options, device_of, opened, write
from edgewise.train.export import load_model
from edgewise.train.loop import fit
from edgewise.train.model import Layer, Past, Transformer, rotate
from edgewise.train.recipe import TrainPlan

EARLY_RANK = 8
TOKEN = "token_down"
PLACES = 48  # of a text in a step: most of what a step costs is the model's own pass over the text
CALIBRATED = 32  # draws of held-out texts
SHARE = 0.1  # of the streams' loss when the model learns too


class Streams(nn.Module):
    """What is learnt: vectors (streams, dim), a matrix of low rank each where rank > 0, and the early exit."""

    def __init__(self, model: Transformer, streams: int, layers: int, rank: int = 0, token_rank: int = 0) -> None:
        super().__init__()
        dim = model.shape.dim
        self.count, self.top, self.rank = streams, layers, rank
        self.embed = nn.Parameter(torch.randn(streams, dim) * 0.02)
        self.down = nn.Parameter(torch.randn(streams, rank, dim) * dim**-0.5) if rank else None
        self.up = nn.Parameter(torch.zeros(streams, dim, rank)) if rank else None
        self.token_down = nn.Parameter(torch.randn(token_rank, dim) * dim**-0.5) if token_rank else None
        self.token_up = nn.Parameter(torch.zeros(dim, token_rank)) if token_rank else None
        self.early_down = nn.Parameter(torch.randn(EARLY_RANK, dim) * dim**-0.5)
        self.early_up = nn.Parameter(torch.zeros(dim, EARLY_RANK))
        self.model = [model.requires_grad_(False).eval()]  # in a list: its parameters are not ours
        self.unit = float(model.model.embed_tokens.weight.square().mean().sqrt())  # learnt from embeddings of size one

    def begin(self, state: Tensor, newest: Tensor) -> Tensor:
        """(…, dim), and the token after each (…) → (…, streams, dim)."""
        if self.token_down is not None and self.token_up is not None:
            known = self.model[0].model.embed_tokens(newest) / self.unit
            whole = state + known @ self.token_down.T @ self.token_up.T
        else:
            whole = state
        x = whole[..., None, :] + self.embed
        if self.down is not None and self.up is not None:
            x = x + torch.einsum("...d,srd,ser->...se", state, self.down, self.up)
        return x

    def early(self, state: Tensor) -> Tensor:
        """Logits (…, vocab) of the next token, from the state below the top layers."""
        model = self.model[0]
        return model.head(model.model.norm(state + state @ self.early_down.T @ self.early_up.T))

    def trunk(self, tokens: Tensor) -> tuple[Tensor, Tensor, Past]:
        """tokens (batch, length) → states below the top layers and after the last norm, both (batch, length, dim)."""
        model = self.model[0]
        layers = model.model.layers
        join, past = len(layers) - self.top, Past(len(layers))
        x = model.model.embed_tokens(tokens)
        length = tokens.shape[1]
        for at, layer in enumerate(layers):
            if at == join:
                below = x
            x, _ = layer(x, model.cos[:length], model.sin[:length], past)
        return below, model.model.norm(x), past

    def ahead(self, state: Tensor, newest: Tensor, past: Past, places: Tensor) -> Tensor:
        """Of states below the top layers, (batch, n, dim) at places (batch, n), before tokens `newest`, logits
        (batch, n, streams, vocab)."""
        model = self.model[0]
        layers = model.model.layers
        join = len(layers) - self.top
        s = self.begin(state, newest)
        at = (places[..., None] + 1 + torch.arange(self.count, device=places.device)).clamp(max=len(model.cos) - 1)
        cos, sin = model.cos[at], model.sin[at]  # (batch, n, streams, head_dim / 2)
        seen = torch.arange(len(past), device=places.device) <= places[..., None]  # (batch, n, length)
        for layer, held in zip(layers[join:], past.held[join:], strict=True):
            s = stream_layer(layer, s, held, cos, sin, seen)  # type: ignore[arg-type]
        return model.head(model.model.norm(s))

    def forward(self, tokens: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """tokens (batch, length), places (batch, n) → stream logits (batch, n, streams, vocab), early logits and the
        model's own (batch, n, vocab)."""
        with torch.no_grad():
            below, last, past = self.trunk(tokens)
        return self.at(tokens, below, last, past, places)

    def at(
        self, tokens: Tensor, below: Tensor, last: Tensor, past: Past, places: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`forward`, of what `trunk` gave."""
        rows = torch.arange(len(below), device=below.device)[:, None]
        state = below[rows, places]
        with torch.no_grad():
            own = self.model[0].head(last[rows, places])
        return self.ahead(state, tokens.gather(1, places + 1), past, places), self.early(state), own

    def tensors(self) -> dict[str, Floats]:
        """As they are written: the tokens' matrix takes embeddings as the model has them."""
        found = {name: value.float().cpu().numpy() for name, value in self.state_dict().items()}
        if TOKEN in found:
            found[TOKEN] = found[TOKEN] / self.unit
        return found

    @staticmethod
    def read(file: Path, model: Transformer) -> "Streams":
        metadata, found = read_tensors(file)
        tensors = {name: torch.from_numpy(value) for name, value in found.items() if name not in MEASURED}
        rank, token_rank = (tensors[name].shape[-2] if name in tensors else 0 for name in ("down", TOKEN))
        drafting = Streams(model, len(tensors["embed"]), int(metadata["layers"]), rank, token_rank)
        if token_rank:
            tensors[TOKEN] = tensors[TOKEN] * drafting.unit
        drafting.load_state_dict(tensors)
        return drafting


def stream_layer(
    layer: Layer, s: Tensor, held: tuple[Tensor, Tensor], cos: Tensor, sin: Tensor, seen: Tensor
) -> Tensor:
    """One layer over streams (batch, n, streams, dim); held: keys and values of the main tokens."""
    attention, (batch, n, count, _) = layer.self_attn, s.shape
    y = layer.input_layernorm(s)
    heads, groups = attention.heads, attention.heads // attention.kv_heads

    def parts(projection: nn.Linear, many: int) -> Tensor:
        return projection(y).view(batch, n, count, many, -1).permute(0, 3, 1, 2, 4)  # (batch, heads, n, streams, …)

    q, k = parts(attention.q_proj, heads), parts(attention.k_proj, attention.kv_heads)
    v = parts(attention.v_proj, attention.kv_heads)
    if hasattr(attention, "q_norm"):
        q, k = attention.q_norm(q), attention.k_norm(k)
    q, k = (rotate(one, cos[:, None], sin[:, None]).to(v.dtype).contiguous() for one in (q, k))
    k, v, keys, values = (one.repeat_interleave(groups, 1) for one in (k, v, *held))
    scale = attention.head_dim**-0.5
    main = torch.einsum("bhnsd,bhtd->bhnst", q, keys) * scale
    main = main.masked_fill(~seen[:, None, :, None], -torch.inf)
    mine = torch.einsum("bhnsd,bhnud->bhnsu", q, k) * scale
    ahead = torch.ones(count, count, dtype=torch.bool, device=s.device).triu(1)
    weights = torch.cat((main, mine.masked_fill(ahead, -torch.inf)), -1).softmax(-1)
    length = keys.shape[2]
    out = torch.einsum("bhnst,bhtd->bhnsd", weights[..., :length], values)
    out = out + torch.einsum("bhnsu,bhnud->bhnsd", weights[..., length:], v)
    s = s + attention.o_proj(out.permute(0, 2, 3, 1, 4).reshape(batch, n, count, -1))
    z = layer.post_attention_layernorm(s)
    if not hasattr(layer.mlp, "down_proj"):
        raise BadInput("Streams can be trained on dense models only; this one has experts.")
    return s + layer.mlp(z)[0]


def streams_loss(found: tuple[Tensor, Tensor, Tensor], targets: Tensor) -> Tensor:
    """targets (batch, n, streams): the tokens two and more places later. The early exit learns what the model says."""
    logits, early, own = found
    each = [functional.cross_entropy(logits[..., j, :].float().flatten(0, 1), targets[..., j].flatten())
            for j in range(logits.shape[2])]  # fmt: skip
    taught = functional.cross_entropy(early.float().flatten(0, 1), own.argmax(-1).flatten())
    return torch.stack(each).sum() + taught


class Places:
    """Texts with some places in them, drawn by number, and the tokens ahead of those."""

    def __init__(self, text: OwnText, streams: int, batch_tokens: int, device: str) -> None:
        self.tokens = torch.from_numpy(text.tokens).long().to(device)
        self.streams, self.split = streams, text.split
        self.first, self.last = text.prompt - 1, self.tokens.shape[1] - streams - 1
        self.rows, self.n = max(1, batch_tokens // self.tokens.shape[1]), min(PLACES, self.last - self.first)

    def of(self, seed: int, many: int) -> Tensor:
        """(many, n)."""
        numbers = torch.Generator().manual_seed(seed)
        return torch.randint(self.first, self.last, (many, self.n), generator=numbers).to(self.tokens.device)

    def drawn(self, seed: int, held_out: bool = False) -> Tensor:
        """Texts (rows, length) for training, or held-out ones."""
        low, high = (self.split, len(self.tokens)) if held_out else (0, self.split)
        numbers = torch.Generator().manual_seed(seed)
        return self.tokens[torch.randint(low, high, (self.rows,), generator=numbers).to(self.tokens.device)]

    def targets(self, ids: Tensor, places: Tensor) -> Tensor:
        """(rows, n, streams): the tokens two and more places later."""
        ahead = places[..., None] + torch.arange(2, self.streams + 2, device=ids.device)
        return ids.gather(1, ahead.flatten(1)).view_as(ahead)

    @torch.no_grad()
    def calibration(self, drafting: Streams, draws: int) -> Calibration:
        """Of each stream, on held-out texts."""
        counts = Counts(self.streams)
        for seed in range(2, 2 + draws):
            ids, places = self.drawn(seed, True), self.of(seed, self.rows)
            counts.saw(drafting(ids, places)[0].flatten(0, 1).unbind(1), self.targets(ids, places).flatten(0, 1))
        return counts.calibration()


def train(
    text: OwnText, model: Transformer, to: Path, out: Path, *, streams: int, layers: int, rank: int, token_rank: int,
    plan: TrainPlan, device: str, minutes: float | None, bf16: bool, resume: bool, quiet: bool = False,
) -> Calibration:
    """Trains, and writes `to`."""
    torch.manual_seed(plan.seed)
    drafting = Streams(model.to(device), streams, layers, rank, token_rank).to(device)
    among = Places(text, streams, plan.batch_tokens, device)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        return among.drawn(plan.seed + 1 + step), among.of(plan.seed + 1 + step, among.rows)

    def loss(ids: Tensor, places: Tensor) -> Tensor:
        return streams_loss(drafting(ids, places), among.targets(ids, places))

    @torch.no_grad()
    def held_out(step: int) -> float:
        return sum(float(loss(among.drawn(at, True), among.of(at, among.rows))) for at in range(4)) / 4

    best: dict[str, Tensor] = {}
    fit(
        drafting, plan, out, batches=batches, objective=loss,
        held_out=held_out, save=best.update, device=device, minutes=minutes, resume=resume, bf16=bf16, quiet=quiet,
        identity={"streams": streams, "layers": layers, "rank": rank, "token_rank": token_rank, "plan": vars(plan),
                  "texts": len(among.tokens)},
    )  # fmt: skip
    drafting.load_state_dict(best)
    return _keep(drafting, among, to)


def _keep(drafting: Streams, among: Places, to: Path) -> Calibration:
    measured = among.calibration(drafting, CALIBRATED)
    write_tensors(to, {**drafting.tensors(), **measured.tensors()}, {"scale": "1", "layers": str(drafting.top)})
    return measured


def train_joint(
    text: OwnText, plain: Ordinary, model: Path, first_stage: Path, to: Path, out: Path, **how: Any
) -> tuple[Calibration, float, float]:
    """Writes `to`, a GGUF file, and its streams beside it. Returns calibration and perplexity before and after."""
    device = how["device"]
    old, base = load_model(model).to(device).requires_grad_(False), load_model(model).to(device)
    drafting = Streams.read(first_stage, base).to(device)
    base.requires_grad_(True)
    among = Places(text, drafting.count, how["plan"].batch_tokens, device)

    def see(ids: Tensor, step: int) -> tuple[Tensor, Tensor]:
        below, last, past = drafting.trunk(ids)
        places = among.of(step, len(ids))
        return last, streams_loss(drafting.at(ids, below, last, past, places), among.targets(ids, places))

    def good() -> float:
        return promised(among.calibration(drafting, 4).accuracy)

    before, after = learn_together(Joint(base, drafting), old, see, good, text, plain, out, **how)
    write_model(base, model, to)
    return _keep(drafting, among, to.with_name(f"{to.stem}.{Path(__file__).stem}.safetensors")), before, after


def main(argv: list[str]) -> None:
    it = argparse.ArgumentParser(
        "edgewise train streaming", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_text_options(it)
    it.add_argument("--streams", type=int, default=4, help="places after the next token (default: 4)")
    it.add_argument("--layers", type=int, default=1, help="top layers that streams pass through (default: 1)")
    it.add_argument("--rank", type=int, default=0, help="of each stream's own matrix (default: 0, none)")
    of_token = "of the matrix of the next token's embedding (default: a fifth of dim; 0: none)"
    it.add_argument("--token-rank", type=int, help=of_token)
    add_training_options(it, Path(__file__).stem, 800, 1e-2)
    add_joint_options(it, SHARE)
    it.add_argument("--own", type=Path, help="an own.npz that a medusa training left: no text is written again")
    args = it.parse_args(argv)
    device = device_of(args, 4)
    parts = opened(args, 64)
    header: Any = parts.header
    text = read_own(args.own) if args.own else write(parts, args)
    plain = ordinary(parts, args) if args.joint else None
    del parts
    where = header.files[0] if header.dialect == "gguf" else header.folder
    model = load_model(where)
    if not 1 <= args.layers <= model.shape.layers:
        raise BadInput(f"--layers is {args.layers}, but the model has {model.shape.layers}.")
    plan = TrainPlan(
        steps=args.steps, lr=args.lr, batch_tokens=2048 if not args.smoke else 64, optimiser="adamw",
        warmup_steps=20, weight_decay=0.0, eval_every=50 if not args.smoke else 2,
    )  # fmt: skip
    to = args.to or beside(header, Path(__file__).stem)
    if plain is not None:
        measured, before, after = train_joint(text, plain, where, to, args.joint, args.out / "joint",
                                              **joint_settings(args, plan, device))  # fmt: skip
        say(measured, args.joint, f"perplexity {before:.3f} before, {after:.3f} after: {after / before:.4f}x")
        return
    token_rank = model.shape.dim // 5 if args.token_rank is None else args.token_rank
    measured = train(
        text, model, to, args.out, streams=args.streams, layers=args.layers, rank=args.rank, token_rank=token_rank,
        plan=plan, device=device, minutes=args.minutes, bf16=args.bf16 or device == "cuda", resume=args.resume,
    )  # fmt: skip
    say(measured, to)


def say(measured: Calibration, to: Path, more: str = "") -> None:
    for j, row in enumerate(measured.accuracy):
        print(f"stream {j + 1}: the best token is right {row[0]:.1%}, one of the best ten {row.sum():.1%} of the time")
    print(*filter(None, (more, f"{to}: {to.stat().st_size:,} bytes")), sep="\n")


def read_own(path: Path) -> OwnText:
    import numpy as np

    try:
        with np.load(path) as was:
            return OwnText(was["tokens"], int(was["prompt"]))
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"{path} is no own.npz of a medusa training ({error}).") from error
