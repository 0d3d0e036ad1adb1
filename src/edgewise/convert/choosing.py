"""Sets a search for widths up: source, texts, calibration; and writes what it found."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgewise.base import BadInput, Incompatible, Unsupported
from edgewise.convert.auto import LADDER, OWN_LADDER, Row, Search, Tell
from edgewise.convert.calibrating import Calibration
from edgewise.convert.converting import CALIBRATION_CHARS, gguf_of, identity, stored_gguf, target_of
from edgewise.convert.mixes import find_mix
from edgewise.convert.models import describe, gguf_recorder
from edgewise.convert.own_folder import folder_recorder, fused, save_folder
from edgewise.convert.parts import Parts
from edgewise.convert.passes import Loss, score
from edgewise.convert.quantisers import QUANTISERS
from edgewise.convert.quantisers.api import Balancer
from edgewise.convert.quantising import Narrowing, inputs_of
from edgewise.convert.safetensors_writer import DTYPES, is_own
from edgewise.convert.texts import library_text
from edgewise.convert.writing import Order, Watch, Written
from edgewise.kernels import formats
from edgewise.text import load_tokenizer
from edgewise.weights import open_checkpoint
from edgewise.weights.api import Checkpoint
from edgewise.weights.sources import SOURCES

AUTO = "auto"
QUANTISER = "gptq:act_order=True"  # what lost least at 4 bits on the embedded model, see docs/quantising.md
HELD_OUT_TOKENS = 4096
FEWEST_TOKENS = 64  # a share of a percent means nothing over fewer
WINDOW = 512
HELD_SHARE = 0.25  # of a calibration text, its end, when no other text is held out


def ladder_of(quant: str, target: str = "gguf") -> Sequence[str] | None:
    """"auto" or "auto:NAME,NAME" as names of convert/mixes.py, fewest bits first; None for anything else.

    target: "gguf", or "safetensors", which holds our own formats and floats only."""
    name, _, listed = quant.lower().partition(":")
    if name != AUTO:
        return None
    usual = LADDER if target == "gguf" else OWN_LADDER
    names = [one.strip() for one in listed.split(",")] if listed else list(usual)
    formats_of = [find_mix(one).usual for one in names]
    if len({*formats_of}) < len(names):
        raise BadInput(f"'{quant}' names the same format twice.")
    for one, fmt in zip(names, formats_of, strict=True):
        if target == "gguf" and is_own(fmt):
            raise Unsupported(f"GGUF has no {one}. Write a folder (--to safetensors), or take GGUF's formats.")
        if target != "gguf" and not is_own(fmt) and fmt not in DTYPES:
            raise Unsupported(
                f"A folder cannot hold {one}; only f32, f16, bf16 and our own int1 to int8. Write a .gguf file for it."
            )
    return sorted(names, key=lambda one: formats.nbytes(find_mix(one).usual, 256))


def texts(calibrate: str | None, held_out: str | None) -> tuple[str, str]:
    """(to learn from, to measure on), which never overlap: Python's own library where none is given."""
    if calibrate is None:
        return library_text(False, CALIBRATION_CHARS), library_text(True, CALIBRATION_CHARS) \
            if held_out is None else held_out
    if held_out is None:
        cut = calibrate.rfind("\n", 0, int(len(calibrate) * (1 - HELD_SHARE))) + 1 or int(len(calibrate) * 0.75)
        return calibrate[:cut], calibrate[cut:]
    if held_out.strip() in calibrate or calibrate.strip() in held_out:
        raise BadInput("The held-out text is part of the calibration text; it would be measured on what was learnt.")
    return calibrate, held_out


def convert_auto(
    model: Path,
    out: Path,
    ladder: Sequence[str],
    *,
    max_loss: float,
    quantiser: str | None = None,
    calibrate: str | None = None,
    held_out: str | None = None,
    to: str | None = None,
    force: bool = False,
    watch: Watch | None = None,
    tell: Tell = lambda words: None,
) -> tuple[Written, list[Row], Row]:
    """Writes the smallest recipe whose perplexity on the held-out text is at most 1 + max_loss times the source's.

    Returns what was written, every recipe that was measured, and the one that was taken.
    """
    target = target_of(out, to)
    member = QUANTISERS.build(quantiser or QUANTISER)
    if isinstance(member, Balancer):
        raise Incompatible(
            f"--quant auto chooses each matrix's width alone, but {quantiser} scales matrices together. "
            "Take rtn, hqq or gptq."
        )
    if not 0 <= max_loss < 10:
        raise BadInput(f"--max-loss is {max_loss:.2%}; give a share from 0 up, such as 1%.")
    learnt, measured = texts(calibrate, held_out)
    checkpoint = open_checkpoint(model)
    header = checkpoint.header()
    folder = (header.folder,) if header.dialect == "hf" else ()
    source = SOURCES.build("file", files=header.files)
    try:
        described = describe(checkpoint, source)
        metadata, tensors = gguf_of(described, None) if header.dialect == "hf" else stored_gguf(checkpoint, source)
        tokenizer = load_tokenizer(header)
        tokens = tokenizer.encode(measured)[:HELD_OUT_TOKENS]
        if len(tokens) < FEWEST_TOKENS:
            raise BadInput(f"The held-out text has {len(tokens)} tokens; give at least {FEWEST_TOKENS} (--held-out).")
        bos = tokenizer.bos if tokenizer.add_bos else None
        window = min(WINDOW, described.spec.context)

        def measure(one: Checkpoint) -> Loss:
            return score(one, tokens, bos, window)

        calibration = None
        if member.uses != "nothing":
            calibration = Calibration(checkpoint, tokenizer.encode(learnt), hessian=member.uses == "hessian")
        parts = Parts(out, f"{identity(header.files)} {calibration!r}")
        recorder = gguf_recorder(described)
        narrowing = Narrowing(member, calibration, inputs_of(recorder, described.spec.tied), None, parts)
        order = Order(out, member, None, force, watch, (*header.files, *folder))
        folds = target != "gguf"
        search = Search(
            order, metadata, tensors, described.spec.layers, narrowing, parts, measure, f"{tokens} {bos} {window}",
            max_loss, ladder, tell, (lambda made: save_folder(made, described, order)) if folds else None,
            fused(recorder, folder_recorder(described)) if folds else (),
        )  # fmt: skip
        with search.room():
            chosen, row = search.run(checkpoint)
            written = search.save(chosen)
        wider = search.wider(chosen)
        if wider:
            written.notices.append(f"More bits than the fewest: {'; '.join(wider)}.")
        return replace(written, notices=[*written.notices, *_where(calibrate, held_out)]), search.rows, row
    finally:
        source.close()


def _where(calibrate: str | None, held_out: str | None) -> list[str]:
    if held_out is not None:
        return []
    what = "files of Python's standard library that calibration never sees" if calibrate is None \
        else "the last quarter of the calibration text, which was not learnt from"
    return [f"The loss was measured on {what}; --held-out FILE takes another text."]
