"""The family's tiny encoder: a BERT that says what kind of text it reads. Layout: BertForSequenceClassification.

Paper: Devlin et al. 2018, https://arxiv.org/abs/1810.04805. Kinds are known where the text comes from: Python, the
language's reference, and the generated tasks; the pieces of a held-out file or question are never trained on.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewise.train import loop, tasks
from edgewise.train.chat import plain
from edgewise.train.dataset import Data
from edgewise.train.hf import load_tensors, save_tensors
from edgewise.train.recipe import ModelShape, Recipe
from edgewise.train.tokenizer import load_tokenizer

LABELS = ("python", *tasks.TASKS)
HELD_OUT = 40  # pieces of each kind
EPS = 1e-12


class Encoder(nn.Module):
    """Bidirectional, learnt positions, norms after each part; the first token's state is read for the label."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape, dim = shape, shape.dim
        self.bert = nn.ModuleDict({
            "embeddings": nn.ModuleDict({
                "word_embeddings": nn.Embedding(shape.vocab, dim),
                "position_embeddings": nn.Embedding(shape.context, dim),
                "token_type_embeddings": nn.Embedding(2, dim), "LayerNorm": nn.LayerNorm(dim, EPS),
            }),
            "encoder": nn.ModuleDict({"layer": nn.ModuleList(self._layer(shape) for _ in range(shape.layers))}),
            "pooler": nn.ModuleDict({"dense": nn.Linear(dim, dim)}),
        })  # fmt: skip
        self.classifier = nn.Linear(dim, len(LABELS))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    @staticmethod
    def _layer(shape: ModelShape) -> nn.ModuleDict:
        dim = shape.dim
        own = nn.ModuleDict({name: nn.Linear(dim, dim) for name in ("query", "key", "value")})
        out = nn.ModuleDict({"dense": nn.Linear(dim, dim), "LayerNorm": nn.LayerNorm(dim, EPS)})
        return nn.ModuleDict({
            "attention": nn.ModuleDict({"self": own, "output": out}),
            "intermediate": nn.ModuleDict({"dense": nn.Linear(dim, shape.ffn_dim)}),
            "output": nn.ModuleDict({"dense": nn.Linear(shape.ffn_dim, dim), "LayerNorm": nn.LayerNorm(dim, EPS)}),
        })  # fmt: skip

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask (rows, tokens), mask 1 where a token is → logits (rows, labels)."""
        rows, tokens = ids.shape
        at = self.bert["embeddings"]
        x = at["word_embeddings"](ids) + at["position_embeddings"].weight[:tokens]
        x = at["LayerNorm"](x + at["token_type_embeddings"].weight[0])
        for layer in self.bert["encoder"]["layer"]:
            own, out = layer["attention"]["self"], layer["attention"]["output"]
            q, k, v = (own[name](x).view(rows, tokens, self.shape.heads, -1).transpose(1, 2)
                       for name in ("query", "key", "value"))  # fmt: skip
            y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :].bool())
            x = out["LayerNorm"](x + out["dense"](y.transpose(1, 2).reshape(rows, tokens, -1)))
            y = layer["output"]["dense"](functional.gelu(layer["intermediate"]["dense"](x)))
            x = layer["output"]["LayerNorm"](x + y)
        return self.classifier(self.bert["pooler"]["dense"](x[:, 0]).tanh())


def config_of(shape: ModelShape) -> dict[str, Any]:
    """config.json of a BertForSequenceClassification of this shape."""
    return {
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "vocab_size": shape.vocab,
        "hidden_size": shape.dim, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "intermediate_size": shape.ffn_dim, "max_position_embeddings": shape.context, "type_vocab_size": 2,
        "hidden_act": "gelu", "layer_norm_eps": EPS, "pad_token_id": 2, "torch_dtype": "float16",
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "id2label": {str(n): name for n, name in enumerate(LABELS)},
        "label2id": {name: n for n, name in enumerate(LABELS)},
    }  # fmt: skip


def load(folder: Path) -> Encoder:
    """What `train` saved."""
    config = json.loads((folder / "config.json").read_text())
    shape = ModelShape(
        dim=config["hidden_size"], layers=config["num_hidden_layers"], heads=config["num_attention_heads"],
        kv_heads=config["num_attention_heads"], head_dim=config["hidden_size"] // config["num_attention_heads"],
        ffn_dim=config["intermediate_size"], vocab=config["vocab_size"], context=config["max_position_embeddings"],
    )  # fmt: skip
    model = Encoder(shape)
    model.load_state_dict(load_tensors(folder))
    return model.eval()


Pieces = list[list[int]]


def pieces(data: Data, data_folder: Path, size: int, *, held: bool) -> list[Pieces]:
    """For each label, pieces of at most `size` tokens that begin with <|bos|>."""
    tokenizer = load_tokenizer(data_folder)
    text = data.texts["stdlib"].held_out if held else data.texts["stdlib"].tokens
    rng = np.random.default_rng(1 if held else 0)
    count = HELD_OUT if held else 2000
    begins = rng.integers(0, max(1, len(text) - size), count)
    lengths = rng.integers(size // 4, size, count)
    found = [[[data.bos, *text[b : b + n - 1].tolist()] for b, n in zip(begins, lengths, strict=True)]]
    for task in tasks.TASKS:
        levels = range(1, tasks.LEVELS + 1)
        if held:
            asked = [e.question for level in levels for e in tasks.held_out(task, level, HELD_OUT // tasks.LEVELS)]
        else:
            every = (tasks.example(task, 1 + n % tasks.LEVELS, n) for n in range(count))
            asked = [e.question for e in every if not e.held_out]
        found.append([[data.bos, *plain(tokenizer, question)][:size] for question in asked])
    return found


def batch_of(chosen: Pieces) -> tuple[Tensor, Tensor]:
    """ids and mask (rows, tokens of the longest)."""
    longest = max(map(len, chosen))
    ids = torch.full((len(chosen), longest), 2)
    mask = torch.zeros((len(chosen), longest), dtype=torch.long)
    for row, piece in enumerate(chosen):
        ids[row, : len(piece)] = torch.tensor(piece)
        mask[row, : len(piece)] = 1
    return ids, mask


def train(
    recipe: Recipe, data_folder: Path, data: Data, out: Path, *, device: str, bf16: bool, **how: Any
) -> loop.Result:
    """Trains the classifier; leaves what `loop.fit` does, and model/."""
    plan, shape = recipe.train, recipe.model
    torch.manual_seed(plan.seed)
    model = Encoder(shape).to(device)
    seen = pieces(data, data_folder, plan.window, held=False)
    kept = pieces(data, data_folder, plan.window, held=True)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((plan.seed, step))
        labels = rng.integers(0, len(LABELS), max(1, plan.batch_tokens // plan.window))
        chosen = [seen[label][int(rng.integers(len(seen[label])))] for label in labels]
        ids, _ = batch_of(chosen)
        return ids.to(device), torch.from_numpy(labels).to(device)

    def objective(inputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(model(inputs, (inputs != 2).long()).float(), labels)

    def save(best: dict[str, Tensor]) -> None:
        save_tensors(best, out / "model", torch.float16)
        (out / "model" / "config.json").write_text(json.dumps(config_of(shape), indent=2) + "\n")

    return loop.fit(
        model, plan, out, batches=batches, objective=objective, save=save,
        held_out=lambda step: _judged(model, kept)[0], identity=asdict(recipe), device=device, bf16=bf16, **how,
    )  # fmt: skip


@torch.no_grad()
def _judged(model: Encoder, kept: list[Pieces]) -> tuple[float, dict[str, float]]:
    """Mean loss in nats, and the share of right labels by kind."""
    device = model.classifier.weight.device
    losses, right = [], {}
    for label, name in enumerate(LABELS):
        ids, mask = batch_of(kept[label])
        logits = model(ids.to(device), mask.to(device)).float()
        losses.append(functional.cross_entropy(logits, torch.full((len(ids),), label, device=device)).item())
        right[name] = (logits.argmax(-1) == label).float().mean().item()
    return sum(losses) / len(losses), right


def accuracy(out: Path, data_folder: Path, data: Data) -> dict[str, float]:
    """Share of right labels on held-out pieces, by kind."""
    model = load(out / "model")
    return _judged(model, pieces(data, data_folder, model.shape.context // 2, held=True))[1]


def report_lines(out: Path, data_folder: Path, data: Data) -> list[str]:
    found = accuracy(out, data_folder, data)
    rows = [f"| {name} | {share:.3f} |" for name, share in found.items()]
    return ["Right labels of held-out pieces:", "", "| kind | share |", "|---|---|", *rows, ""]
