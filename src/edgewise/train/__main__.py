"""`python -m edgewise.train`: prepares the corpus, trains a recipe, writes the GGUF file that the package carries.

python -m edgewise.train base --minutes 8        # prepare if need be, train, report; a GPU when there is one
python -m edgewise.train base --bf16 --compile   # on a CPU with avx512_bf16; stop it, go on with --resume
python -m edgewise.train base --smoke            # the whole way in seconds, on a CPU, with a tiny model
python -m edgewise.train prepare                 # the corpus alone
python -m edgewise.train export --out build-train/base --to src/edgewise/embedded/base.gguf
"""

import argparse
import json
import signal
import sys
from pathlib import Path

import torch

from edgewise.base import EdgewiseError
from edgewise.embedded import PROMPT
from edgewise.train import dataset, report
from edgewise.train.corpus import gather, stdlib_folder
from edgewise.train.export import export_gguf
from edgewise.train.loop import train
from edgewise.train.model import load_hf
from edgewise.train.recipe import Recipe, load_recipe
from edgewise.train.samples import complete
from edgewise.train.tokenizer import EOS, load_tokenizer

MODEL_VERSION = "0.1"  # of the weights, written into the file
SMOKE_CORPUS = "json"  # the one package that --smoke reads


def smoke(recipe: Recipe) -> Recipe:
    """The recipe shrunk until a CPU finishes it in seconds."""
    shape = {
        "vocab": 512,
        "dim": 64,
        "layers": 2,
        "heads": 2,
        "kv_heads": 1,
        "head_dim": 32,
        "ffn_dim": 128,
        "context": 64,
    }
    small = recipe.changed("model", **shape).changed("data", held_out_percent=25.0)
    return small.changed(
        "train", steps=min(12, recipe.train.steps), batch_tokens=256, window=32, warmup_steps=3, eval_every=6
    )


