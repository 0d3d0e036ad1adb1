"""`edgewise bench int4`: what few bits cost: bits, method, bytes beside FP16, perplexity beside FP32, decode speed.

Paper:  Shen et al., Efficient LLM Inference on CPUs, 2023, arXiv:2311.00502; GPTQ, AWQ, HQQ (convert/quantisers)
Approximate: it measures how much.
Needs:  a model (by default the embedded one); its weights widened to F32 are the reference
Cost:   a conversion and a pass over the text a row; with gptq some minutes on the embedded model
Status: kept
"""

import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.base import BadInput
from edgewise.serve.hub import locate
from edgewise.serve.options import Json, Threads, read_text, table

BITS = "q4_0,q4_k_s,int4:group=32,int4:group=128,q3_k_s,int3:group=64,q2_k,int2:group=64"
METHODS = "rtn,rtn:clip=True,hqq,awq,gptq:act_order=True"
SKIPPED_CHARS = 60_000  # of the library's held-out part, on which `auto` may measure
TEXT_CHARS = 120_000  # of what follows; with 4,000 tokens a ratio of perplexities is uncertain by some 1 %
DECODED = 64  # tokens of a timed pass
ROUNDS = 5
SHARE, BAR = 0.30, 1.02  # what the paper's bar allows: bytes of FP16, perplexity of FP32


