"""A member of the family as one small TOML file: its shape, its text, its training; checked for unknown keys.

What a file does not say is the family's usual. `kind` at the top: "language" (the default) or "classifier".
"""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from edgewise.base import BadInput

CONFIGS = Path(__file__).parent / "configs"
Kind = Literal["language", "classifier"]
OWN = "own"  # what the teacher writes itself: made before the training that wants it
SOURCES = ("stdlib", "packages", "tasks", OWN)


@dataclass(frozen=True)
class ModelShape:
    """A Llama, a Qwen3-MoE (`experts`), a SmallThinker (`experts` and `early_router`); a classifier's encoder."""

    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_dim: int  # of one expert where there are experts
    vocab: int = 6144
    context: int = 1024
    rope_theta: float = 10000.0
    eps: float = 1e-5
    act: str = "silu"  # of the gate: "silu", or "relu" for exact zeros
    experts: int = 0
    experts_per_token: int = 2
    early_router: bool = False  # the router reads the layer's input, before attention

    @property
    def layout(self) -> str:
        """The Hugging Face model_type whose files this shape is saved as."""
        return "llama" if not self.experts else "smallthinker" if self.early_router else "qwen3_moe"


@dataclass(frozen=True)
class DataPlan:
    """shares: of the training windows, by source; they need not add up to one."""

    held_out_percent: float = 3.0
    snippet_share: float = 0.5  # of the windows of code begin with <|bos|> and a top-level statement
    shares: dict[str, float] = field(default_factory=lambda: {"stdlib": 1.0})
    tasks: int = 60_000  # generated examples
    own: int = 1_000_000  # tokens that the teacher writes, for the share "own"
    chats: bool = True  # whether what learns the tasks carries the chat format; `base` completes, so that it must not
    loss_on: str = "all"  # or "answers": what the assistant says, nothing else


@dataclass(frozen=True)
class TrainPlan:
    steps: int
    lr: float
    batch_tokens: int = 8192
    window: int = 256  # tokens of a training window, at most the context
    long_share: float = 0.15  # of the steps, at the end, take windows of the whole context
    optimiser: str = "muon"  # for the matrices of the layers, adamw for the rest; or "adamw" for all
    final_lr_share: float = 0.02
    warmup_steps: int = 50
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    dropout: float = 0.0
    seed: int = 20
    eval_every: int = 100
    balance: float = 1e-3  # weight of the loss that spreads tokens over experts: weak, so that experts differ
    zeros: float = 0.9  # of a relu gate, wanted; below it a loss on the active ones pulls
    zeros_pull: float = 0.0  # how hard
    zeros_skew: float = 0.0  # 0: on all neurons alike; 1: from not at all on the first to doubly on the last
    four_bits: float = 0.0  # of the steps, at the end, see matrices as INT4 would hold them, in groups of 32
    start: str = ""  # a member whose weights it begins with
    teacher: str = ""  # a member whose distribution is learnt too
    teacher_share: float = 0.5  # of the loss


@dataclass(frozen=True)
class Recipe:
    name: str
    kind: Kind
    model: ModelShape
    data: DataPlan
    train: TrainPlan

    def changed(self, table: str, **values: Any) -> "Recipe":
        """A copy with some settings of one table replaced."""
        old = getattr(self, table)
        return dataclasses.replace(self, **{table: dataclasses.replace(old, **values)})


def members() -> list[str]:
    """The names of the recipes that travel with the package."""
    return sorted(file.stem for file in CONFIGS.glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """A recipe by its name in train/configs or by a path to a TOML file. Raises BadInput for what does not fit."""
    file = Path(name) if name.endswith(".toml") else CONFIGS / f"{name}.toml"
    if not file.is_file():
        raise BadInput(f"There is no recipe '{name}'. Known: {', '.join(members())}.")
    data = tomllib.loads(file.read_text())
    kind = data.pop("kind", "language")
    if kind not in get_args(Kind):
        raise BadInput(f"{file}: kind must be one of {', '.join(get_args(Kind))} but is '{kind}'.")
    tables: dict[str, Any] = {}
    for table, cls in (("model", ModelShape), ("data", DataPlan), ("train", TrainPlan)):
        fields = dataclasses.fields(cls)
        needed = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
        given = data.pop(table, {})
        if odd := (given.keys() - {f.name for f in fields}) | (needed - given.keys()):
            raise BadInput(f"{file}: table [{table}] has unknown or missing settings: {', '.join(sorted(odd))}.")
        tables[table] = cls(**given)
    if data:
        raise BadInput(f"{file} has unknown tables or settings: {', '.join(sorted(data))}.")
    if odd := tables["data"].shares.keys() - set(SOURCES):
        raise BadInput(f"{file}: there is no text called {', '.join(sorted(odd))}. Known: {', '.join(SOURCES)}.")
    return Recipe(file.stem, kind, **tables)
