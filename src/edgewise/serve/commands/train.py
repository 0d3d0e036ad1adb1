"""`edgewise train …` forwards to `python -m edgewise.train …`, which needs the extra `train`."""

import runpy
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from edgewise.base import Unsupported


def command(
    arguments: Annotated[list[str] | None, typer.Argument(help="as for `python -m edgewise.train`; after `--`")] = None,
) -> None:
    """Trains a small model; needs `pip install 'edgewise[train]'`. Put flags after `--`."""
    if find_spec("edgewise.train") is None or find_spec("torch") is None:
        raise Unsupported("Training needs the extra: pip install 'edgewise[train]' (it brings PyTorch).")
    sys.argv = ["edgewise train", *(arguments or [])]
    runpy.run_module("edgewise.train", run_name="__main__", alter_sys=True)