def measure_int4(
    model: Annotated[str | None, typer.Argument(help="folder, GGUF file, or user/repo; none: embedded")] = None,
    bits: Annotated[str, typer.Option("--bits", help="formats, as convert's --quant names them")] = BITS,
    methods: Annotated[str, typer.Option("--methods", help="quantisers, as convert names them")] = METHODS,
    text: Annotated[Path | None, typer.Option("--text", "-f", help="text to score [held-out library files]")] = None,
    calibrate: Annotated[Path | None, typer.Option(help="text to learn from [other library files]")] = None,
    limit: Annotated[int, typer.Option(min=2, help="tokens to score")] = 16384,
    max_loss: Annotated[float, typer.Option(help="what `auto` may lose on its own text; below 0: no auto")] = 0.01,
    picture: Annotated[Path | None, typer.Option(help="an .svg file to draw the table in")] = None,
    state: Annotated[Path | None, typer.Option(help="a folder that keeps what is done, to go on from later")] = None,
    stop_after: Annotated[float | None, typer.Option(min=0.1, help="seconds, about; the same command goes on")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Every format under every method, the whole model in it (embedding and head too), and `--quant auto`.

    The text that is scored is neither what calibration learns from nor what `auto` measures on. All rows are computed
    as they run, with int8 activations. tok/s belongs to the format: decode of random tokens, formats interleaved.
    """
    from edgewise.convert.choosing import QUANTISER, convert_auto, ladder_of
    from edgewise.convert.converting import convert
    from edgewise.convert.mixes import find_mix
    from edgewise.convert.passes import score
    from edgewise.convert.safetensors_writer import is_own
    from edgewise.convert.texts import library_text
    from edgewise.embedded import embedded_model
    from edgewise.text import load_tokenizer
    from edgewise.weights import open_checkpoint

    if picture is not None and picture.suffix.lower() != ".svg":
        raise BadInput(f"{picture}: pictures are SVG here; end the name in .svg.")
    if stop_after is not None and state is None:
        raise BadInput("--stop-after needs --state FOLDER: without it nothing is left to go on from.")
    end = math.inf if stop_after is None else time.perf_counter() + stop_after
    source = embedded_model() if model is None else locate(model)
    learnt = None if calibrate is None else read_text(calibrate)
    words = library_text(True, SKIPPED_CHARS + TEXT_CHARS)[SKIPPED_CHARS:] if text is None else read_text(text)
    tokenizer = load_tokenizer(open_checkpoint(source).header())
    tokens, bos = tokenizer.encode(words)[:limit], tokenizer.bos if tokenizer.add_bos else None
    wanted = [(name, method) for name in split(bits) for method in split(methods)]
    if max_loss >= 0:
        wanted.append(("auto", QUANTISER))

    with nullcontext(str(state)) if state is not None else tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        rows = Rows(folder, f"{source.name}, {len(tokens)} tokens, auto {max_loss:g}")
        whole = folder / "f32.gguf"

        def make(name: str, method: str) -> Path:
            file = folder / (name if name != "auto" and is_own(find_mix(name).usual) else f"{name}.gguf")
            if name == "auto":
                ladder = ladder_of("auto") or ()
                convert_auto(whole, file, ladder, max_loss=max_loss, force=True, calibrate=learnt, tell=say)
            else:
                convert(whole, file, quant=name, quantiser=method, pure=True, force=True, calibrate=learnt)
            return file

        files = {"f32": whole}
        for name, method in [("f32", "-"), *wanted]:
            if (name, method) not in rows:
                if time.perf_counter() > end:
                    break
                say(f"{name} {method}")
                if name == "f32":
                    convert(source, whole, quant="f32", force=True)
                file = whole if name == "f32" else make(name, method)
                checkpoint = open_checkpoint(file)
                nbytes, weights = sizes(checkpoint)
                rows.add(name, method, file, nbytes, weights, score(checkpoint, tokens, bos, 512).perplexity)
            files[name] = rows.file(name, method)
        left = len(wanted) + 1 - sum(pair in rows for pair in [("f32", "-"), *wanted])
        if left:
            print(f"{left} rows are left; the same command goes on")
            return
        speeds = decode_speeds(files, threads)
        found = rows.figures([("f32", "-"), *wanted], speeds)
    if picture is not None:
        picture.write_text(draw(found), encoding="utf-8")
    print(json.dumps(found, indent=1) if as_json else show(found, len(tokens) - 1))


class Rows:
    """What was measured, by format and method; remembered in a folder beside the files it was measured on."""

    def __init__(self, folder: Path, what: str) -> None:
        self.folder = folder
        self.path = folder / "rows.json"
        self.kept: dict[str, Any] = {"what": what, "rows": {}}
        if self.path.exists():
            self.kept = json.loads(self.path.read_text(encoding="utf-8"))
            if self.kept["what"] != what:
                raise BadInput(f"{folder} keeps figures of another run ({self.kept['what']}); name another folder.")
        folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, pair: tuple[str, str]) -> bool:
        return " ".join(pair) in self.kept["rows"]

    def file(self, name: str, method: str) -> Path:
        return self.folder / str(self.kept["rows"][f"{name} {method}"]["file"])

    def add(self, name: str, method: str, file: Path, nbytes: int, weights: int, perplexity: float) -> None:
        self.kept["rows"][f"{name} {method}"] = {
            "format": name, "method": method, "file": file.name, "bits": 8 * nbytes / weights, "bytes": nbytes,
            "of_fp16": nbytes / weights / 2, "perplexity": perplexity,
        }  # fmt: skip
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(self.kept, indent=1), encoding="utf-8")
        os.replace(fresh, self.path)

    def figures(self, pairs: Sequence[tuple[str, str]], speeds: Mapping[str, float]) -> list[dict[str, Any]]:
        """The table; its first row is the reference."""
        rows = [self.kept["rows"][" ".join(pair)] for pair in pairs]
        return [
            {**{key: value for key, value in row.items() if key != "file"},
             "of_fp32": row["perplexity"] / rows[0]["perplexity"], "tok_s": speeds[row["format"]]}
            for row in rows
        ]  # fmt: skip


def split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def say(words: str) -> None:
    if sys.stderr.isatty():
        print(words, file=sys.stderr)


def sizes(checkpoint: Any) -> tuple[int, int]:
    """(bytes, weights) of all tensors."""
    from edgewise.kernels import formats

    infos = [checkpoint.info(name) for name in checkpoint.names()]
    nbytes = sum(info.extent.nbytes for info in infos)
    spec = [formats.find(info.format) for info in infos]
    blocks = [info.extent.nbytes // one.layout.itemsize for info, one in zip(infos, spec, strict=True)]
    return nbytes, sum(count * one.block for count, one in zip(blocks, spec, strict=True))


def decode_speeds(files: dict[str, Path], threads: int | None) -> dict[str, float]:
    """Format → median tok/s of ROUNDS passes, the formats taking turns."""
    import warnings

    from edgewise.serve.llm import LLM
    from edgewise.serve.measure import Stepper

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a format is widened shows in its speed
        llms = {name: LLM(file, threads=threads, ctx_size=DECODED, max_num_seqs=1) for name, file in files.items()}
    steppers = {name: Stepper(llm.parts.engine) for name, llm in llms.items()}
    found: dict[str, list[float]] = {name: [] for name in files}
    for at in range(ROUNDS + 1):
        for name, stepper in steppers.items():
            rate = stepper.decode(DECODED).tok_s
            if at:  # the first is a warm-up
                found[name].append(rate)
    return {name: statistics.median(rates) for name, rates in found.items()}


def show(rows: Sequence[dict[str, Any]], tokens: int) -> str:
    head = ["format", "method", "bits", "bytes", "of FP16", "perplexity", "of FP32", "tok/s"]
    body = [
        [
            r["format"], r["method"], f"{r['bits']:.2f}", f"{r['bytes']:,}", f"{r['of_fp16']:.3f}",
            f"{r['perplexity']:.4f}", f"{r['of_fp32']:.4f}", f"{r['tok_s']:.0f}",
        ]
        for r in rows
    ]  # fmt: skip
    good = [r for r in rows if r["of_fp16"] <= SHARE and r["of_fp32"] <= BAR]
    best = min(good, key=lambda r: r["of_fp32"], default=None)
    said = "no row" if best is None else f"{len(good)} rows, the best {best['format']} {best['method']},"
    lines = [table([head, *body], set(range(2, 8))), f"{tokens} tokens scored; bits and bytes of all tensors."]
    return "\n".join([*lines, f"At most {SHARE} of FP16's bytes and {BAR} of FP32's perplexity: {said} did it."])


def draw(rows: Sequence[dict[str, Any]]) -> str:
    """Loss over bits, a colour a method."""
    from edgewise.serve.scatter import scatter

    series: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        if row["format"] != "f32":
            name = "auto" if row["format"] == "auto" else row["method"]
            loss = max(100 * (row["of_fp32"] - 1), 0.01)
            series.setdefault(name, []).append((row["bits"], loss, "" if name == "auto" else row["format"]))
    return scatter(
        series, "Perplexity lost beside FP32, by format and method", "bits a weight, all tensors", "perplexity lost, %",
        (100 * (BAR - 1), "INT4's bar"),
    )  # fmt: skip
