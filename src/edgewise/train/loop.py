"""The loop: AdamW under a cosine schedule, held-out loss now and then, the best weights kept, resumable at any step.

A step depends on (recipe, step number, weights) alone: batches and dropout are seeded by the step. So a run that was
stopped and resumed ends with the same weights as one that was not, on one machine and device.
"""

import csv
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgewise.base import BadInput
from edgewise.train.dataset import Data, Sampler, held_out_windows
from edgewise.train.model import Llama, save_hf
from edgewise.train.recipe import Recipe

STATE = "state.pt"


@dataclass
class Result:
    steps: int
    best_loss: float  # nats a token, held out
    best_step: int
    tokens: int
    seconds: float
    log: list[dict[str, float]] = field(default_factory=list)


def learning_rate(done: float, step: int, recipe: Recipe) -> float:
    """Linear warm-up over the first steps, then a cosine over `done` in [0, 1] down to a share of the peak."""
    plan = recipe.train
    warm = min(1.0, (step + 1) / max(1, plan.warmup_steps))
    cosine = plan.final_lr_share + (1 - plan.final_lr_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return plan.lr * warm * cosine


def optimiser_of(model: Llama, recipe: Recipe, device: str) -> torch.optim.AdamW:
    """AdamW; matrices decay, norms do not."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    plan = recipe.train
    groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    fused = device == "cuda"
    return torch.optim.AdamW(groups, lr=plan.lr, betas=(plan.beta1, plan.beta2), eps=1e-9, fused=fused)


@torch.no_grad()
def held_out_loss(model: Llama, windows: tuple[Tensor, Tensor], device: str, rows: int = 32) -> float:
    """Mean cost in nats of a held-out token, each predicted once from at least half a context where there is one."""
    total, count = 0.0, 0
    was_training = model.training
    model.eval()
    for inputs, targets in zip(windows[0].split(rows), windows[1].split(rows), strict=True):
        with precision(device):
            total += model.loss(inputs.to(device), targets.to(device), "sum").item()
        count += int((targets >= 0).sum())
    model.train(was_training)
    return total / max(1, count)


def precision(device: str) -> Any:
    """bfloat16 products on a GPU, float32 on a CPU."""
    return torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext()


@contextmanager
def progress(total: int, quiet: bool) -> Iterator[Any]:
    """A function (step, text) that shows where we are: a rich bar on a terminal, now and then a line elsewhere."""
    if quiet:
        yield lambda step, text, log: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console()
        live = console.is_terminal
    except ImportError:
        live = False
    if not live:
        yield lambda step, text, log: print(f"step {step}/{total}  {text}", flush=True) if log else None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda step, text, log: bar.update(task, completed=step, description=text)


def train(
    recipe: Recipe,
    data: Data,
    out: Path,
    *,
    device: str = "cpu",
    minutes: float | None = None,
    resume: bool = False,
    compiled: bool | None = None,
    stop_after: int | None = None,
    quiet: bool = False,
) -> Result:
    """Trains and leaves in `out`: model/ (the best weights, Hugging Face), log.csv, state.pt.

    `minutes` limits the whole run's wall time; the schedule then ends with the time, if the steps do not end before.
    `stop_after` leaves off after that many steps, as an interruption would. Raises BadInput when `resume` finds nothing.
    """
    begun = time.monotonic()
    plan, shape = recipe.train, recipe.model
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    torch.set_float32_matmul_precision("high")
    model = Llama(shape, plan.dropout).to(device)
    optimiser = optimiser_of(model, recipe, device)
    sampler = Sampler(data, shape.context, plan.batch, recipe.data.snippet_share, plan.seed, device)
    windows = held_out_windows(data.held_out, shape.context)
    result = Result(0, math.inf, 0, 0, 0.0)
    best: dict[str, Tensor] = {}
    if resume:
        if not (out / STATE).is_file():
            raise BadInput(f"{out} has no {STATE} to resume from. Start without --resume.")
        state = torch.load(out / STATE, map_location=device, weights_only=True)
        if state["recipe"] != asdict(recipe):
            raise BadInput(f"{out / STATE} belongs to another recipe. Use another --out, or start without --resume.")
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        result, best = Result(**state["result"]), state["best"]
    use_compile = device == "cuda" if compiled is None else compiled
    step_loss = torch.compile(model.loss) if use_compile else model.loss
    end = begun + minutes * 60 if minutes is not None else math.inf
    clock = begun  # restarted after the first step, which compiles
    before = result.seconds
    running, counted = torch.zeros((), device=device), 0

    def save() -> None:
        state = {
            "recipe": asdict(recipe), "model": model.state_dict(), "optimiser": optimiser.state_dict(),
            "result": asdict(result), "best": best,
        }  # fmt: skip
        torch.save(state, out / f"{STATE}.part")
        (out / f"{STATE}.part").replace(out / STATE)

    with progress(plan.steps, quiet) as show:
        first = result.steps
        while result.steps < plan.steps and time.monotonic() < end:
            if stop_after is not None and result.steps - first >= stop_after:
                break
            step = result.steps
            share = (time.monotonic() - clock) / (end - clock) if minutes is not None else 0.0
            rate = learning_rate(max(step / plan.steps, share), step, recipe)
            for group in optimiser.param_groups:
                group["lr"] = rate
            torch.manual_seed(plan.seed + 1_000_003 * (step + 1))  # dropout of this step
            inputs, targets = sampler(step)
            with precision(device):
                loss = step_loss(inputs, targets)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
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
                    "held_out_loss": held_out_loss(model, windows, device),
                    "lr": rate,
                    "seconds": before + time.monotonic() - begun,
                }
                running, counted = torch.zeros((), device=device), 0
                result.log.append(row)
                result.seconds = row["seconds"]
                if row["held_out_loss"] < result.best_loss:
                    result.best_loss, result.best_step = row["held_out_loss"], result.steps
                    best = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
                text = f"train {row['train_loss']:.3f}  held out {row['held_out_loss']:.3f}  {row['seconds']:.0f} s"
                show(result.steps, text, True)
            else:
                show(result.steps, f"lr {rate:.1e}", False)
    result.seconds = before + time.monotonic() - begun
    save()
    _write_log(result, out)
    save_hf(best or model.state_dict(), shape, out / "model", bos=data.bos, eos=data.eos)
    return result


def _write_log(result: Result, out: Path) -> None:
    """log.csv, and loss.png where matplotlib is installed."""
    if not result.log:
        return
    with (out / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, result.log[0].keys())
        writer.writeheader()
        writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in result.log)
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for key, label in (("train_loss", "training (with dropout)"), ("held_out_loss", "held-out files")):
        axes.plot([row["step"] for row in result.log], [row[key] for row in result.log], label=label)
    axes.set(xlabel="step", ylabel="nats per token")
    axes.legend()
    figure.tight_layout()
    figure.savefig(out / "loss.png", dpi=120)
    pyplot.close(figure)
