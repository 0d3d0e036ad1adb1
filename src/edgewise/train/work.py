"""What the command does: prepares the text, trains a member, reports, evaluates, exports."""

import argparse
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from edgewise.base import BadInput
from edgewise.convert.converting import convert
from edgewise.embedded import PROMPT, embedded_model
from edgewise.train import chat, dataset, encoder, evaluation, loop, tasks
from edgewise.train import report as reports
from edgewise.train.corpus import gather
from edgewise.train.export import export as export_files
from edgewise.train.export import folder_of, kept_as_gguf, load_model
from edgewise.train.model import Transformer
from edgewise.train.recipe import OWN, Recipe
from edgewise.train.samples import complete
from edgewise.train.tokenizer import EOS, id_of, load_tokenizer, save_tokenizer

PROMPTS = (PROMPT, "import os\n\n\ndef count_lines(path):\n", "class Stack:\n    def __init__(self):\n")

INT4 = ("rtn:clip=True", "hqq", "gptq:act_order=True")  # ways to four bits, in groups of 32


@dataclass(frozen=True)
class Place:
    """Where a run reads and writes, and on what it computes."""

    data: Path
    out: Path
    corpus: Path
    device: str
    bf16: bool
    smoke: bool


def family_tokenizer() -> Tokenizer:
    """The tokenizer inside the embedded model."""
    with folder_of(embedded_model()) as folder:
        return load_tokenizer(folder)


def prepare(recipe: Recipe, place: Place, *, packages: bool, lock: Path | None = None) -> None:
    """Makes the arrays; with `lock`, an earlier run's corpus.json, only from the same text."""
    tokenizer = None if place.smoke else family_tokenizer()
    dataset.prepare(recipe, place.corpus, place.data, tokenizer=tokenizer, packages=packages)
    about = json.loads((place.data / dataset.ABOUT).read_text())
    if lock is not None and (odd := reports.differences(about, json.loads(lock.read_text()))):
        (place.data / dataset.ABOUT).unlink()
        raise BadInput(f"The text is not that of {lock}: {'; '.join(odd)}. Without --lock it is taken as it is.")
    print(json.dumps({key: value for key, value in about.items() if key != "packages"}, indent=2))


def weights_of(name: str, place: Place) -> Path:
    """A trained member: its folder beside this run's, else, for base, the embedded one."""
    folder = place.out.parent / name / "model"
    if folder.is_dir():
        return folder
    if name != "base":
        raise BadInput(f"{folder} is missing: train '{name}' first.")
    return embedded_model()


def member(name: str, place: Place) -> Transformer:
    return load_model(weights_of(name, place))


def own_text(recipe: Recipe, place: Place) -> None:
    """Lets the teacher go on with pieces of the training text, unless this one has: what its pupil will have to guess.

    Learning from the teacher's own output raises acceptance: Zhou et al. 2023, https://arxiv.org/abs/2310.08461
    """
    from edgewise.train.drafters._own_text import BATCH, opened, write  # the engine: nobody else needs it here

    teacher = weights_of(recipe.train.teacher, place)
    whole = hashlib.sha256()
    for file in sorted(teacher.glob("*.safetensors")) if teacher.is_dir() else [teacher]:
        whole.update(file.read_bytes())
    author = f"{recipe.data.own} tokens of {whole.hexdigest()}"
    if json.loads((place.data / dataset.ABOUT).read_text()).get(OWN) == author:
        return
    wanted = argparse.Namespace(
        model=teacher, data=place.data, text=None, tokens=recipe.data.own, threads=None, smoke=False
    )
    dataset.save_own(write(opened(wanted, BATCH), wanted).tokens, author, place.data)


def train(recipe: Recipe, place: Place, *, start: Path | None = None, **how: Any) -> loop.Result:
    """Trains a member and completes its folder: weights, tokenizer, template."""
    if OWN in recipe.data.shares:
        if not recipe.train.teacher:
            raise BadInput(f"The share '{OWN}' is what the teacher writes, but [train] of '{recipe.name}' names none.")
        own_text(recipe, place)
    data, tokenizer = dataset.load(place.data), load_tokenizer(place.data)
    how |= {"device": place.device, "bf16": place.bf16}
    if recipe.kind == "classifier":
        how.pop("compiled")
        result = encoder.train(recipe, place.data, data, place.out, **how)
    else:
        examples = dataset.held_out_examples(tokenizer, recipe.model.context) if on_tasks(recipe) else None
        teacher = teacher_of(recipe, place)
        if start is not None:
            state = load_model(start).state_dict()
        else:
            state = member(recipe.train.start, place).state_dict() if recipe.train.start and not place.smoke else None
        result = loop.train(recipe, data, place.out, teacher=teacher, start=state, examples=examples, **how)
    chats = recipe.data.chats and "tasks" in recipe.data.shares and recipe.kind == "language"
    save_tokenizer(tokenizer, place.out / "model", recipe.model.context, chats=chats)
    done = {"steps": result.steps, "tokens": result.tokens, "seconds": round(result.seconds, 1)}
    print(json.dumps(done | {"best_loss": round(result.best_loss, 4), "best_step": result.best_step}))
    return result


