"""`edgewise train …` forwards to `python -m edgewise.train …`, which needs the extra `train`."""

import runpy
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from edgewise.base import Unsupported

# A Typer of its own, so that flags go on as they are: `edgewise train draft --steps 100`.
command = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@command.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["-h"]})
def train(
    arguments: Annotated[list[str] | None, typer.Argument(help="as for `python -m edgewise.train`")] = None,
) -> None:
    """Trains a member of the family of small models; needs `pip install 'edgewise[train]'`."""
    absent = find_spec("edgewise.train") is None or find_spec("torch") is None
    if absent and "--help" in (arguments or []):
        typer.echo(f"usage: edgewise train NAME [options]\n\n{train.__doc__}")
        return
    if absent:
        raise Unsupported("Training needs the extra: pip install 'edgewise[train]' (it brings PyTorch).")
    sys.argv = ["edgewise train", *(arguments or [])]
    sys.modules.pop("edgewise.train.__main__", None)  # runpy warns of what somebody has imported before
    try:
        runpy.run_module("edgewise.train", run_name="__main__", alter_sys=True)
    except SystemExit as stop:  # argparse's way to end
        raise typer.Exit(stop.code if isinstance(stop.code, int) else int(stop.code is not None)) from None
