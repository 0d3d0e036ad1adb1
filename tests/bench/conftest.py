"""bench/ is scripts, not a package: its folder goes on the path. The engines of these tests make up their seconds."""

import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path[:0] = [str(BENCH), str(Path(__file__).parent)]

# what they test opens checkpoints, so that their import needs it
NATIVE = ("test_figures.py", "test_same_tokens.py", "test_vs_llama_server.py", "test_vs_peers.py")
collect_ignore = [] if find_spec("edgewise._native") else list(NATIVE)

ENGINE = f"""
import sys
sys.path.insert(0, {str(BENCH / "engines")!r})
from protocol import serve

class Fake:
    about = {{"versions": {{"fake": "1"}}}}

    def __init__(self, options):
        self.speed, *self.broken = options.model.split("/")[-1].split("-")  # "100-decode": 100 tok/s, decode fails
        if "load" in self.broken:
            raise SystemExit("out of luck")

    def _take(self, op, tokens):
        if op in self.broken:
            raise RuntimeError(f"no {{op}} today")
        return tokens / float(self.speed)

    def prefill(self, tokens, batch, seed):
        return self._take("prefill", tokens)

    def decode(self, tokens, batch, seed):
        if "die" in self.broken:
            raise SystemExit("died in decode")
        return self._take("decode", tokens * batch)

    def verify(self, tokens, batch, seed):
        return self._take("verify", (tokens + 3) * batch)

    def first(self, tokens, batch, seed):
        return self._take("first", tokens)

serve(Fake)
"""


@pytest.fixture
def engine(tmp_path: Path) -> list[str]:
    """The command of a fake engine, up to the name of its model: a speed in tok/s, then what is broken."""
    script = tmp_path / "engine.py"
    script.write_text(ENGINE)
    return [sys.executable, str(script)]


@pytest.fixture
def start(engine: list[str]) -> Iterator[Callable[..., object]]:
    from race.children import Child

    arguments = ["--threads", "1", "--context", "64", "--batch", "8", "--vocab", "1000"]
    children: list[Child] = []

    def begin(model: str, timeout_s: float = 60) -> Child:
        children.append(Child(model, [*engine, model, *arguments], timeout_s=timeout_s))
        return children[-1]

    yield begin
    for child in children:
        child.close()
