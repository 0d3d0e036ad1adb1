"""Every architecture and every kind of rope against transformers, in float32: logits within 1e-4, greedy tokens equal.

Each case is written twice: by our own writer (the older config.json) and by transformers' save_pretrained (the newer
one, with its own tensor names). Both must give the same bits.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.kernels.api import Device
from edgewise.models import load_model
from edgewise.testing.driver import Driver
from edgewise.testing.tiny import VOCAB, tiny_model
from edgewise.weights import open_checkpoint

pytestmark = pytest.mark.oracle

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
LONG = [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 9.0]
LONGROPE = {"type": "longrope", "short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": LONG}


@dataclass(frozen=True)
class Case:
    """context: asked for at load. longest: prompt. Overrides of None remove a setting."""

    architecture: str
    overrides: dict[str, Any] = field(default_factory=dict)
    context: int | None = None
    longest: int = 300


CASES = {
    "llama": Case("llama"),
    "llama-6-2-tied": Case(
        "llama", {"num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 96, "tie_word_embeddings": True}
    ),
    "llama-head-dim": Case("llama", {"head_dim": 24}),
    "llama-biases": Case("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-linear": Case("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "llama-dynamic": Case("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
    "llama-dynamic-beyond": Case(
        "llama", {"max_position_embeddings": 128, "rope_scaling": {"type": "dynamic", "factor": 4.0}}, context=300
    ),
    "llama-llama3": Case("llama", {"rope_scaling": LLAMA3, "rope_theta": 500000.0}),
    "llama-yarn": Case("llama", {"rope_scaling": YARN}),
    "llama-yarn-mscale": Case("llama", {"rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.7}}),
    "llama-longrope": Case("llama", {"rope_scaling": {**LONGROPE, "original_max_position_embeddings": 400}}),
    "mistral": Case("mistral"),
    "mistral-no-window": Case("mistral", {"sliding_window": None, "head_dim": None, "num_attention_heads": 4}),
    "qwen2": Case("qwen2"),
    "qwen2-windows": Case(
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1, "tie_word_embeddings": False},
    ),
    "qwen3": Case("qwen3"),
    "qwen3-yarn-windows": Case(
        "qwen3",
        {"rope_scaling": YARN, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    ),
    "qwen3-biases": Case("qwen3", {"attention_bias": True, "tie_word_embeddings": True}),
    "gemma2": Case("gemma2"),
    "gemma2-no-caps": Case("gemma2", {"query_pre_attn_scalar": 32}),
    "gemma3": Case("gemma3_text"),
    "gemma3-linear": Case("gemma3_text", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    "phi3": Case("phi3"),
    "phi3-partial": Case("phi3", {"partial_rotary_factor": 0.5, "sliding_window": 33}),
    "phi3-longrope-short": Case(
        "phi3", {"rope_scaling": LONGROPE, "original_max_position_embeddings": 128}, longest=64
    ),
    "phi3-longrope-long": Case(
        "phi3", {"rope_scaling": LONGROPE, "original_max_position_embeddings": 128}, context=512
    ),
    "olmo2": Case("olmo2"),
    "olmo2-mha-linear": Case("olmo2", {"num_key_value_heads": 3, "rope_scaling": {"type": "linear", "factor": 2.0}}),
    "bitnet": Case("bitnet"),
    "bitnet-silu": Case("bitnet", {"hidden_act": "silu", "num_key_value_heads": 3}),
    "smollm3": Case("smollm3"),
    "smollm3-windows": Case(
        "smollm3",
        {"use_sliding_window": True, "sliding_window": 9, "no_rope_layers": [1, 0, 0, 1], "tie_word_embeddings": False},
    ),
    "mixtral": Case("mixtral"),
    "mixtral-window": Case("mixtral", {"sliding_window": 24, "num_experts_per_tok": 3, "num_key_value_heads": 3}),
    "qwen2_moe": Case("qwen2_moe"),
    "qwen2_moe-renormalised": Case("qwen2_moe", {"norm_topk_prob": True, "num_experts_per_tok": 4}),
    "qwen3_moe": Case("qwen3_moe"),
    "qwen3_moe-plain": Case("qwen3_moe", {"norm_topk_prob": False, "rope_scaling": YARN}),
    "olmoe": Case("olmoe"),
    "olmoe-renormalised": Case("olmoe", {"norm_topk_prob": True, "tie_word_embeddings": True}),
}


@dataclass(frozen=True)
class Truth:
    """What transformers says. folders: our writing and its own. logits of the whole prompt; greedy continuation."""

    folders: tuple[Path, Path]
    prompt: list[int]
    logits: Any  # (longest, vocab)
    single: Any  # (1, vocab): the first token alone
    short: list[int]
    greedy: list[int]  # 64 tokens after the short prompt
    later: Any  # (64, vocab): logits of the whole prompt's continuation by `after`
    after: list[int]


@pytest.fixture(scope="session", params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def truth(case: str, tmp_path_factory: pytest.TempPathFactory, torch_model: Callable[[Path], Any]) -> Truth:
    import torch

    setting = CASES[case]
    ours, theirs = tmp_path_factory.mktemp(case), tmp_path_factory.mktemp(f"{case}-saved")
    tiny_model(setting.architecture, ours, seed=len(case), **setting.overrides)
    rng = np.random.default_rng(5)
    prompt, short = (rng.integers(3, VOCAB, n).tolist() for n in (setting.longest, 20))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = torch_model(ours)
        model.save_pretrained(theirs)

        def run(tokens: Sequence[int]) -> Any:
            return model(torch.tensor([list(tokens)])).logits[0].numpy()

        logits, single = run(prompt), run(prompt[:1])
        if setting.context is None:
            given = model.generate(torch.tensor([short]), max_new_tokens=64, do_sample=False, pad_token_id=0)
            greedy, after = given[0, len(short) :].tolist(), rng.integers(3, VOCAB, 64).tolist()
            later = run(prompt + after)[-64:]
        else:  # frequencies change with the length there: only one length can be compared
            greedy, after, later = [], [], logits[:0]
    return Truth((ours, theirs), prompt, logits, single, short, greedy, later, after)


def test_logits_and_greedy_tokens_equal_transformers(case: str, truth: Truth, device: Device) -> None:
    model = load_model(open_checkpoint(truth.folders[0]), device, context=CASES[case].context)
    got = Driver(model, device).logits(truth.prompt)
    assert np.abs(got - truth.logits).max() <= 1e-4
    if not truth.greedy:
        return
    assert np.abs(Driver(model, device).logits(truth.prompt[:1]) - truth.single).max() <= 1e-4
    tokens, rows = Driver(model, device).greedy(truth.short, 64)
    assert tokens == truth.greedy
    driver = Driver(model, device)
    driver.logits(truth.prompt, chunk=64)
    assert np.abs(driver.logits(truth.after, chunk=1) - truth.later).max() <= 1e-4
    # The comparison would prove little if the model always said the same thing with the same confidence.
    best = np.sort(np.array(rows), axis=-1)
    margins = best[:, -1] - best[:, -2]
    assert len(set(tokens)) >= 4
    assert margins.std() > 0.01


def test_both_writers_give_the_same_bits(case: str, truth: Truth, reference: Device) -> None:
    ours, theirs = (
        Driver(load_model(open_checkpoint(folder), reference, context=CASES[case].context), reference).logits(
            truth.prompt[:40]
        )
        for folder in truth.folders
    )
    assert np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))