def on_tasks(recipe: Recipe) -> bool:
    """Whether the tasks are the yardstick, not the library."""
    return set(recipe.data.shares) == {"tasks"}


def teacher_of(recipe: Recipe, place: Place) -> Transformer | None:
    if not recipe.train.teacher:
        return None
    if place.smoke:  # nobody of that vocabulary is trained
        torch.manual_seed(0)
        return Transformer(recipe.model)
    return member(recipe.train.teacher, place)


def report(recipe: Recipe, place: Place, *, fair_xz: bool = False) -> None:
    """Prints and saves report.md: bits per byte of the held-out text, and samples."""
    data, tokenizer = dataset.load(place.data), load_tokenizer(place.data)
    lines = []
    if recipe.kind == "classifier":
        lines = encoder.report_lines(place.out, place.data, data)
    else:
        model = load_model(place.out / "model").to(place.device)
        lines = _bits(recipe, place, data, tokenizer, model, fair_xz)
        lines += _replies(tokenizer, model) if on_tasks(recipe) else _completions(recipe, tokenizer, model)
    (place.out / "report.md").write_text("\n".join(lines))
    print("\n".join(lines))


def _bits(
    recipe: Recipe, place: Place, data: dataset.Data, tokenizer: Tokenizer, model: Transformer, fair_xz: bool
) -> list[str]:
    """The held-out library's cost; for what knows the tasks alone, that of the replies to held-out questions."""
    if on_tasks(recipe):
        windows = dataset.held_out_examples(tokenizer, recipe.model.context)
        nats, scored = loop.held_out_loss(model, windows, place.device, place.bf16), int((windows[1] >= 0).sum())
        said = reports.replies(tokenizer)
        figures = reports.compressors(said) | {"this model": reports.bits_per_byte(nats, scored, len(said))}
        figures |= reports.five_gram_of_replies(data.texts["tasks"], tokenizer, recipe.model.vocab, len(said))
        lines = [f"Replies to held-out questions: {nats:.3f} nats per token, {scored} tokens, {len(said)} bytes.", ""]
        lines += ["Compressors see the replies alone, the two models the questions too.", ""]
        return [*lines, reports.table(figures), ""]
    tokens, text = data.held_out, reports.held_out_text(place.data)
    figures = reports.compressors(text) | reports.five_gram(data.texts["stdlib"], recipe.model.vocab, len(text))
    windows = dataset.held_out_windows(tokens, model.shape.context, model.shape.context // 2)
    nats = loop.held_out_loss(model, windows, place.device, place.bf16)
    figures["this model"] = reports.bits_per_byte(nats, len(tokens) - 1, len(text))
    if fair_xz:
        documents, _ = gather(place.corpus, recipe.data.held_out_percent)
        train_text = "".join(d.text for d in documents if not d.held_out).encode("utf-8", "surrogatepass")
        figures["xz -9e that has read the training text"] = reports.after_reading(train_text, text)
    lines = [f"Held out: {nats:.3f} nats per token, {len(tokens)} tokens, {len(text)} bytes.", ""]
    return [*lines, reports.table(figures), ""]


def _completions(recipe: Recipe, tokenizer: Tokenizer, model: Transformer) -> list[str]:
    """What the model makes of a few beginnings, greedy and at temperature 0.8."""
    lines: list[str] = []
    stop = (id_of(tokenizer, EOS),)
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt).ids
        for temperature in (0.0, 0.8):
            new = complete(model, ids, min(96, recipe.model.context), temperature=temperature, seed=1, stop=stop)
            lines += [f"Temperature {temperature}:", "```python", prompt + tokenizer.decode(new), "```", ""]
    return lines


def _replies(tokenizer: Tokenizer, model: Transformer) -> list[str]:
    """One held-out question of each task, and what the model says."""
    lines: list[str] = []
    stop = (id_of(tokenizer, EOS),)
    for task in tasks.TASKS:
        one = tasks.held_out(task, 2, 1)[0]
        new = complete(model, chat.prompt_ids(tokenizer, one), 160, stop=stop)
        said = tokenizer.decode(new, skip_special_tokens=False)
        lines += ["```text", one.question, f"> {said}", f"(right: {one.answer})", "```", ""]
    return lines


