"""Formats as quantisers see them: integers on a scaled grid, and how to pack them into a format's blocks."""

from edgewise.convert.grids.api import Grid, Settled
from edgewise.convert.grids.own import OWN
from edgewise.convert.grids.plain import PLAIN
from edgewise.convert.grids.super_blocks import SUPER_BLOCKS

GRIDS: dict[str, Grid] = {**PLAIN, **SUPER_BLOCKS, **OWN}

__all__ = ["GRIDS", "Grid", "Settled", "grid_of"]


def grid_of(fmt: str) -> Grid | None:
    """The grid of a format; None for floats and for formats whose levels are no evenly spaced integers."""
    return GRIDS.get(fmt)
