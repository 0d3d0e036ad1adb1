"""The loop: Muon or AdamW under a cosine schedule, held-out loss now and then, the best weights kept, resumable.

A step depends on (recipe, step number, weights) alone: batches and dropout are seeded by the step. So a run that was
stopped and resumed ends with the same weights as one that was not, on one machine and device.

`fit` trains any module under any objective; `train` is `fit` for a member of the family.
"""

import csv
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgewise.base import BadInput
from edgewise.train.dataset import Data, Sampler, held_out_windows
from edgewise.train.hf import save_hf
from edgewise.train.model import Transformer
from edgewise.train.objectives import Objective, next_token
from edgewise.train.picture import curves
from edgewise.train.recipe import Recipe, TrainPlan

STATE = "state.pt"
SAVE_SECONDS = 60  # at most this much work is lost when the machine goes away


@dataclass
class Result:
    steps: int
    best_loss: float  # nats a token, held out
    best_step: int
    tokens: int
    seconds: float
    log: list[dict[str, float]] = field(default_factory=list)


def learning_rate(done: float, step: int, plan: TrainPlan) -> float:
    """Linear warm-up over the first steps, then a cosine over `done` in [0, 1] down to a share of the peak."""
    warm = min(1.0, (step + 1) / max(1, plan.warmup_steps))
    cosine = plan.final_lr_share + (1 - plan.final_lr_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return plan.lr * warm * cosine


def optimisers_of(
    model: nn.Module, plan: TrainPlan, device: str, rates: Callable[[str], float] = lambda name: 1.0
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the layers' matrices. Matrices decay, vectors do not; one rate fits both.

    rates: of a parameter's name its own rate, beside the plan's; AdamW's groups carry it as "share".

    Paper of Muon: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the scaling of its steps to AdamW's
    size: Liu et al. 2025, https://arxiv.org/abs/2502.16982
    """
    if plan.optimiser not in ("adamw", "muon"):
        raise BadInput(f"optimiser must be 'adamw' or 'muon' but is '{plan.optimiser}'.")
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    inner = [p for name, p in named if p.ndim == 2 and "embed" not in name and plan.optimiser == "muon"]
    ours = {id(p) for p in inner}
    left = [(rates(name), p) for name, p in named if id(p) not in ours]
    built: list[torch.optim.Optimizer] = []
    if inner:
        built.append(
            torch.optim.Muon(inner, lr=plan.lr, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    groups = []
    for share in sorted({share for share, _ in left} or {1.0}):
        matrices, vectors = ([p for its, p in left if its == share and (p.ndim >= 2) == wide] for wide in (True, False))
        groups.append({"params": matrices, "weight_decay": plan.weight_decay, "share": share})
        groups.append({"params": vectors, "weight_decay": 0.0, "share": share})
    betas = (plan.beta1, plan.beta2)
    return [*built, torch.optim.AdamW(groups, lr=plan.lr, betas=betas, eps=1e-9, fused=device == "cuda")]


@torch.no_grad()
def held_out_loss(model: Transformer, windows: tuple[Tensor, Tensor], device: str, bf16: bool = False) -> float:
    """Mean cost in nats of a held-out token over windows as `held_out_windows` makes them."""
    rows = max(1, 16_384 // windows[0].shape[1])
    total, count = 0.0, 0
    was_training = model.training
    model.eval()
    for begin in range(0, len(windows[0]), rows):
        inputs, targets = windows[0][begin : begin + rows], windows[1][begin : begin + rows]
        with precision(device, bf16):
            total += model.loss(inputs.to(device), targets.to(device), "sum").item()
        count += int((targets >= 0).sum())
    model.train(was_training)
    return total / max(1, count)


def precision(device: str, bf16: bool) -> Any:
    """A context in which products are bfloat16, or, without `bf16`, everything float32."""
    return torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()


@torch.no_grad()
def four_bits(weight: Tensor, group: int = 32) -> Tensor:
    """What is left of a matrix in INT4, symmetric, a scale a group of columns: the extreme of each becomes -8."""
    x = weight.reshape(len(weight), -1, group)
    extreme = x.gather(-1, x.abs().argmax(-1, keepdim=True))
    scale = extreme / -8
    steps = torch.where(scale == 0, 0, x / torch.where(scale == 0, 1, scale)).round().clamp(-8, 7)
    return (steps * scale).reshape(weight.shape)


@contextmanager
def narrowed(model: nn.Module, yes: bool) -> Iterator[None]:
    """Inside, matrices are rounded to four bits, so that gradients are those of what INT4 will compute.

    The steps are then taken by the weights as they were (the straight-through estimator: Jacob et al. 2017, section 3,
    https://arxiv.org/abs/1712.05877).
    """
    wide = [(p, p.detach().clone()) for p in model.parameters() if yes and p.requires_grad and p.ndim == 2]
    try:
        for p, _ in wide:
            if p.shape[1] % 32 == 0:
                p.data.copy_(four_bits(p.data))
        yield
    finally:
        for p, was in wide:
            p.data.copy_(was)


@contextmanager
def progress(total: int, quiet: bool) -> Iterator[Any]:
    """A function (step, text) that shows where we are: a rich bar on a terminal, now and then a line elsewhere."""
    if quiet:
        yield lambda step, text, log: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console()
    if not console.is_terminal:
        yield lambda step, text, log: print(f"step {step}/{total}  {text}", flush=True) if log else None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda step, text, log: bar.update(task, completed=step, description=text)


def fit(
    model: nn.Module,
    plan: TrainPlan,
    out: Path,
    *,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    objective: Objective,
    held_out: Callable[[int], float],
    save: Callable[[dict[str, Tensor]], None],
    identity: dict[str, Any],
    device: str = "cpu",
    minutes: float | None = None,
    resume: bool = False,
    bf16: bool = False,
    go_on: Callable[[int], bool] = lambda step: True,
    rates: Callable[[str], float] = lambda name: 1.0,
    watch: Callable[[], dict[str, float]] = dict,
    quiet: bool = False,
) -> Result:
    """Trains the parameters of `model` that want a gradient; leaves log.csv, loss.svg, result.json, state.pt in `out`.

    batches, held_out: of a step number (held_out: nats, lower is better). save: gets the best weights whenever state.pt
    is written. identity: what must be equal for a run to be resumed. rates: of a parameter's name its rate beside the
    plan's. watch: what else log.csv tells whenever the held-out loss is measured. `minutes` limits the run's wall time;
    the schedule then ends with the time, if the steps do not end before. `go_on(step)` is asked before each step; a no
    leaves the run as it is, to be resumed. Raises BadInput when `resume` finds nothing or another run.
    """
    begun = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    optimisers = optimisers_of(model, plan, device, rates)
    result = Result(0, math.inf, 0, 0, 0.0)
    best: dict[str, Tensor] = {}
    running, counted = torch.zeros((), device=device), 0
    if resume:
        if not (out / STATE).is_file():
            raise BadInput(f"{out} has no {STATE} to resume from. Start without --resume.")
        state = torch.load(out / STATE, map_location=device, weights_only=True)
        if state["recipe"] != identity:
            raise BadInput(f"{out / STATE} belongs to another recipe. Use another --out, or start without --resume.")
        model.load_state_dict(state["model"])
        for optimiser, old in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(old)
        result, best = Result(**state["result"]), state["best"]
        running, counted = state["running"].to(device), state["counted"]
    end = begun + minutes * 60 if minutes is not None else math.inf
    clock = begun  # restarted after the first step, which compiles
    before, saved = result.seconds, begun

    def keep() -> None:
        nonlocal saved
        saved = time.monotonic()
        result.seconds = before + saved - begun
        state = {
            "recipe": identity, "model": model.state_dict(), "result": asdict(result), "best": best,
            "optimisers": [optimiser.state_dict() for optimiser in optimisers], "running": running, "counted": counted,
        }  # fmt: skip
        torch.save(state, out / f"{STATE}.part")
        (out / f"{STATE}.part").replace(out / STATE)
        (out / "result.json").write_text(json.dumps(asdict(result) | {"log": None, "bf16": bf16}, indent=2) + "\n")
        save(best or model.state_dict())

    with progress(plan.steps, quiet) as show:
        first = result.steps
        while result.steps < plan.steps and time.monotonic() < end and go_on(result.steps):
            step = result.steps
            share = (time.monotonic() - clock) / (end - clock) if minutes is not None else 0.0
            rate = learning_rate(max(step / plan.steps, share), step, plan)
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = rate * group.get("share", 1.0)
                optimiser.zero_grad(set_to_none=True)
            torch.manual_seed(plan.seed + 1_000_003 * (step + 1))  # dropout of this step
            inputs, targets = batches(step)
            with narrowed(model, max(step / plan.steps, share) >= 1 - plan.four_bits):
                with precision(device, bf16):
                    loss = objective(inputs, targets)
                loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
            for optimiser in optimisers:
                optimiser.step()
            running, counted = running + loss.detach(), counted + 1
            result.steps += 1
            result.tokens += inputs.numel()
            if step == first:
                clock = time.monotonic()
            last = result.steps == plan.steps or time.monotonic() >= end
            if result.steps % plan.eval_every == 0 or last:
                row = {
                    "step": float(result.steps),
                    "train_loss": (running / counted).item(),
                    "held_out_loss": held_out(step),
                    "lr": rate,
                    "seconds": before + time.monotonic() - begun,
                } | watch()
                running, counted = torch.zeros((), device=device), 0
                result.log.append(row)
                if row["held_out_loss"] < result.best_loss:
                    result.best_loss, result.best_step = row["held_out_loss"], result.steps
                    best = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
                told = {"train": row["train_loss"], "held out": row["held_out_loss"]} | dict(list(row.items())[5:])
                text = "  ".join(f"{name} {value:.3f}" for name, value in told.items()) + f"  {row['seconds']:.0f} s"
                show(result.steps, text, True)
                keep()
                _write_log(result, out)
            else:
                show(result.steps, f"lr {rate:.1e}", False)
                if time.monotonic() - saved > SAVE_SECONDS:
                    keep()
    keep()
    return result


def train(
    recipe: Recipe,
    data: Data,
    out: Path,
    *,
    device: str = "cpu",
    compiled: bool = False,
    bf16: bool = False,
    teacher: Transformer | None = None,
    start: dict[str, Tensor] | None = None,
    examples: tuple[Tensor, Tensor] | None = None,
    **how: Any,
) -> Result:
    """Trains a language model of the family and leaves in `out`, beside what `fit` does: model/ (the best weights).

    teacher: whose distribution is learnt too. start: weights to begin with instead of random ones, where names and
    shapes agree. examples: held-out rows to measure on instead of the library's held-out text. how: as for `fit`.
    """
    plan, shape = recipe.train, recipe.model
    torch.manual_seed(plan.seed)
    torch.set_float32_matmul_precision("high")
    model = Transformer(shape, plan.dropout).to(device)
    if start is not None:
        own = model.state_dict()
        fits = {name: value for name, value in start.items() if name in own and own[name].shape == value.shape}
        if not fits:
            raise BadInput("The weights to start with have nothing in common with this model. Start without them.")
        model.load_state_dict(fits, strict=False)
    if teacher is not None:
        teacher = teacher.to(device).eval()
    sampler = Sampler(data, recipe, device)
    # Always the whole context: a loss over short windows says nothing about one over long ones, and the best is kept.
    windows = examples or held_out_windows(data.held_out, shape.context, shape.context)
    objective = next_token(model, recipe, teacher)
    return fit(
        model, plan, out, batches=sampler, identity=asdict(recipe), device=device, bf16=bf16,
        objective=torch.compile(objective, dynamic=False) if compiled else objective,
        held_out=lambda step: held_out_loss(model, windows, device, bf16),
        save=lambda best: save_hf(best, shape, out / "model", bos=data.bos, eos=data.eos), **how,
    )  # fmt: skip


def _write_log(result: Result, out: Path) -> None:
    """log.csv and loss.svg."""
    with (out / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, result.log[0].keys())
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in result.log)
    lines = {label: [(row["step"], row[key]) for row in result.log]
             for key, label in (("train_loss", "training"), ("held_out_loss", "held out"))}  # fmt: skip
    (out / "loss.svg").write_text(curves(lines, across="step", up="nats per token"))
