"""The four conversions: Hugging Face directory or GGUF file in, either of them out."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from edgewise.base import BadInput, Unsupported
from edgewise.convert.calibrating import Calibration
from edgewise.convert.float8 import stored_tensors
from edgewise.convert.gguf_metadata import QUANTIZATION_VERSION, gguf_metadata, settled
from edgewise.convert.gguf_tokenizer import gguf_tokenizer
from edgewise.convert.hf_config import hf_config, model_type
from edgewise.convert.hf_tokenizer import write_hf_tokenizer
from edgewise.convert.mixes import MIXES, Mix, find_mix
from edgewise.convert.models import Described, as_gguf, describe, gguf_recorder, hf_recorder, rope_factors
from edgewise.convert.pairing import pair
from edgewise.convert.parts import Parts
from edgewise.convert.quantisers import QUANTISERS
from edgewise.convert.quantising import Narrowing, balancing, inputs_of
from edgewise.convert.recording import Recorder
from edgewise.convert.rows import Rows, StoredRows
from edgewise.convert.safetensors_writer import is_own
from edgewise.convert.texts import library_text
from edgewise.convert.writing import Learn, Order, Watch, Written, save_gguf, save_safetensors
from edgewise.kernels.formats import FLOAT8
from edgewise.text import load_tokenizer
from edgewise.weights import bundle, open_checkpoint
from edgewise.weights.api import Checkpoint, Header, Source
from edgewise.weights.sources import SOURCES

CALIBRATION_CHARS = 60_000  # some 15,000 tokens, of which a calibration takes what it needs
TARGETS = ("gguf", "safetensors")
_COMPANIONS = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
    "chat_template.jinja", "added_tokens.json", "vocab.json", "merges.txt",
)  # fmt: skip
_LARGEST_COMPANION = 1 << 27


def target_of(path: Path, to: str | None) -> str:
    """"gguf" or "safetensors": as asked, or by the output's name."""
    if to is None:
        return "gguf" if path.suffix == ".gguf" else "safetensors"
    if to not in TARGETS:
        raise Unsupported(f"There is no target '{to}'. Known: {', '.join(TARGETS)}.")
    return to


def convert(
    model: Path,
    out: Path,
    *,
    to: str | None = None,
    quant: str | None = None,
    quantiser: str = "rtn",
    pure: bool = False,
    force: bool = False,
    watch: Watch | None = None,
    calibrate: str | None = None,
) -> Written:
    """Writes `model` to `out`. quant: a name of convert/mixes.py, None: keep the stored formats.

    calibrate: a text to learn from what the weights' inputs are; None: what Python's own library says, if the quantiser
    is no use without. Everything that can be refused is refused before the first byte is written; what was finished
    when a conversion was interrupted is not done again.
    """
    target = target_of(out, to)
    mix = None if quant is None else find_mix(quant)
    checkpoint = open_checkpoint(model)
    header = checkpoint.header()
    if not checkpoint.names():
        raise BadInput(f"{model} holds a vocabulary but no weights, so there is nothing to convert.")
    folder = (header.folder,) if header.dialect == "hf" else ()
    order = Order(out, QUANTISERS.build(quantiser), mix, force, watch, (*header.files, *folder), pure)
    source: Source = SOURCES.build("file", files=header.files)
    try:
        if header.dialect == "gguf" and target == "gguf":
            return _requantise(checkpoint, source, order, calibrate)
        if header.dialect == "hf" and target == "safetensors":
            return _recast(checkpoint, source, order, calibrate)
        described = describe(checkpoint, source)
        notices: list[str] = []
        if target == "gguf":
            learnt = learn(checkpoint, lambda: (described, gguf_recorder(described)), order, calibrate, notices)
            written = write_as_gguf(described, order, learnt)
        else:
            recorder = hf_recorder(described, model_type(header))
            learnt = learn(checkpoint, lambda: (described, recorder), order, calibrate, notices)
            written = _write_as_hf(described, order, recorder, learnt)
        written.notices.extend(notices)
        if described.unused:
            written.notices.append(
                f"{len(described.unused)} tensors that the language model does not read were left out, "
                f"'{described.unused[0]}' for one."
            )
        return written
    finally:
        source.close()


def learn(
    checkpoint: Checkpoint, described: Callable[[], tuple[Described, Recorder]], order: Order, text: str | None,
    notices: list[str],
) -> Learn:  # fmt: skip
    """How tensors are narrowed: with a calibration where the quantiser has a use for one.

    described: the model, and what it wants of the tensors to be written.
    """
    quantiser = order.quantiser

    def narrowing(tensors: Mapping[str, Rows], chosen: Mapping[str, str]) -> Narrowing:
        stamp = identity(checkpoint.header().files)
        if all(rows.format == chosen[name] for name, rows in tensors.items()):
            return Narrowing(quantiser)
        if quantiser.uses == "nothing" or (text is None and not quantiser.must):
            return Narrowing(quantiser, parts=Parts(order.path, stamp))
        words = text
        if words is None:
            words = library_text(False, CALIBRATION_CHARS)
            notices.append("Calibrated on Python's standard library, for want of a text; --calibrate FILE gives one.")
        tokens = load_tokenizer(checkpoint.header()).encode(words)
        calibration = Calibration(checkpoint, tokens, hessian=quantiser.uses == "hessian")
        model, recorder = described()
        parts = Parts(order.path, f"{stamp} {calibration!r}")
        folding = balancing(quantiser, calibration, recorder, model.spec, tensors, chosen, parts)
        return Narrowing(quantiser, calibration, inputs_of(recorder, model.spec.tied), folding, parts)

    return narrowing


