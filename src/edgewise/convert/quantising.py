"""Which bytes each tensor becomes: the quantiser, what it knows of the tensor's inputs, and the parts already made."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from edgewise.base import EdgewiseError
from edgewise.convert.calibrating import Calibration
from edgewise.convert.folding import Fold, Folding, tied_statistics, weights_of
from edgewise.convert.gguf_writer import NewTensor
from edgewise.convert.parts import Parts
from edgewise.convert.quantisers.api import Balancer, Quantiser, Statistics
from edgewise.convert.recording import Recorder
from edgewise.convert.rows import Rows, chunks, values
from edgewise.kernels.api import Floats
from edgewise.kernels.formats import Bytes
from edgewise.models.api import ModelSpec

_LAYER = re.compile(r"layers\.(\d+)\.")


@dataclass
class Narrowing:
    """inputs: stored name of a tensor to write → canonical name of the weight in it whose inputs count."""

    quantiser: Quantiser
    calibration: Calibration | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    folding: Folding | None = None
    parts: Parts | None = None

    def seen(self, name: str) -> Statistics | None:
        """What is known of the inputs of a stored tensor, as they are after folding."""
        if self.calibration is None or name not in self.inputs:
            return None
        seen = self.calibration.of(self.inputs[name])
        divisor = None if self.folding is None else self.folding.divisor(name)
        return seen if seen is None or divisor is None else seen.divided(divisor)

    def turn(self, name: str) -> tuple[int, str]:
        """When a tensor is to be made: layer by layer, weights with one input together, the embedding last."""
        canonical = self.inputs.get(name, name)
        found = _LAYER.match(canonical)
        return (int(found[1]), canonical) if found else (1 << 30, canonical)

    def tensors(self, tensors: Mapping[str, Rows], chosen: Mapping[str, str]) -> list[NewTensor]:
        """What to write, in the order of `tensors`; nothing is computed yet."""
        if self.folding is not None:
            tensors = self.folding.tensors(tensors)
        return [self._new(name, rows, chosen[name]) for name, rows in tensors.items()]

    def _new(self, name: str, rows: Rows, fmt: str) -> NewTensor:
        what = self.what(name, fmt)

        def narrow() -> Iterator[Bytes]:
            seen = self.seen(name)
            for first, count in chunks(rows):
                yield self.quantiser.quantise(name, values(rows, first, count), fmt, seen)

        def make() -> Iterator[Bytes]:
            if rows.format == fmt:
                for first, count in chunks(rows):
                    yield rows.raw(first, count)
            elif self.parts is not None and self.parts.has(what, tensor.nbytes):
                yield from self.parts.read(what)
            else:
                yield from narrow()

        tensor = NewTensor(name, rows.shape, fmt, make, rows.format == fmt)
        return tensor

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Parts outlive an interruption, and are gone when the block ends well or refuses for good."""
        try:
            yield
        except EdgewiseError:
            self._forget()
            raise
        self._forget()

    def _forget(self) -> None:
        if self.parts is not None:
            self.parts.remove()

    def what(self, name: str, fmt: str) -> str:
        return f"{name} {fmt} {self.quantiser!r}"

    def missing(self, new: Sequence[NewTensor]) -> list[NewTensor]:
        """Tensors that have to be quantised and are not among the parts, in the order to make them."""
        if self.parts is None:
            return []
        absent = [t for t in new if not t.copied and not self.parts.has(self.what(t.name, t.format), t.nbytes)]
        return sorted(absent, key=lambda tensor: self.turn(tensor.name))

    def make(self, tensor: NewTensor, progress: Callable[[int], None] | None) -> None:
        """Makes one part."""
        assert self.parts is not None

        def pieces() -> Iterator[Bytes]:
            for piece in tensor.make():
                yield piece
                if progress is not None:
                    progress(piece.nbytes)

        self.parts.keep(self.what(tensor.name, tensor.format), pieces())


def inputs_of(recorder: Recorder, tied: bool) -> dict[str, str]:
    """Stored name → canonical name of a weight in it, for matrices. An embedding that is no head has no inputs."""
    found: dict[str, str] = {}
    for wanted in recorder.wanted:
        if len(wanted.shape) > 1 and (wanted.name != "embed" or tied):
            for stored, _ in wanted.places:
                found.setdefault(stored, wanted.name)
    return found


def balancing(
    quantiser: Quantiser, calibration: Calibration, recorder: Recorder, spec: ModelSpec, tensors: Mapping[str, Rows],
    chosen: Mapping[str, str], parts: Parts | None,
) -> Folding | None:  # fmt: skip
    """Scales as the quantiser wants them, kept as parts; None for a quantiser that wants none."""
    if not isinstance(quantiser, Balancer):
        return None
    balance = quantiser.balance

    def search(fold: Fold) -> Floats | None:
        seen = calibration.of(fold.key)
        if seen is None:
            return None
        fmts = [chosen[w.places[0][0]] for w in fold.matrices]
        return balance(weights_of(fold.matrices, tensors), fmts, tied_statistics(fold, seen))

    def find(fold: Fold) -> Floats | None:
        columns = fold.matrices[0].shape[-1]
        fmts = " ".join(chosen[w.places[0][0]] for w in fold.matrices)
        what = f"scales of {fold.key} {fmts} {quantiser!r}"
        if parts is not None and parts.has(what, 4 * columns):
            scales = np.concatenate(list(parts.read(what))).view(np.float32)
        else:
            found = search(fold)
            scales = np.ones(columns, np.float32) if found is None else found
            if parts is not None:
                parts.keep(what, [scales.view(np.uint8)])
        return None if (scales == 1).all() else scales

    return Folding(recorder, spec, find)
