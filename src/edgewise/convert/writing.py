"""Writes a described model as a GGUF file or a Hugging Face directory: formats chosen, room checked, then streamed."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from edgewise.base import Unsupported
from edgewise.convert.float8 import float8_settings, float8_tensors
from edgewise.convert.gguf_writer import NewTensor, gguf_bytes, write_gguf
from edgewise.convert.mixes import Mix, choose, choose_own, fitting
from edgewise.convert.outputs import check_output, new_file, new_folder
from edgewise.convert.quantisers.api import Quantiser
from edgewise.convert.quantising import Narrowing
from edgewise.convert.rows import Rows
from edgewise.convert.safetensors_writer import DTYPES, is_own, packing, write_safetensors
from edgewise.kernels.formats import FLOAT8
from edgewise.weights.api import TensorInfo

# (bytes written, bytes in all) → nothing; called often
Watch = Callable[[int, int], None]
# (tensors to write, their formats) → how to narrow them
Learn = Callable[[Mapping[str, Rows], Mapping[str, str]], Narrowing]


@dataclass(frozen=True)
class Order:
    """How to write. mix: None keeps the stored formats. inputs: files and folders that must not be overwritten."""

    path: Path
    quantiser: Quantiser
    mix: Mix | None = None
    force: bool = False
    watch: Watch | None = None
    inputs: tuple[Path, ...] = ()
    pure: bool = False  # every matrix in the mix's usual format
    chosen: Mapping[str, str] = field(default_factory=dict)  # formats of single tensors, whatever the mix says


@dataclass(frozen=True)
class Written:
    path: Path
    nbytes: int
    formats: Mapping[str, int]  # format → weights stored in it
    notices: list[str] = field(default_factory=list)


def gguf_formats(tensors: Mapping[str, Rows], order: Order, layers: int) -> tuple[dict[str, str], list[str]]:
    """Tensor → format, and what to tell about it."""
    tied = "output.weight" not in tensors
    notices: list[str] = []
    meant = {rows.format for rows in tensors.values()} if order.mix is None else {order.mix.usual}
    own = sorted(filter(is_own, meant))
    if own:
        raise Unsupported(
            f"GGUF has no {own[0]}. Write a folder (--to safetensors), which edgewise reads, or take a GGUF format."
        )
    if order.mix is None:
        kept = {name: rows.format for name, rows in tensors.items()}
        return {n: "F32" if len(tensors[n].shape) < 2 and fmt in DTYPES else fmt for n, fmt in kept.items()}, notices
    mix = Mix(order.mix.usual, file_type=order.mix.file_type) if order.pure else order.mix
    chosen = {name: choose(mix, name, rows.shape, layers=layers, tied=tied) for name, rows in tensors.items()}
    chosen |= {name: fitting(fmt, tensors[name].shape[-1]) for name, fmt in order.chosen.items() if name in chosen}
    wanted = {*order.chosen.values(), mix.usual, mix.head, mix.better, "F32"}
    odd = {name: fmt for name, fmt in chosen.items() if fmt not in wanted}
    if odd:
        name = next(iter(odd))
        instead = " or ".join(sorted(set(odd.values())))
        notices.append(
            f"{len(odd)} of {len(chosen)} tensors are {instead} instead: their rows are no whole blocks of the format "
            f"meant for them ({name} has {tensors[name].shape[-1]} columns)."
        )
    narrowed = {r.format for n, r in tensors.items() if r.format not in DTYPES and chosen[n] != r.format}
    if narrowed:
        notices.append(
            f"The source is already quantised ({', '.join(sorted(narrowed))}); the errors of both formats add up. "
            "Convert from the original weights where you can."
        )
    return chosen, notices


def save_gguf(
    metadata: Mapping[str, Any], tensors: Mapping[str, Rows], order: Order, layers: int, learn: Learn | None = None
) -> Written:
    """One file, whole or absent. learn: what is known of the tensors' inputs, once their formats are chosen."""
    if order.mix is not None and order.mix.usual in FLOAT8:
        raise Unsupported("GGUF has no FP8. Write a folder of safetensors (--to safetensors), or choose q8_0.")
    chosen, notices = gguf_formats(tensors, order, layers)
    narrowing = Narrowing(order.quantiser) if learn is None else learn(tensors, chosen)
    new = narrowing.tensors(tensors, chosen)
    total = gguf_bytes(metadata, new)
    with narrowing.kept():
        missing = narrowing.missing(new)
        work = total + sum(tensor.nbytes for tensor in missing)
        check_output(order.path, work, force=order.force, folder=False, inputs=order.inputs)
        progress = counting(order.watch, work)
        for tensor in missing:
            narrowing.make(tensor, progress)
        with new_file(order.path) as file:
            write_gguf(file, metadata, new, progress)
    return Written(order.path, total, census(new), notices)


def safetensors_formats(tensors: Mapping[str, Rows], order: Order, floats: Collection[str]) -> dict[str, str]:
    """Tensor → format. floats: matrices that our own formats leave alone, routers for one."""
    if order.mix is None:
        return {n: r.format if r.format in DTYPES or is_own(r.format) else "F32" for n, r in tensors.items()}
    usual = order.mix.usual
    if usual in DTYPES:
        return dict.fromkeys(tensors, usual)
    if not is_own(usual):
        raise Unsupported(
            f"A Hugging Face directory cannot hold {usual}; only f32, f16, bf16, fp8 and our own int1, ternary, int2, "
            "int3, int4 and int8. Use --to gguf for it."
        )
    return {
        name: choose_own(usual, rows.shape, rows.format, vector=len(rows.shape) < 2 or name in floats)
        for name, rows in tensors.items()
    }


def save_safetensors(
    config: Mapping[str, Any], tensors: Mapping[str, Rows], order: Order, companions: Callable[[Path], None],
    floats: Collection[str] = (), learn: Learn | None = None,
) -> Written:  # fmt: skip
    """A folder, whole or absent. companions: writes the tokenizer's files into it. floats: see safetensors_formats."""
    if order.mix is not None and order.mix.usual in FLOAT8:
        narrowing = Narrowing(order.quantiser)
        new, packed = float8_tensors(tensors, order.mix.usual), float8_settings(tensors, order.mix.usual)
    else:
        chosen = safetensors_formats(tensors, order, floats)
        narrowing = Narrowing(order.quantiser) if learn is None else learn(tensors, chosen)
        new = narrowing.tensors(tensors, chosen)
        packed = packing(new)
    total = sum(t.nbytes for t in new)
    settings = {key: value for key, value in config.items() if key != "quantization_config"}
    with narrowing.kept():
        missing = narrowing.missing(new)
        work = total + sum(tensor.nbytes for tensor in missing)
        check_output(order.path, work, force=order.force, folder=True, inputs=order.inputs)
        progress = counting(order.watch, work)
        for tensor in missing:
            narrowing.make(tensor, progress)
        with new_folder(order.path) as folder:
            settings |= {} if packed is None else {"quantization_config": packed}
            (folder / "config.json").write_text(json.dumps(settings, indent=1))
            companions(folder)
            write_safetensors(folder, new, progress)
    return Written(order.path, total, census(new))


def counting(watch: Watch | None, total: int) -> Callable[[int], None]:
    """Takes the bytes of each piece, tells `watch` of all so far."""
    done = 0

    def more(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if watch is not None:
            watch(done, total)

    return more


def census(tensors: Iterable[NewTensor | TensorInfo]) -> dict[str, int]:
    """Format → values, the most frequent first."""
    found: Counter[str] = Counter()
    for tensor in tensors:
        found[tensor.format] += prod(tensor.shape)
    return dict(found.most_common())