def identity(files: Sequence[Path]) -> str:
    """What tells one state of a checkpoint's files from another."""
    facts = [(str(path.resolve()), (info := path.stat()).st_size, info.st_mtime_ns) for path in files]
    return repr(facts)


def write_as_gguf(model: Described, order: Order, learn: Learn | None = None) -> Written:
    """A Hugging Face model as one GGUF file, tokenizer included."""
    metadata, tensors = gguf_of(model, order.mix)
    return save_gguf(metadata, tensors, order, model.spec.layers, learn)


def gguf_of(model: Described, mix: Mix | None) -> tuple[dict[str, Any], dict[str, Rows]]:
    """Metadata and tensors of the GGUF file that says what a Hugging Face directory does."""
    tensors = as_gguf(model)
    metadata = settled(model.spec, gguf_metadata(model.spec, model.header.name.rsplit("/", 1)[-1],
                                                 mix or _closest(tensors)))
    return metadata | gguf_tokenizer(model.header, model.spec.vocab), tensors


def _closest(tensors: Mapping[str, Rows]) -> Mix | None:
    """The mix that says what most weights are stored in."""
    held: Counter[str] = Counter()
    for rows in tensors.values():
        held[rows.format] += prod(rows.shape)
    most = held.most_common(1)[0][0]
    return next((mix for mix in MIXES.values() if mix.usual == most), None)


def _write_as_hf(model: Described, order: Order, recorder: Recorder, learn: Learn) -> Written:
    header, spec = model.header, model.spec
    dtype = order.mix.usual if order.mix is not None and not is_own(order.mix.usual) else "F32"
    dtype = "BF16" if dtype in FLOAT8 else dtype
    config = hf_config(
        header, spec, biased=model.recorder.has("layers.0.q.bias"), factors=rope_factors(model), dtype=dtype
    )
    return save_safetensors(
        config, pair(model.recorder, recorder, model.tensors), order,
        lambda folder: write_hf_tokenizer(header, folder), routers(recorder), learn,
    )  # fmt: skip


def routers(recorder: Recorder) -> set[str]:
    """Stored names of matrices that choose experts: few weights, and every token hangs on them."""
    return {
        stored for wanted in recorder.wanted if wanted.name.endswith((".router", ".shared_gate"))
        for stored, _ in wanted.places
    }  # fmt: skip


def _requantise(checkpoint: Checkpoint, source: Source, order: Order, text: str | None) -> Written:
    """GGUF to GGUF: names, order and metadata stay; any architecture, known here or not."""
    metadata, tensors = stored_gguf(checkpoint, source)
    if order.mix is not None:
        metadata["general.file_type"] = order.mix.file_type
        metadata["general.quantization_version"] = QUANTIZATION_VERSION
    layers = metadata.get(f"{checkpoint.header().architecture}.block_count")
    notices: list[str] = []
    learnt = learn(checkpoint, lambda: _in_gguf(describe(checkpoint, source)), order, text, notices)
    written = save_gguf(metadata, tensors, order, layers if isinstance(layers, int) else 0, learnt)
    written.notices.extend(notices)
    return written


def _in_gguf(model: Described) -> tuple[Described, Recorder]:
    return model, gguf_recorder(model)


def stored_gguf(checkpoint: Checkpoint, source: Source) -> tuple[dict[str, Any], dict[str, Rows]]:
    """Metadata and tensors of a GGUF file as they are, a split set taken as one."""
    tensors: dict[str, Rows] = {name: StoredRows(checkpoint.info(name), source) for name in checkpoint.names()}
    config = checkpoint.header().config
    return {key: value for key, value in config.items() if not key.startswith("split.")}, tensors


def _recast(checkpoint: Checkpoint, source: Source, order: Order, text: str | None) -> Written:
    """Hugging Face to Hugging Face: the same tensors in another format, one file or shards."""
    header = checkpoint.header()
    tensors = stored_tensors(checkpoint, source)
    config = dict(header.config)
    if order.mix is not None:
        usual = "BF16" if order.mix.usual in FLOAT8 else order.mix.usual
        name = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(usual)
        if name is not None:
            config["dtype" if "dtype" in config else "torch_dtype"] = name
    floats: set[str] = set()
    learnt, notices = None, list[str]()
    if order.mix is not None and is_own(order.mix.usual):
        model = describe(checkpoint, source)
        floats = routers(model.recorder) | set(model.unused)
        learnt = learn(checkpoint, lambda: (model, model.recorder), order, text, notices)
    written = save_safetensors(
        config, tensors, order, lambda folder: copy_companions(header, folder), floats, learnt
    )
    written.notices.extend(notices)
    return written


def copy_companions(header: Header, folder: Path) -> None:
    """The tokenizer's files and what else lies beside the weights."""
    for name in _COMPANIONS:
        path = header.folder / name
        if bundle.exists(path):
            (folder / name).write_bytes(bundle.read_bytes(path, _LARGEST_COMPANION))


