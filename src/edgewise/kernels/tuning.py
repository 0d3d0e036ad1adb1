"""Settings of kernels that change speed and never a bit: what a device with such settings offers to a tuner (plan/)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from edgewise.kernels.api import Array, DeviceInfo, Weight
from edgewise.kernels.choices import range_name

Knobs = Mapping[str, int]  # a setting's name → its value (csrc/base/views.h: Tuning); others keep their standard


class Matmul(NamedTuple):
    """What one tuning is for: weights (rows, cols) of a format with the numbers of columns of one range."""

    format: str
    rows: int
    cols: int
    range: int  # kernels.choices.range_of(columns)

    @property
    def key(self) -> str:
        return f"{self.format} {self.rows}x{self.cols} n={range_name(self.range)}"


class Seen(NamedTuple):
    """A matmul that the device has run."""

    matmul: Matmul
    columns: int  # of the last time
    uses: int


@runtime_checkable
class Tunable(Protocol):
    """A device whose kernels have settings. Not while a verb runs in another thread, but between any two of them."""

    info: DeviceInfo
    notes: list[str]  # for the user

    def matmuls(self) -> Sequence[Seen]: ...  # so far, of weights that still live

    def weights_of(self, matmul: Matmul) -> Sequence[Weight]: ...

    def standard(self, matmul: Matmul) -> Knobs: ...  # every setting

    def tune(self, matmul: Matmul, knobs: Knobs) -> None: ...  # the standard, but for these. Raises BadInput


class Tuned(Tunable, Protocol):
    """What a tuner also needs of it: the verbs it measures, as in Device."""

    def upload(self, values: object) -> Array: ...
    def download(self, x: Array) -> Array: ...
    def linear(self, x: Array, w: Weight) -> Array: ...