def parser() -> argparse.ArgumentParser:
    it = argparse.ArgumentParser(
        "python -m edgewise.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("what", help="a recipe of train/configs or a TOML file; or 'prepare', 'export', 'report'")
    it.add_argument("--recipe", default="base", help="the recipe of prepare, export and report (default: base)")
    it.add_argument("--corpus", type=Path, help="the folder to read (default: this interpreter's standard library)")
    it.add_argument("--data", type=Path, help="prepared arrays (default: build-train/data; made when missing)")
    it.add_argument("--out", type=Path, help="where the result goes (default: build-train/RECIPE)")
    it.add_argument("--to", type=Path, help="the GGUF file to write (export; and after training, when given)")
    it.add_argument("--steps", type=int, help="instead of the recipe's")
    it.add_argument("--minutes", type=float, help="limit of wall time; the learning rate falls with it")
    it.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda when there is one")
    it.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one number of [train]")
    it.add_argument("--eager", action="store_true", help="do not compile the step (a GPU's default is to compile)")
    it.add_argument("--compile", action="store_true", help="compile the step on a CPU too (needs a C++ compiler)")
    it.add_argument("--bf16", action="store_true", help="bfloat16 products on a CPU too (pays with avx512_bf16 or amx)")
    it.add_argument("--resume", action="store_true", help="go on from OUT/state.pt")
    it.add_argument("--smoke", action="store_true", help="a tiny model on a tiny corpus, in seconds")
    it.add_argument("--xz-after-reading", action="store_true", help="report: also xz with the training text before it")
    return it


def write_report(
    recipe: Recipe, data_folder: Path, out: Path, corpus: Path, *, device: str, bf16: bool, fair_xz: bool
) -> None:
    """Prints and saves report.md: bits per byte of the held-out text, and samples, greedy and at temperature 0.8."""
    from edgewise.train.loop import held_out_loss

    data, tokenizer = dataset.load(data_folder), load_tokenizer(data_folder)
    model = load_hf(out / "model").to(device)
    windows = dataset.held_out_windows(data.held_out, model.shape.context, model.shape.context // 2)
    nats = held_out_loss(model, windows, device, bf16)
    text = report.held_out_text(data_folder)
    own = report.bits_per_byte(nats, len(data.held_out) - 1, len(text))
    figures = {"this model": own} | report.compressors(text)
    if fair_xz:
        documents, _ = gather(corpus, recipe.data.held_out_percent)
        train_text = "".join(d.text for d in documents if not d.held_out).encode("utf-8", "surrogatepass")
        figures["xz -9e that has read the training text"] = report.after_reading(train_text, text)
    lines = [f"Held out: {nats:.3f} nats per token, {len(data.held_out)} tokens, {len(text)} bytes.", ""]
    lines += [report.table(figures), ""]
    prompts = [PROMPT, "import os\n\n\ndef count_lines(path):\n", "class Stack:\n    def __init__(self):\n"]
    for prompt in prompts:
        ids = tokenizer.encode(prompt).ids
        for temperature in (0.0, 0.8):
            new = complete(model, ids, min(128, recipe.model.context), temperature=temperature, seed=1,
                           stop=tokenizer.token_to_id(EOS))  # fmt: skip
            lines += [f"Temperature {temperature}:", "```python", prompt + tokenizer.decode(new), "```", ""]
    (out / "report.md").write_text("\n".join(lines))
    print("\n".join(lines))


def as_number(like: object, text: str) -> object:
    """`text` as the type of `like`."""
    return int(float(text)) if isinstance(like, int) else float(text) if isinstance(like, float) else text


def run(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    verb = args.what if args.what in ("prepare", "export", "report") else "train"
    recipe = load_recipe(args.recipe if verb != "train" else args.what)
    for item in args.set:
        key, _, value = item.partition("=")
        recipe = recipe.changed("train", **{key: as_number(getattr(recipe.train, key), value)})
    if args.steps is not None:
        recipe = recipe.changed("train", steps=args.steps)
    corpus = args.corpus or stdlib_folder()
    suffix = ""
    if args.smoke:
        recipe, suffix = smoke(recipe), "-smoke"
        corpus = args.corpus or stdlib_folder() / SMOKE_CORPUS
    data_folder = args.data or Path(f"build-train/data{suffix}")
    out = args.out or Path(f"build-train/{recipe.name}{suffix}")
    device = args.device or ("cuda" if torch.cuda.is_available() and not args.smoke else "cpu")
    bf16 = args.bf16 or device == "cuda"
    if verb == "prepare" or not (data_folder / "train.npy").is_file():
        dataset.prepare(recipe, corpus, data_folder)
        print((data_folder / "corpus.json").read_text())
    if verb == "train":
        stopped: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda got, frame: stopped.append(got))
        result = train(
            recipe, dataset.load(data_folder), out, device=device, minutes=args.minutes, resume=args.resume,
            compiled=args.compile or (device == "cuda" and not args.eager), bf16=bf16,
            go_on=lambda step: not stopped,
        )  # fmt: skip
        done = {"steps": result.steps, "tokens": result.tokens, "seconds": round(result.seconds, 1)}
        print(json.dumps(done | {"best_loss": round(result.best_loss, 4), "best_step": result.best_step}))
    if verb in ("train", "report"):
        write_report(recipe, data_folder, out, corpus, device=device, bf16=bf16, fair_xz=args.xz_after_reading)
    if verb == "export" or args.to:
        file = args.to or out / f"{recipe.name}.gguf"
        size = export_gguf(out / "model", data_folder, file, name=f"edgewise-{recipe.name}", version=MODEL_VERSION)
        print(f"{file}: {size} bytes")
        if (out / "report.md").is_file():
            card = report.model_card(recipe, data_folder, out, size)
            (file.parent / "README.md" if args.to else out / "README.md").write_text(card)


def main() -> int:
    try:
        run(sys.argv[1:])
    except EdgewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
