"""`edgewise train` (or `python -m edgewise.train`): the family of small models, from text to files.

edgewise train draft                       # prepare the text if need be, train, report; a GPU when there is one
edgewise train moe --steps 200 --resume    # stop it whenever you like, go on with --resume
edgewise train base --bf16 --compile       # on a CPU with avx512_bf16
edgewise train l --smoke                   # the whole way in seconds, with a tiny model
edgewise train prepare                     # the text alone; --packages reads installed ones too
edgewise train medusa MODEL                # heads that draft for a model; --help tells the rest
edgewise train predictor FOLDER            # who will fire in a relu model; --help tells the rest
edgewise train eval moe                    # what the member is good for, in figures
edgewise train report base                 # bits per byte and samples, again
edgewise train export draft --to FILE.gguf # or --to FOLDER
edgewise train losses --to PICTURE.svg     # the held-out losses of everything that was trained here
edgewise train all --minutes 25 --to kept  # everybody in turn, for half an hour on a GPU; --resume goes on
"""

import argparse
import copy
import signal
import sys
from pathlib import Path

import torch

from edgewise.base import BadInput, EdgewiseError
from edgewise.train import work
from edgewise.train.corpus import stdlib_folder
from edgewise.train.drafters import DRAFTERS
from edgewise.train.picture import held_out_losses
from edgewise.train.recipe import OWN, Recipe, load_recipe, members

VERBS = ("prepare", "eval", "report", "export")
# Of the minutes of `all`; base first, for it teaches draft; moe-pre goes on from moe.
SHARES = {"base": 8, "draft": 3, "moe": 4, "sparse": 3, "s": 1, "m": 2, "l": 3, "moe-pre": 3, "enc": 1}
SMOKE_CORPUS = "json"  # the one package of the library that --smoke reads


def smoke(recipe: Recipe) -> Recipe:
    """The recipe shrunk until a CPU finishes it in seconds."""
    shape = {
        "vocab": 512,
        "dim": 64,
        "layers": 2,
        "heads": 2,
        "kv_heads": 1 if recipe.kind == "language" else 2,
        "head_dim": 32,
        "ffn_dim": 128 if not recipe.model.experts else 32,
        "context": 64,
    }
    small = recipe.changed("model", **shape)
    shares = {name: share for name, share in recipe.data.shares.items() if name not in ("packages", OWN)}
    small = small.changed("data", held_out_percent=25.0, tasks=60, shares=shares)
    return small.changed(
        "train", steps=min(12, recipe.train.steps), batch_tokens=256, window=32, warmup_steps=3, eval_every=6
    )


def parser() -> argparse.ArgumentParser:
    it = argparse.ArgumentParser(
        "edgewise train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("words", nargs="+", metavar="NAME", help=f"a member ({', '.join(members())}) or a TOML file; "
                    f"before it perhaps one of {', '.join(VERBS)}; or all, or losses")  # fmt: skip
    it.add_argument("--corpus", type=Path, help="the folder to read (default: this interpreter's standard library)")
    it.add_argument("--packages", action="store_true", help="prepare: read installed packages, permissive ones only")
    it.add_argument("--lock", type=Path, help="prepare: the corpus.json of an earlier run; refuse any other text")
    it.add_argument("--data", type=Path, help="prepared arrays (default: build-train/data; made when missing)")
    it.add_argument("--out", type=Path, help="where the result goes (default: build-train/NAME)")
    it.add_argument("--to", type=Path, help="a GGUF file or a folder to write (export; and after training, when given)")
    it.add_argument("--start", type=Path, help="begin with the weights of this folder or GGUF file")
    it.add_argument("--steps", type=int, help="instead of the recipe's")
    it.add_argument("--minutes", type=float, help="limit of wall time; the learning rate falls with it")
    it.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda when there is one")
    it.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one number of [train]")
    it.add_argument("--eager", action="store_true", help="do not compile the step (a GPU's default is to compile)")
    it.add_argument("--compile", action="store_true", help="compile the step on a CPU too (needs a C++ compiler)")
    it.add_argument("--bf16", action="store_true", help="bfloat16 products on a CPU too (pays with avx512_bf16 or amx)")
    it.add_argument("--resume", action="store_true", help="go on from OUT/state.pt")
    it.add_argument("--smoke", action="store_true", help="a tiny model on a tiny corpus, in seconds")
    it.add_argument("--count", type=int, default=20, help="eval: questions a level, functions, prompts (default: 20)")
    it.add_argument("--json", action="store_true", help="eval: as JSON")
    it.add_argument("--xz-after-reading", action="store_true", help="report: also xz with the training text before it")
    return it


