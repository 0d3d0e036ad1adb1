"""A training recipe: one TOML file of three tables, checked for unknown and missing keys."""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.base import BadInput

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class ModelShape:
    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_dim: int
    context: int
    rope_theta: float
    eps: float


@dataclass(frozen=True)
class DataPlan:
    held_out_percent: float
    snippet_share: float


@dataclass(frozen=True)
class TrainPlan:
    steps: int
    batch_tokens: int
    window: int  # tokens of a training window, at most the context
    long_share: float  # of the steps, at the end, take windows of the whole context
    optimiser: str  # "adamw", or "muon" for the matrices of the layers and adamw for the rest
    lr: float
    final_lr_share: float
    warmup_steps: int
    weight_decay: float
    beta1: float
    beta2: float
    clip: float
    dropout: float
    seed: int
    eval_every: int


@dataclass(frozen=True)
class Recipe:
    name: str
    model: ModelShape
    data: DataPlan
    train: TrainPlan

    def changed(self, table: str, **values: Any) -> "Recipe":
        """A copy with some settings of one table replaced."""
        old = getattr(self, table)
        return dataclasses.replace(self, **{table: dataclasses.replace(old, **values)})


def load_recipe(name: str) -> Recipe:
    """A recipe by its name in train/configs or by a path to a TOML file. Raises BadInput for what does not fit."""
    file = Path(name) if name.endswith(".toml") else CONFIGS / f"{name}.toml"
    if not file.is_file():
        raise BadInput(
            f"There is no recipe '{name}'. Known: {', '.join(sorted(p.stem for p in CONFIGS.glob('*.toml')))}."
        )
    data = tomllib.loads(file.read_text())
    tables: dict[str, Any] = {}
    for table, cls in (("model", ModelShape), ("data", DataPlan), ("train", TrainPlan)):
        known = {field.name for field in dataclasses.fields(cls)}
        given = data.get(table, {})
        if odd := known.symmetric_difference(given):
            raise BadInput(f"{file}: table [{table}] has unknown or missing settings: {', '.join(sorted(odd))}.")
        tables[table] = cls(**given)
    return Recipe(file.stem, **tables)
