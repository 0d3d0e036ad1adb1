"""Real architectures through the whole engine: every schedule gives what each request gets alone, on each device."""

from pathlib import Path
from typing import Any

import pytest

from edgewise.assemble import assemble
from edgewise.base import Request, SamplingParams
from edgewise.testing.tiny import tiny_model

SETTINGS: list[dict[str, Any]] = [
    {"max_num_seqs": 8},
    {"max_num_seqs": 8, "prefill_chunk": 5, "threads": 1},
    {"max_num_seqs": 3, "page_tokens": 32, "prefill_chunk": 64},
    {"max_num_seqs": 8, "page_tokens": 64, "threads": 2, "prefill_chunk": 17},
]


def requests() -> list[Request]:
    prompts = [tuple((7 * i + j * j) % 250 + 3 for j in range(1 + 13 * i)) for i in range(5)]
    kinds = [SamplingParams(temperature=0, max_tokens=12), SamplingParams(seed=3, max_tokens=12, top_p=0.9)]
    return [Request(prompt, kinds[i % 2], str(i)) for i, prompt in enumerate(prompts)]


def finish(path: Path, wanted: list[Request], **options: Any) -> dict[str, list[int]]:
    engine = assemble(path, ctx_size=128, **options).engine
    for request in wanted:
        engine.add(request)
    got: dict[str, list[int]] = {}
    while engine.has_work():
        for event in engine.step():
            assert event.error is None
            got.setdefault(event.request_id, []).extend(event.tokens)
    return got


@pytest.mark.parametrize("name", ["reference", pytest.param("cpu", marks=pytest.mark.native)])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "qwen3_moe"])
def test_schedules(architecture: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip(f"edgewise.kernels.devices.{name}", exc_type=ImportError)
    path = tiny_model(architecture, tmp_path / architecture)
    alone = {}
    for request in requests():
        alone |= finish(path, [request], device=name, max_num_seqs=1)
    for settings in SETTINGS:
        assert finish(path, requests(), device=name, **settings) == alone, settings
