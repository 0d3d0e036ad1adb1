"""What a quantiser is: some rows of one tensor in, their stored bytes out."""

from typing import Protocol

from edgewise.kernels.api import Floats
from edgewise.kernels.formats import Bytes


class Quantiser(Protocol):
    def quantise(self, name: str, rows: Floats, fmt: str) -> Bytes: ...  # rows (count, columns) of tensor `name`
