"""From a checkpoint to a device: `read_spec` (settings only) and `load_model` (settings, checks, then weights).

A model is built twice. The first time every tensor it asks for is looked up and its shape compared with the settings,
and nothing is read; only when all of it fits together are weights read and packed.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from edgewise.base import BadInput, Unsupported
from edgewise.kernels.api import Array, Device, Filling, Floats, Ints, Place, ReadAt, Weight
from edgewise.kernels.formats import FLOAT8, SPAN
from edgewise.models.api import Model, ModelSpec, Rope
from edgewise.models.configs import Config
from edgewise.models.float8 import Scales, held_as
from edgewise.models.names import Names
from edgewise.models.neuron_stream import NeuronStream
from edgewise.models.ropes import RopeSettings, RopeTable
from edgewise.models.streaming import Stream
from edgewise.models.ternary import PER_BYTE, PackedTernary, is_packed_ternary
from edgewise.weights.api import Checkpoint, Header, Source, TensorInfo
from edgewise.weights.sources import SOURCES

# Tensors some checkpoints carry along that say nothing the settings do not say.
HARMLESS = ("rotary_emb.inv_freq", "rope_freqs.weight", "attn_rot_embd.weight", ".masked_bias")


class CheckpointLoader:
    """Tensors by canonical name (models/names.py). Without a source it only checks, and gives None for everything."""

    def __init__(
        self, checkpoint: Checkpoint, source: Source | None, device: Device, names: Names, float8: str = "bf16",
        stream: Stream | NeuronStream | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.source = source
        self.device = device
        self.names = names
        self.dialect = names.dialect
        self.scales = Scales(checkpoint)
        self.float8 = float8
        self.stream = stream  # takes the weights that need not stay
        self.used: set[str] = set()  # stored names asked for
        self._ropes: dict[RopeSettings, RopeTable] = {}

    def has(self, name: str) -> bool:
        return self.names.find(name) is not None

    def _info(self, name: str, shape: Sequence[int]) -> TensorInfo:
        """The stored tensor, or BadInput when it is missing or of another shape. Dimensions of 1 do not count."""
        stored = self.names.find(name)
        header = self.checkpoint.header()
        if stored is None:
            raise BadInput(
                f"{header.name} has no tensor '{self.names.usual(name)}', which a {header.architecture} model of these "
                "settings needs. The download may be incomplete, or the settings belong to another model."
            )
        self.used.add(stored)
        info = self.checkpoint.info(stored)
        if [n for n in info.shape if n != 1] != [n for n in shape if n != 1]:
            raise BadInput(
                f"Tensor '{stored}' in {header.name} has shape {info.shape} but the settings ask for {tuple(shape)}. "
                "Settings and weights do not belong together."
            )
        if info.format in FLOAT8:
            self.scales.find(info)
            self.used.update(self.scales.beside(stored))
        return info

    def _read(self, info: TensorInfo, first: int, nbytes: int) -> ReadAt:
        def read(offset: int, count: int) -> memoryview:
            if offset + count > nbytes:
                raise BadInput(f"Tensor '{info.name}': bytes beyond its end were asked for.")
            assert self.source is not None
            return self.source.read(info.extent, first + offset, count)

        return read

    def _place(self, info: TensorInfo, first: int, nbytes: int) -> Place | None:
        """Where those bytes lie in a file, when the source has them there as they are."""
        where = getattr(self.source, "place", None)
        place: Place | None = None if where is None else where(info.extent)
        if place is None or first + nbytes > info.extent.nbytes:
            return None
        return place._replace(offset=place.offset + first)

    def weight(self, name: str, shape: tuple[int, ...], rows: Ints | None = None, stored_rows: int = 0) -> Weight:
        """A linear weight (out, in). `rows` picks or permutes rows of the stored tensor, which has `stored_rows` of
        them (0: as many as `shape`); a contiguous run is read by offset, the rest of the tensor is not touched."""
        packed = self._packed(name, (stored_rows or shape[0], shape[-1]))
        if packed is not None:
            return packed.load(self.device, rows) if self.source is not None else None
        info = self._info(name, (stored_rows or shape[0], *shape[1:]))
        return self._part(name, info, shape, rows, 0, stored_rows or shape[0])

    def _packed(self, name: str, shape: tuple[int, int]) -> PackedTernary | None:
        """The weight as BitNet packs it, when the checkpoint has it so."""
        stored, header = self.names.find(name), self.checkpoint.header()
        if stored is None or self.checkpoint.info(stored).format != "U8":
            return None
        if not is_packed_ternary(header.config.get("quantization_config"), header.name):
            return None
        info = self._info(name, (shape[0] // PER_BYTE, shape[1]))
        factor = float(self._values(self._info(f"{name}.scale", (1,)), 1)[0])
        return PackedTernary(info, shape, factor, header, self._read(info, 0, info.extent.nbytes))

    def _part(
        self, name: str, info: TensorInfo, shape: Sequence[int], rows: Ints | None, first: int, of: int
    ) -> Weight:
        """Rows of the matrix `name` that begins `first` bytes into a tensor and has `of` rows in all."""
        if self.source is None:
            return None
        if self.stream is not None and (adopted := self.stream.adopt(name, info, shape, rows, first, of)) is not None:
            return adopted
        row_bytes = info.extent.nbytes // (prod(info.shape) // shape[-1])
        if rows is not None and len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            first, of, rows = first + int(rows[0]) * row_bytes, len(rows), None
        read = self._read(info, first, of * row_bytes)
        return self.device.load(
            (of, shape[-1]), info.format, read, rows, self._place(info, first, of * row_bytes),
            scales=self._scales(info, first // row_bytes, of), into=held_as(info.format, self.float8, shape),
        )

    def _scales(self, info: TensorInfo, first: int, rows: int) -> Floats | None:
        scale = self.scales.find(info)
        if scale is None:
            return None
        return self.scales.spread(info, scale, self._values(scale, prod(scale.shape)), first, rows)

    def vector(self, name: str, length: int, rows: Ints | None = None, plus: float = 0.0) -> Array:
        """A vector on the device: permuted by `rows`, with `plus` added."""
        info = self._info(name, (length,))
        if self.source is None:
            return None
        values = self._values(info, length)
        return self.device.upload((values if rows is None else values[rows]) + np.float32(plus))

    def _values(self, info: TensorInfo, length: int) -> Any:
        if self.source is None:
            return np.ones(length, np.float32)
        # A one-row table looked up by the device itself: any stored format, no second decoder.
        scales = None
        if (scale := self.scales.find(info)) is not None:
            if prod(scale.shape) != 1:
                raise Unsupported(f"Tensor '{scale.name}': FP8 vectors with several scales cannot be read.")
            scales = np.full((1, -(-length // SPAN)), self._values(scale, 1)[0], np.float32)
        table = self.device.load((1, length), info.format, self._read(info, 0, info.extent.nbytes), scales=scales)
        return np.array(self.device.download(self.device.embed(table, np.zeros(1, np.int32))))[0]

    def experts(self, layer: int, part: str, count: int, shape: tuple[int, int]) -> Weight:
        """All experts' `part` (gate, up or down) of a layer, (count, out, in), from whichever layout the file has."""
        rows, _ = shape
        whole = f"layers.{layer}.experts.{part}"
        fused = f"layers.{layer}.experts.gate_up"
        each: list[Weight] = []
        if self.has(whole):
            info = self._info(whole, (count, *shape))
            step = info.extent.nbytes // count
            each = [
                self._part(f"layers.{layer}.expert.{e}.{part}", info, shape, None, e * step, rows)
                for e in range(count)
            ]
        elif part != "down" and self.has(fused):
            info = self._info(fused, (count, 2 * rows, shape[1]))
            step = info.extent.nbytes // count
            half = np.arange(rows, dtype=np.int32) + (rows if part == "up" else 0)
            each = [
                self._part(f"layers.{layer}.expert.{e}.{part}", info, shape, half, e * step, 2 * rows)
                for e in range(count)
            ]
        else:
            for e in range(count):
                each.append(self.weight(f"layers.{layer}.expert.{e}.{part}", shape))
        return None if self.source is None else self.device.experts(each)

    def one_expert(self, name: str, shape: tuple[int, int]) -> Weight:
        """An ordinary linear weight in the form `Device.moe` takes, (1, out, in)."""
        weight = self.weight(name, shape)
        return None if self.source is None else self.device.experts([weight])

    def rope(self, settings: RopeSettings, context: int) -> RopeTable | None:
        """The rotary table of some layers; layers with the same settings share one."""
        if settings not in self._ropes:
            self._ropes[settings] = RopeTable(self.device, self._rope(settings, context), context)
        return None if self.source is None else self._ropes[settings]

    def _rope(self, settings: RopeSettings, context: int) -> Rope:
        """GGUF files keep some kinds' divisors as tensors; hand them to the settings under their usual keys."""
        pairs = settings.columns // 2
        params = dict(settings.params)
        if self.dialect == "gguf":
            for name, key in (("rope_freqs", "factors"), ("rope_short", "short_factor"), ("rope_long", "long_factor")):
                if self.has(name):
                    params[key] = self._values(self._info(name, (pairs,)), pairs)
            if "factors" in params and settings.kind == "default":
                params["rope_type"] = "factors"
            elif "long_factor" in params and settings.kind in ("default", "longrope"):
                params["rope_type"] = "longrope"
        return settings.with_params(params).rope(context)


