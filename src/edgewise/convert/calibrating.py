"""What each weight's inputs look like: a text run through the model layer by layer, with someone listening.

The listener is a device around a device. It is told which weight has which name while a layer is loaded, and sees
every row that meets a weight. Only one layer, and its statistics, are held at a time.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from edgewise.base import BadInput
from edgewise.convert.passes import ROWS, Walk
from edgewise.convert.quantisers.api import Statistics
from edgewise.kernels.api import Array, Device, Floats, Ints, Routing, Weight
from edgewise.kernels.devices import DEVICES
from edgewise.models.api import Loader
from edgewise.models.loading import read_spec
from edgewise.weights.api import Checkpoint

WINDOW = 512  # tokens of a sequence
TOKENS = 8192  # of the text, at most


class Moments:
    """Running sums over the inputs of one weight."""

    def __init__(self, columns: int, hessian: bool) -> None:
        self.tokens = 0
        self.size = np.zeros(columns, np.float64)
        self.square = np.zeros(columns, np.float64)
        self.hessian = np.zeros((columns, columns), np.float32) if hessian else None

    def add(self, x: Floats) -> None:
        self.tokens += len(x)
        self.size += np.abs(x).sum(0, dtype=np.float64)
        self.square += np.square(x, dtype=np.float64).sum(0)
        if self.hessian is not None:
            self.hessian += x.T @ x

    @cached_property
    def statistics(self) -> Statistics:
        """Nothing can be added after."""
        n = max(self.tokens, 1)
        hessian, self.hessian = self.hessian, None  # there is room for one
        if hessian is not None:
            hessian /= np.float32(n)
        size, square = ((total / n).astype(np.float32) for total in (self.size, self.square))
        return Statistics(self.tokens, size, square, hessian)


class Listening:
    """A device that does what `inner` does, and notes the inputs of every weight it knows by name."""

    def __init__(self, inner: Device, hessian: bool) -> None:
        self.inner = inner
        self.hessian = hessian
        self.names: dict[int, str] = {}  # id of a weight that the model holds → its canonical name
        self.moments: dict[str, Moments] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def name(self, name: str, weight: Weight) -> Weight:
        if weight is not None:
            self.names[id(weight)] = name
        return weight

    def begin(self) -> None:
        """Forgets the layer before."""
        self.names, self.moments = {}, {}

    def _note(self, x: Array, *weights: Weight) -> None:
        """Weights with one input share its sums."""
        names = {self.names[id(w)] for w in weights if id(w) in self.names}
        if not names:
            return
        rows = np.asarray(self.inner.download(x))
        if not np.isfinite(rows).all():
            raise BadInput(f"The inputs of {min(names)} are not finite on the calibration text; nothing can be learnt.")
        known = self.moments.get(min(names))
        if known is None:
            known = Moments(rows.shape[-1], self.hessian)
        known.add(rows)
        self.moments.update(dict.fromkeys(names, known))

    def linear(self, x: Array, w: Weight, bias: Array | None = None, add: Array | None = None) -> Array:
        self._note(x, w)
        return self.inner.linear(x, w, bias, add)

    def qkv(self, x: Array, q: Weight, k: Weight, v: Weight, **options: Any) -> tuple[Array, Array, Array]:
        norm = options.pop("norm", None)
        if norm is not None:
            x = self.inner.rms_norm(x, norm, options.get("eps", 0.0))
        self._note(x, q, k, v)
        return self.inner.qkv(x, q, k, v, **options)

    def ffn(
        self, x: Array, gate: Weight, up: Weight, down: Weight, act: str, *, gate_bias: Array | None = None,
        up_bias: Array | None = None, down_bias: Array | None = None, norm: Array | None = None, eps: float = 0.0,
        add: Array | None = None,
    ) -> Array:  # fmt: skip
        if norm is not None:
            x = self.inner.rms_norm(x, norm, eps)
        self._note(x, gate, up)
        inner = self.inner
        hidden = inner.act_mul(inner.linear(x, gate, gate_bias), inner.linear(x, up, up_bias), act)
        self._note(hidden, down)
        return inner.linear(hidden, down, down_bias, add)

    def moe(self, x: Array, routing: Routing, gate: Weight, up: Weight, down: Weight, act: str) -> Array:
        self._note(x, gate, up)  # of all tokens, whichever expert they go to; what `down` meets is not seen
        return self.inner.moe(x, routing, gate, up, down, act)


class NamingLoader:
    """A models.api.Loader that tells a listener the name of every weight it loads."""

    def __init__(self, inner: Loader, device: Listening) -> None:
        self.inner = inner
        self.device: Any = device
        self.dialect = inner.dialect

    def has(self, name: str) -> bool:
        return self.inner.has(name)

    def weight(self, name: str, shape: tuple[int, ...], rows: Ints | None = None, stored_rows: int = 0) -> Weight:
        return self.device.name(name, self.inner.weight(name, shape, rows, stored_rows))

    def vector(self, name: str, length: int, rows: Ints | None = None, plus: float = 0.0) -> Array:
        return self.inner.vector(name, length, rows, plus)

    def experts(self, layer: int, part: str, count: int, shape: tuple[int, int]) -> Weight:
        return self.device.name(f"layers.{layer}.experts.{part}", self.inner.experts(layer, part, count, shape))

    def one_expert(self, name: str, shape: tuple[int, int]) -> Weight:
        return self.device.name(name, self.inner.one_expert(name, shape))

    def rope(self, settings: Any, context: int) -> Any:
        return self.inner.rope(settings, context)


class Calibration:
    """Statistics by canonical name, computed when asked for. Ask layer by layer: going back starts anew.

    checkpoint: the model as it is before the conversion. ids: the text, in tokens.
    """

    def __init__(self, checkpoint: Checkpoint, ids: Sequence[int], *, hessian: bool, device: str = "cpu") -> None:
        if len(ids) < 2:
            raise BadInput(f"The calibration text has {len(ids)} tokens; give it some thousand.")
        self.checkpoint = checkpoint
        self.ids = np.asarray(ids, np.int32)[:TOKENS]
        self.hessian = hessian
        self.device = device
        self._walk: Walk | None = None
        self._held: dict[str, Statistics] = {}  # of layer self._layer
        self._layer = -1

    def __repr__(self) -> str:
        """What decides the statistics besides the checkpoint."""
        digest = hashlib.sha256(self.ids.tobytes()).hexdigest()[:16]
        return f"Calibration(tokens={len(self.ids)}, text={digest}, hessian={self.hessian})"

    def of(self, name: str) -> Statistics | None:
        """None when nobody saw that weight's inputs."""
        if self._walk is None:
            self._begin()
        assert self._walk is not None
        parts = name.split(".")
        layer = int(parts[1]) if parts[0] == "layers" else self._walk.spec.layers
        if layer < self._layer:
            self._walk.close()
            self._begin()
        while self._layer < layer:
            self._advance(self._walk)
        return self._held.get(name)

    def _begin(self) -> None:
        window = min(WINDOW, read_spec(self.checkpoint.header()).context)
        texts = [self.ids[at : at + window] for at in range(0, len(self.ids), window)]
        device = Listening(DEVICES.build(self.device, threads=None), self.hessian)
        listening: Any = device
        self._walk = Walk(self.checkpoint, texts, listening, wrap=lambda loader: NamingLoader(loader, device))
        self._listening, self._held, self._layer = device, {}, -1

    def _advance(self, walk: Walk) -> None:
        """The next layer; after the last one, the head."""
        self._layer += 1
        self._held = {}
        self._listening.begin()
        if self._layer < walk.spec.layers:
            walk.step()
        else:
            for i, batch in enumerate(walk.batches):
                rows = np.arange(0, len(batch.ids), 2, dtype=np.int32)  # neighbours say much the same
                for piece in np.array_split(rows, -(-len(rows) // ROWS)):
                    walk.logits(i, piece)
            walk.close()
        self._held = {name: moments.statistics for name, moments in self._listening.moments.items()}
