"""Prefixes outlive the process: the same tokens, and as many of the prompt's known as while it ran."""

from pathlib import Path

import pytest

from edgewise.base import SamplingParams
from edgewise.serve.llm import LLM

PROMPT = "def quicksort(items):\n    '''Sorts a list.'''\n    if len(items) < 2:\n        return items\n" * 4
GREEDY = SamplingParams(max_tokens=24, temperature=0.0)


def said(folder: str, *prompts: str, **options: object) -> list[tuple[list[int], int]]:
    """(tokens, of the prompt's known before) of each prompt."""
    with LLM(threads=1, max_num_seqs=2, prefix_cache=folder, **options) as llm:
        outs = [llm.generate(prompt, GREEDY)[0] for prompt in prompts]
        return [(out.outputs[0].token_ids, out.metrics.reused_tokens) for out in outs]


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    folder = str(tmp_path / "kept")
    (first, nothing), (_, warm) = said(folder, PROMPT, PROMPT)
    assert nothing == 0
    assert warm > 32
    ((again, known),) = said(folder, PROMPT)
    assert (again, known) == (first, warm)
    mine = {file.name[:4] for file in tmp_path.glob("kept/*.kv")}
    ((_, known),) = said(folder, PROMPT, kv_cache_dtype="f32")
    assert known == 0  # other keys and values
    head = max(tmp_path.glob("kept/*.kv"), key=lambda file: (file.name[:4] in mine, file.stat().st_mtime_ns))
    data = bytearray(head.read_bytes())
    data[len(data) // 2] ^= 4
    head.write_bytes(data)
    with pytest.warns(UserWarning, match="damaged"):
        ((again, known),) = said(folder, PROMPT)
    assert (again, known) == (first, 0)
    ((again, known),) = said(folder, PROMPT)  # and was written anew
    assert (again, known) == (first, warm)
