"""What a quantiser is: some rows of one tensor in, their stored bytes out; what is known of the tensor's inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from edgewise.base import BadInput
from edgewise.kernels.api import Floats
from edgewise.kernels.formats import Bytes

Uses = Literal["nothing", "columns", "hessian"]


@dataclass(frozen=True, eq=False)
class Statistics:
    """The inputs x (columns,) that a matrix met in a calibration text, averaged over its tokens."""

    tokens: int
    size: Floats  # mean |x|, (columns,)
    square: Floats  # mean x^2, (columns,)
    hessian: Floats | None = None  # mean x x^T, (columns, columns); only for who uses it

    def divided(self, scales: Floats) -> "Statistics":
        """The same for inputs x / scales."""
        hessian = None if self.hessian is None else self.hessian / np.outer(scales, scales)
        return Statistics(self.tokens, self.size / scales, self.square / scales**2, hessian)


class Quantiser(Protocol):
    """uses: what of Statistics it can work with. must: whether it is no use without them.

    A tensor whose inputs nobody sees (an embedding that is no head) is quantised without statistics by every member.
    """

    uses: ClassVar[Uses]
    must: ClassVar[bool]

    # rows (count, columns) of tensor `name`; raises BadInput when a weight is not finite
    def quantise(self, name: str, rows: Floats, fmt: str, seen: Statistics | None = None) -> Bytes: ...


@runtime_checkable
class Balancer(Protocol):
    """A quantiser that also wants columns scaled before it sees them, and their inputs divided by as much."""

    # weights (rows, columns) each, all with one input → scales (columns,), positive; None: as they are
    def balance(self, weights: Sequence[Floats], formats: Sequence[str], seen: Statistics) -> Floats | None: ...


def finite(name: str, rows: Floats) -> None:
    # A sum is finite only when every weight is; overflow of a finite sum would need weights beyond any format.
    if not np.isfinite(rows.sum(dtype=np.float64)):
        raise BadInput(f"Tensor '{name}' holds a weight that is not finite, so it cannot be quantised.")