def member_of(header: Header) -> Any:
    """The architecture's class. Raises Unsupported naming the nearest one."""
    from edgewise.models import MODELS  # the catalog lives in the package, which imports this module

    name = header.architecture
    if header.dialect == "gguf" and name == "llama" and _above_zero(header, "llama.expert_count"):
        name = "mixtral"  # GGUF has one name for the whole family
    elif header.dialect == "gguf" and name == "llama" and _above_zero(header, "llama.attention.sliding_window"):
        name = "mistral"
    return MODELS.load(name)


def _above_zero(header: Header, key: str) -> bool:
    value = header.config.get(key)
    return isinstance(value, int | np.integer) and int(value) > 0


def read_spec(header: Header, context: int | None = None) -> ModelSpec:
    """The shape of a model from its settings alone. Raises BadInput or Unsupported naming the key and its value.

    context: ask for longer sequences than the model was first trained for (dynamic and longrope rotary embeddings).
    """
    member = member_of(header)
    spec: ModelSpec = member.read(Config(header, member.defaults), context)
    return spec


def examine(checkpoint: Checkpoint, context: int | None = None) -> tuple[Any, ModelSpec, Names]:
    """(architecture, shape, tensor names), when settings and tensors fit together. Reads headers only."""
    header = checkpoint.header()
    member = member_of(header)
    overrides = member.gguf_names if header.dialect == "gguf" else member.hf_names
    names = Names(header.dialect, checkpoint.names(), overrides)
    spec = read_spec(header, context)
    spec = replace(spec, **_check(spec, checkpoint, names, Config(header, member.defaults)))
    nowhere: Any = None  # without a source no device is asked for anything
    checker = CheckpointLoader(checkpoint, None, nowhere, names)
    member(spec, checker)
    for name in sorted(set(names.in_layers()) - checker.used):
        if not name.endswith(HARMLESS):
            raise Unsupported(
                f"{header.name} has a tensor '{name}', for which a {header.architecture} model has no use. It must be "
                "a variant that edgewise does not know; leaving the tensor out would give wrong text."
            )
    return member, spec, names


