"""Broken, contradictory and unknown models are refused in one sentence that names the key and what it holds."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.base import BadInput, EdgewiseError, Unsupported
from edgewise.kernels.api import Device
from edgewise.models import MODELS, load_model, read_spec
from edgewise.testing.driver import Driver
from edgewise.testing.tiny import ARCHITECTURES, tiny_config, tiny_model, tiny_tensors, write_safetensors
from edgewise.weights import open_checkpoint
from edgewise.weights.api import Header


def header(config: dict[str, Any]) -> Header:
    return Header("hf", config["model_type"], config, (Path("model.safetensors"),), Path(), {}, "tiny")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("llama"))


def changed(llama: Path, tmp_path: Path, **overrides: Any) -> Path:
    folder = tmp_path / "changed"
    shutil.copytree(llama, folder)
    (folder / "config.json").write_text(json.dumps(tiny_config("llama", **overrides)))
    return folder


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"hidden_size": None}, ["hidden_size", "config.json"]),
        ({"hidden_size": 64, "num_attention_heads": 4}, ["embed_tokens", "(259, 48)", "(259, 64)"]),
        ({"num_hidden_layers": 3}, ["num_hidden_layers", "3", "2 layers"]),
        ({"num_hidden_layers": 1}, ["num_hidden_layers", "1", "2 layers"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers", "0"]),
        ({"num_hidden_layers": 10**9}, ["num_hidden_layers", "1000000000"]),
        ({"num_hidden_layers": -2}, ["num_hidden_layers", "-2"]),
        ({"num_hidden_layers": 2.5}, ["num_hidden_layers", "2.5"]),
        ({"vocab_size": 300}, ["vocab_size", "300", "259"]),
        ({"num_key_value_heads": 2}, ["num_attention_heads", "3", "num_key_value_heads", "2"]),
        ({"num_attention_heads": 5}, ["hidden_size", "48", "5"]),
        ({"intermediate_size": 81}, ["gate_proj", "(80, 48)", "(81, 48)"]),
        ({"hidden_act": "swoosh"}, ["hidden_act", "swoosh", "silu"]),
        ({"rope_scaling": {"type": "spiral", "factor": 2}}, ["spiral", "llama3"]),
        ({"rope_scaling": {"type": "linear"}}, ["linear", "factor"]),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, ["factor", "0"]),
        ({"rope_parameters": {"rope_type": "longrope", "short_factor": [1]}}, ["short_factor", "1 values", "8"]),
        ({"rms_norm_eps": -1.0}, ["rms_norm_eps", "-1"]),
        ({"rms_norm_eps": "small"}, ["rms_norm_eps", "small"]),
        ({"tie_word_embeddings": "yes"}, ["tie_word_embeddings", "yes"]),
        ({"max_position_embeddings": 1 << 40}, ["max_position_embeddings"]),
    ],
)
def test_settings_that_cannot_be(
    llama: Path, tmp_path: Path, reference: Device, overrides: dict[str, Any], words: list[str]
) -> None:
    folder = changed(llama, tmp_path, **overrides)
    with pytest.raises((BadInput, Unsupported)) as error:
        load_model(open_checkpoint(folder), reference)
    text = str(error.value)
    assert all(word in text for word in words), text
    assert "\n" not in text


def test_nothing_is_read_before_everything_fits(llama: Path, tmp_path: Path, reference: Device) -> None:
    class Unread:
        def read(self, extent: Any, offset: int, nbytes: int) -> memoryview:
            raise AssertionError("a weight was read")

        def close(self) -> None: ...

    tensors = tiny_tensors("llama", tiny_config("llama"), 0)
    del tensors["model.layers.1.mlp.down_proj.weight"]
    folder = changed(llama, tmp_path)
    write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(BadInput, match=r"no tensor 'model.layers.1.mlp.down_proj.weight'"):
        load_model(open_checkpoint(folder), reference, source=Unread())


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(Unsupported, match=r"'qwen3_mo'.*Did you mean 'qwen3_moe'"):
        read_spec(header({"model_type": "qwen3_mo"}))
    with pytest.raises(Unsupported, match=r"Known: .*llama"):
        read_spec(header({"model_type": "zzzz"}))


def test_packed_weights_are_refused_by_method() -> None:
    with pytest.raises(Unsupported, match=r"quantization_config.*'gptq'.*GGUF"):
        read_spec(header(tiny_config("llama", quantization_config={"quant_method": "gptq", "bits": 4})))


def test_a_tensor_that_nothing_uses_is_refused(llama: Path, tmp_path: Path, reference: Device) -> None:
    folder = changed(llama, tmp_path)
    tensors = tiny_tensors("llama", tiny_config("llama"), 0)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    write_safetensors(folder / "model.safetensors", tensors)
    load_model(open_checkpoint(folder), reference)
    tensors["model.layers.1.self_attn.sinks"] = np.ones(3, np.float32)
    write_safetensors(folder / "model.safetensors", tensors)
    with pytest.raises(Unsupported, match=r"'model.layers.1.self_attn.sinks'"):
        load_model(open_checkpoint(folder), reference)


def test_clipped_queries_are_refused() -> None:
    with pytest.raises(Unsupported, match=r"clip_qkv.*8"):
        read_spec(header(tiny_config("olmoe", clip_qkv=8.0)))


def test_every_member_has_a_tiny_model_and_the_other_way_round() -> None:
    classes = {MODELS[name] for name in ARCHITECTURES}
    assert classes == set(MODELS.values())


def test_a_missing_head_means_tied(llama: Path, tmp_path: Path, reference: Device) -> None:
    tensors = tiny_tensors("llama", tiny_config("llama"), 0)
    del tensors["lm_head.weight"]
    folder = changed(llama, tmp_path)
    write_safetensors(folder / "model.safetensors", tensors)
    model = load_model(open_checkpoint(folder), reference)
    assert model.spec.tied
    other = tiny_model("llama", tmp_path / "tied", tie_word_embeddings=True)
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"]
    write_safetensors(other / "model.safetensors", tensors)
    want = Driver(load_model(open_checkpoint(other), reference), reference).logits([1, 2, 3])
    assert np.array_equal(Driver(model, reference).logits([1, 2, 3]), want)


NASTY: list[Any] = [
    None, 0, 1, 2, 3, -1, 7, 1 << 24, 1 << 25, 1 << 70, 0.0, 0.5, -3.5, 1e-300, 1e300, float("nan"), float("inf"), True,
    False, "", "silu", "text", [], [1], [0, 1], ["full_attention"] * 2, ["sliding_attention"] * 2, {}, {"a": 1},
    {"rope_type": "yarn", "factor": 2}, {"rope_type": "llama3"}, {"type": "dynamic", "factor": 1e-30},
    {"rope_type": "linear", "factor": "x"}, {"full_attention": {"rope_type": "default"}}, {"full_attention": 3},
    {"rope_type": "longrope", "short_factor": ["a"] * 8, "long_factor": [1] * 8}, {"rope_type": ["x"]},
    {"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 0.5},
]  # fmt: skip
ARRAYS = [np.arange(3), np.zeros(2, np.int32), np.array(["a", "b"]), np.float32(0.25), np.uint32(3)]
EXTRA = (
    "rope_scaling", "rope_parameters", "layer_types", "sliding_window", "use_sliding_window", "max_window_layers",
    "head_dim", "no_rope_layers", "norm_topk_prob", "mlp_only_layers", "partial_rotary_factor", "text_config",
    "original_max_position_embeddings", "attention_multiplier", "clip_qkv", "sliding_window_pattern",
    "quantization_config",
)  # fmt: skip


def spoil(config: dict[str, Any], keys: list[str], rng: random.Random, values: list[Any]) -> dict[str, Any]:
    return {**config, **{rng.choice(keys): rng.choice(values) for _ in range(rng.choice((1, 1, 2, 3)))}}


def read_or_refuse(header: Header) -> None:
    """Any other exception than ours is a failure."""
    refused = ""
    try:
        spec = read_spec(header)
        for settings in spec.extra["ropes"].values():
            settings.rope(spec.context)
    except EdgewiseError as error:
        refused = str(error)
    else:
        assert 0 < spec.context <= 1 << 34
    assert "\n" not in refused


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_any_settings_are_read_or_refused_in_a_sentence(architecture: str) -> None:
    rng = random.Random(architecture)
    config = tiny_config(architecture)
    keys = [*config, *EXTRA]
    keys.remove("model_type")
    for _ in range(400):
        read_or_refuse(header(spoil(config, keys, rng, NASTY)))


def test_any_gguf_metadata_is_read_or_refused_in_a_sentence() -> None:
    rng = random.Random(1)
    config: dict[str, Any] = {
        "llama.embedding_length": 48, "llama.block_count": 2, "llama.attention.head_count": 3,
        "llama.attention.head_count_kv": 1, "llama.feed_forward_length": 80, "llama.context_length": 512,
        "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 1e4, "llama.vocab_size": 259,
        "tokenizer.ggml.tokens": ["a"] * 259,
    }  # fmt: skip
    assert read_spec(Header("gguf", "llama", config, (Path("x.gguf"),), Path(), {}, "tiny")).head_dim == 16
    extra = [
        "llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.rope.dimension_count", "llama.expert_count",
        "llama.attention.sliding_window", "llama.attention.key_length", "llama.rope.scaling.attn_factor",
        "llama.attention.sliding_window_pattern", "llama.logit_scale", "llama.expert_used_count",
    ]  # fmt: skip
    for _ in range(2000):
        spoiled = spoil(config, [*config, *extra], rng, [*NASTY, *ARRAYS])
        read_or_refuse(Header("gguf", "llama", spoiled, (Path("x.gguf"),), Path(), {}, "tiny"))
