"""For every test: no network, no settings from outside, and native tests skip aloud when there is no extension."""

import os
from importlib.util import find_spec

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
KEPT = ("EDGEWISE_SHARED", "EDGEWISE_ISA", "EDGEWISE_SCREENSHOTS", "EDGEWISE_CHROMIUM")
for name in [name for name in os.environ if name.startswith("EDGEWISE_") and name not in KEPT]:
    del os.environ[name]  # a flag set for the user's own runs would change what tests see
os.environ["EDGEWISE_CACHE"] = os.path.join(os.devnull, "none")  # nothing measured before, and nothing is kept


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if find_spec("edgewise._native") is not None:
        return
    skip = pytest.mark.skip(reason="the compiled extension is missing: scripts/build")
    for item in items:
        if "native" in item.keywords:
            item.add_marker(skip)