class Loading:
    """Weights on their way onto the device, in a thread of their own. `wait`, or `stop`, before anything else."""

    def __init__(self, filling: Filling, own: Source | None) -> None:
        self._filling = filling
        self._own = own  # closed at the end
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="edgewise-load", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._filling.run()
        except BaseException as error:
            self._error = error
        finally:
            if self._own is not None:
                self._own.close()

    def wait(self) -> None:
        """Returns when every weight is there. Raises BadInput naming file and offset when one could not be read."""
        try:
            self._thread.join()
        except BaseException:  # Ctrl-C
            self.stop()
            raise
        if self._error is not None:
            raise self._error

    def settle(self, nbytes: int) -> bool:
        """kernels.api.Filling's."""
        return self._filling.settle(nbytes)

    def stop(self) -> None:
        """Gives up: the model cannot be used."""
        self._filling.stop()
        self._thread.join()


def begin_model(
    checkpoint: Checkpoint, device: Device, *, source: Source | None = None, context: int | None = None,
    float8: str = "bf16", stream: Stream | NeuronStream | None = None,
) -> tuple[Model, Loading]:
    """Checks settings against tensors and begins to read the weights; other work may be done until `Loading.wait`.

    source: where bytes come from; None: the checkpoint's own files. float8: what FP8 weights are computed as, "bf16"
    (their exact values) or "int8" (narrowed to INT8 in groups of 32). stream: takes the weights that need not stay, and
    is to be opened after `Loading.wait`.
    """
    header = checkpoint.header()
    member, spec, names = examine(checkpoint, context)
    own = SOURCES.build("file", files=header.files) if source is None else source
    try:
        model: Model = member(spec, CheckpointLoader(checkpoint, own, device, names, float8, stream))
        if stream is not None:
            stream.check(sum(checkpoint.info(name).extent.nbytes for name in checkpoint.names()))
        filling = device.filling()
    except BaseException:
        device.filling()  # forgets what was put off
        if source is None:
            own.close()
        raise
    return model, Loading(filling, own if source is None else None)


def load_model(
    checkpoint: Checkpoint, device: Device, *, source: Source | None = None, context: int | None = None,
    float8: str = "bf16",
) -> Model:
    """Checks settings against tensors, then reads the weights onto `device`.

    source: where bytes come from; None: the checkpoint's own files, closed again before this returns.
    """
    model, loading = begin_model(checkpoint, device, source=source, context=context, float8=float8)
    loading.wait()
    return model


def _check(spec: ModelSpec, checkpoint: Checkpoint, names: Names, config: Config) -> dict[str, Any]:
    """What settings and tensors must agree on before anything is built; gives corrections to the spec."""
    present = names.layers()
    if present != spec.layers:
        raise BadInput(
            f"'{config.label('num_hidden_layers')}' in {config.where} is {spec.layers} but the weights have {present} "
            "layers. Settings and weights do not belong together, or the download is incomplete."
        )
    changes: dict[str, Any] = {}
    stored = names.find("embed")
    if stored is not None:
        rows = checkpoint.info(stored).shape[0]
        if rows > spec.vocab and config.dialect == "gguf" and config.raw("vocab_size") is None:
            changes["vocab"] = rows  # padded beyond the tokenizer's vocabulary
        elif rows != spec.vocab:
            raise BadInput(
                f"'{config.label('vocab_size')}' in {config.where} is {spec.vocab} but the embedding '{stored}' has "
                f"{rows} rows."
            )
    if names.find("head") is None or (config.dialect == "gguf" and spec.tied):
        changes["tied"] = names.find("head") is None
    return changes
