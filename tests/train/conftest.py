"""A tiny prepared corpus and a tiny recipe, made once for the room."""

from pathlib import Path

import pytest
import torch

from edgewise.train import dataset
from edgewise.train.corpus import stdlib_folder
from edgewise.train.recipe import Recipe, load_recipe


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny products: handing them to a second core costs more than it brings


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    small = load_recipe("base").changed(
        "model", vocab=400, dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn_dim=64, context=32
    )
    small = small.changed("data", held_out_percent=25.0, tasks=60, shares={"stdlib": 1.0})
    return small.changed(
        "train",
        steps=6,
        batch_tokens=128,
        window=16,
        long_share=0.34,
        warmup_steps=2,
        eval_every=3,
        dropout=0.1,
        lr=1e-2,
        four_bits=0.0,
    )


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Path:
    folder = tmp_path_factory.mktemp("data")
    dataset.prepare(recipe, stdlib_folder() / "json", folder)
    return folder
