"""Gates import their own `tree` by its plain name (pytest's importlib mode adds no path)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
