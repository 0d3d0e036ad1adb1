"""Neurons that lie one by one in slots: what is computed with them, how they get there (csrc/ops/neurons.h)."""

import numpy as np
import numpy.typing as npt

from edgewise import _native
from edgewise.kernels.api import Array, Device, Ints, Slots

FORMATS = ("BF16", "F32")  # that rows can have
Sums = npt.NDArray[np.uint64]


def add_neurons(
    device: Device, x: Array, slots: Slots, places: Ints, ids: Ints, row_bytes: int, fmt: str, act: str, *,
    up_at: int = -1, gates: Array | None = None, keep: npt.NDArray[np.uint8] | None = None, sums: Array | None = None,
    add: Array | None = None,
) -> Array:  # fmt: skip
    """(tokens, dim): sums (None: zeros) + down · (act(gate · x) * (up · x)) of the neurons ids, ascending, + add.

    Neuron ids[i] lies in slot places[i]: gate, up and down, row_bytes each; up begins at up_at (-1: behind the gate).
    gates (tokens, all neurons): then gate rows are not looked at, nor need they be there. keep (tokens, len(ids)): for
    which tokens a neuron counts. All neurons at once, or in runs that begin with even ids and add to each other's sums,
    give the bits of `Device.ffn`; so does leaving out zeros.
    """
    up = row_bytes if up_at < 0 else up_at
    return _native._neurons(
        device, x, slots, places, ids, 0, up, up + row_bytes, fmt, act, gates, keep, sums, add
    )  # fmt: skip


def scatter(
    fd: int, offset: int, step: int, pieces: Ints, slots: Slots, places: Ints, into: int, nbytes: int,
    sums: Sums | None, threads: int, most: int,
) -> tuple[int, int, int, int, bool]:  # fmt: skip
    """Reads nbytes at offset + step * pieces[i] to byte `into` of slot places[i].

    Gives (reads, index of a piece that failed or -1, its bytes that came, errno, whether its XXH64 is another than
    sums[piece])."""
    return _native._scatter(fd, offset, step, pieces, slots, places, into, nbytes, sums, threads, most)


def differs(slots: Slots, places: Ints, at: int, nbytes: int, pieces: Ints, sums: Sums) -> int:
    """Index of the first piece whose bytes do not have the XXH64 sums[piece]; -1: none."""
    return int(_native._differs(slots, places, at, nbytes, pieces, sums))
