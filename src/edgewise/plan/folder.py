"""Where edgewise keeps what it has found out."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """EDGEWISE_CACHE, or `edgewise` in the user's cache directory."""
    given = os.environ.get("EDGEWISE_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgewise"