def evaluate(recipe: Recipe, place: Place, *, count: int, as_json: bool) -> dict[str, Any]:
    """Prints the figures that fit the member."""
    data, tokenizer = dataset.load(place.data), load_tokenizer(place.data)
    if recipe.kind == "classifier":
        found: dict[str, Any] = {"accuracy": encoder.accuracy(place.out, place.data, data)}
    else:
        found = _language_figures(recipe, place, data, tokenizer, count)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print("\n".join(_shown(found)))
    return found


def _language_figures(
    recipe: Recipe, place: Place, data: dataset.Data, tokenizer: Tokenizer, count: int
) -> dict[str, Any]:
    folder = place.out / "model"
    model = load_model(folder) if folder.is_dir() or recipe.name != "base" else load_model(embedded_model())
    model = model.to(place.device)
    size = min(256, model.shape.context)
    held = data.held_out[: size * max(2, 2 * count)].astype("int64")
    windows = torch.from_numpy(held[: len(held) // size * size].reshape(-1, size)).to(place.device)
    found: dict[str, Any] = {}
    if recipe.model.experts:
        found["routing"] = evaluation.routing(model, windows)
    if recipe.model.act == "relu" and not recipe.model.experts:
        found["sparsity"] = evaluation.sparsity(model, windows)
    if "tasks" in recipe.data.shares:
        found["tasks"] = evaluation.task_accuracy(model, tokenizer, count)
    if not on_tasks(recipe) and not recipe.train.teacher:
        texts = _held_out_files(recipe, place)
        for name, documented in (("completion", False), ("completion_of_documented", True)):
            heads = evaluation.simple_functions(texts, count, documented=documented)
            found[name] = evaluation.completion(model, tokenizer, heads)
    scored = dataset.held_out_examples(tokenizer, size) if on_tasks(recipe) else (windows[:, :-1], windows[:, 1:])
    stored = folder if folder.is_dir() else embedded_model()
    found["int4_perplexity_ratio"] = {way: int4_ratio(model, stored, scored, place, way) for way in INT4}
    teacher = teacher_of(recipe, place)
    if teacher is not None:
        teacher = teacher.to(place.device).eval()
        prompts: Sequence[Sequence[int]] = windows[:count, : size // 2].tolist()
        found["draft"] = evaluation.acceptance(teacher, model, prompts)
        found["draft"]["same_top_token"] = evaluation.agreement(teacher, model, windows)
    return found


def int4_ratio(
    model: Transformer, stored: Path, windows: tuple[torch.Tensor, torch.Tensor], place: Place, method: str
) -> float:
    """Perplexity of these windows with every matrix in four bits, groups of 32, over that of the model as it is."""
    with tempfile.TemporaryDirectory() as temporary, folder_of(stored) as floats:
        narrow, wide = Path(temporary) / "int4", Path(temporary) / "f32"
        convert(floats, narrow, to="safetensors", quant="int4:group=32", quantiser=method)
        convert(narrow, wide, to="safetensors", quant="f32")
        small = load_model(wide).to(place.device)
    costs = [loop.held_out_loss(one, windows, place.device) for one in (small, model)]
    return math.exp(costs[0] - costs[1])


def _held_out_files(recipe: Recipe, place: Place) -> list[str]:
    documents, _ = gather(place.corpus, recipe.data.held_out_percent)
    return [d.text for d in documents if d.held_out]


def _shown(found: dict[str, Any]) -> list[str]:
    """Figures as lines: lists on one line, rounded."""

    def words(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3f}"
        return " ".join(words(part) for part in value) if isinstance(value, list) else str(value)

    lines = []
    for group, figures in found.items():
        if not isinstance(figures, dict):
            lines.append(f"{group}: {words(figures)}")
            continue
        lines.append(f"{group}:")
        lines += [f"  {key}: {words(value)}" for key, value in figures.items() if key != "shown"]
        for one in figures.get("shown", ()):
            lines.append(f"--- {'parses' if one['parses'] else 'does not parse'}\n{one['text']}")
    return lines


def export(recipe: Recipe, place: Place, to: Path | None) -> None:
    """Writes the files to keep, and the card beside them: into `to`, a GGUF file or a folder.

    Without `to`, in the way the family is kept: below the run's folder, as GGUF where that can say what the model is.
    """
    gguf = recipe.kind == "language" and kept_as_gguf(recipe.model)
    target = to or place.out / "kept" / (f"{recipe.name}.gguf" if gguf else "")
    size = export_files(place.out / "model", target, recipe.model, f"edgewise-{recipe.name}")
    print(f"{target}: {size} bytes")
    if (place.out / "report.md").is_file():
        card = reports.model_card(recipe, dataset.load(place.data), place.out, size)
        folder = target if target.is_dir() else target.parent
        (folder / "README.md").write_text(card)
        if (place.out / "loss.svg").is_file():
            shutil.copyfile(place.out / "loss.svg", folder / "loss.svg")
