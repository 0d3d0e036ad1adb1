"""Trainings of weights that draft for a model, one file each: `edgewise train NAME MODEL` calls the file's `main`."""

from collections.abc import Callable

from edgewise.train.drafters import medusa, streaming

DRAFTERS: dict[str, Callable[[list[str]], None]] = {
    module.__name__.rpartition(".")[2]: module.main for module in (medusa, streaming)
}