def as_number(like: object, text: str) -> object:
    """`text` as the type of `like`."""
    return int(float(text)) if isinstance(like, int) else float(text) if isinstance(like, float) else text


def chosen(args: argparse.Namespace) -> tuple[str, Recipe]:
    """What to do, and with which recipe."""
    words = list(args.words)
    verb = words.pop(0) if words[0] in VERBS else "train"
    if len(words) > 1 or (not words and verb != "prepare"):
        raise BadInput(f"Name one member: {', '.join(members())}.")
    recipe = load_recipe(words[0] if words else "base")
    for item in args.set:
        key, _, value = item.partition("=")
        if not hasattr(recipe.train, key):
            raise BadInput(f"[train] has no setting '{key}'.")
        recipe = recipe.changed("train", **{key: as_number(getattr(recipe.train, key), value)})
    if args.steps is not None:
        recipe = recipe.changed("train", steps=args.steps)
    return verb, smoke(recipe) if args.smoke else recipe


def run(argv: list[str]) -> None:
    if argv and argv[0] in DRAFTERS:
        DRAFTERS[argv[0]](argv[1:])
        return
    if argv and argv[0] == "predictor":
        from edgewise.train.predictor import main as predictor

        predictor(argv[1:])
        return
    args = parser().parse_args(argv)
    if args.words == ["losses"]:
        runs, to = args.out or Path("build-train"), args.to or Path("losses.svg")
        to.write_text(held_out_losses(runs))
        print(to)
        return
    if args.words != ["all"]:
        one(args)
        return
    if args.minutes is None or args.out or args.start:
        raise BadInput("'all' wants --minutes, and every member its own folder: no --out, no --start.")
    for name, share in SHARES.items():
        mine = copy.copy(args)
        out = Path(f"build-train/{name}{'-smoke' if args.smoke else ''}")
        if args.resume and (out / "report.md").is_file():
            continue
        mine.words, mine.minutes = [name], args.minutes * share / sum(SHARES.values())
        mine.resume = args.resume and (out / "state.pt").is_file()
        mine.to = args.to / name if args.to else None
        print(f"{name}: {mine.minutes:.1f} minutes", flush=True)
        one(mine)


def one(args: argparse.Namespace) -> None:
    """What the arguments say of one member."""
    verb, recipe = chosen(args)
    suffix = "-smoke" if args.smoke else ""
    corpus = args.corpus or (stdlib_folder() / SMOKE_CORPUS if args.smoke else stdlib_folder())
    device = args.device or ("cuda" if torch.cuda.is_available() and not args.smoke else "cpu")
    place = work.Place(
        data=args.data or Path(f"build-train/data{suffix}"), out=args.out or Path(f"build-train/{recipe.name}{suffix}"),
        corpus=corpus, device=device, bf16=args.bf16 or device == "cuda", smoke=args.smoke,
    )  # fmt: skip
    if verb == "prepare" or not (place.data / "corpus.json").is_file():
        packages = args.packages or "packages" in recipe.data.shares
        work.prepare(recipe, place, packages=packages, lock=args.lock)
    if verb == "train":
        stopped: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda got, frame: stopped.append(got))
        work.train(
            recipe, place, minutes=args.minutes, resume=args.resume, start=args.start,
            compiled=args.compile or (device == "cuda" and not args.eager and not recipe.model.experts),
            go_on=lambda step: not stopped,
        )  # fmt: skip
    if verb in ("train", "report"):
        work.report(recipe, place, fair_xz=args.xz_after_reading)
    if verb == "eval":
        work.evaluate(recipe, place, count=args.count, as_json=args.json)
    if verb == "export" or args.to:
        work.export(recipe, place, args.to)


def main() -> int:
    try:
        run(sys.argv[1:])
    except EdgewiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
