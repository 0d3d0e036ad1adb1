"""Tiny random models for tests: a Hugging Face directory of any supported architecture, written without torch.

`tiny_model("gemma3", tmp_path)` → config.json, model.safetensors, tokenizer.json (byte-level), 0.1 to 0.5 MB.
Odd sizes on purpose: 3 query heads over 1 key head, a head size that is not dim / heads where that is allowed.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.base import Unsupported
from edgewise.base.catalog import nearest

SPECIALS = ("<unk>", "<s>", "</s>")  # ids 0, 1, 2; then the 256 bytes: 259 ids in all
VOCAB = len(SPECIALS) + 256

_COMMON: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 3,
    "num_key_value_heads": 1, "vocab_size": VOCAB, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
}  # fmt: skip
_MOE: dict[str, Any] = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_GEMMA: dict[str, Any] = {
    "head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 24, "sliding_window": 16, "tie_word_embeddings": True,
}  # fmt: skip

# model_type → (class name, settings that differ from the common ones)
ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {}),
    "mistral": ("MistralForCausalLM", {"head_dim": 32, "sliding_window": 16}),
    "qwen2": ("Qwen2ForCausalLM", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3ForCausalLM", {"head_dim": 32}),
    "gemma2": (
        "Gemma2ForCausalLM",
        _GEMMA | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    ),
    "gemma3_text": (
        "Gemma3ForCausalLM",
        _GEMMA | {"num_hidden_layers": 3, "sliding_window_pattern": 3, "rope_theta": 1e6, "rope_local_base_freq": 1e4},
    ),
    "phi3": ("Phi3ForCausalLM", {"original_max_position_embeddings": 512}),
    "olmo2": ("Olmo2ForCausalLM", {}),
    "smollm3": ("SmolLM3ForCausalLM", {"num_hidden_layers": 4, "tie_word_embeddings": True}),
    "bitnet": ("BitNetForCausalLM", {"hidden_act": "relu2"}),
    "mixtral": ("MixtralForCausalLM", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": (
        "Qwen2MoeForCausalLM",
        _MOE | {"shared_expert_intermediate_size": 40, "norm_topk_prob": False, "decoder_sparse_step": 1},
    ),
    "qwen3_moe": ("Qwen3MoeForCausalLM", _MOE | {"head_dim": 32, "norm_topk_prob": True, "decoder_sparse_step": 1}),
    "olmoe": ("OlmoeForCausalLM", {"num_experts": 5, "num_experts_per_tok": 2}),
    "smallthinker": (
        "SmallThinkerForCausalLM",
        {"moe_num_primary_experts": 5, "moe_num_active_primary_experts": 2, "moe_ffn_hidden_size": 32,
         "rope_layout": [1, 0], "sliding_window_layout": [0, 1], "sliding_window_size": 16},
    ),
}
_ALIASES = {"gemma3": "gemma3_text"}


def _layer(kind: str, c: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names below `model.layers.N.` and shapes, by Hugging Face's naming."""
    dim, heads, kv = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
    head = c.get("head_dim") or dim // heads
    q, k = heads * head, kv * head
    if kind == "phi3":
        yield "self_attn.qkv_proj.weight", (q + 2 * k, dim)
    else:
        for name, rows in (("q_proj", q), ("k_proj", k), ("v_proj", k)):
            yield f"self_attn.{name}.weight", (rows, dim)
            if kind in ("qwen2", "qwen2_moe") or c.get("attention_bias"):
                yield f"self_attn.{name}.bias", (rows,)
    yield "self_attn.o_proj.weight", (dim, q)
    if kind == "bitnet":
        yield "self_attn.attn_sub_norm.weight", (q,)
        yield "mlp.ffn_sub_norm.weight", (c["intermediate_size"],)
    if c.get("attention_bias"):
        yield "self_attn.o_proj.bias", (dim,)
    if kind in ("qwen3", "qwen3_moe", "gemma3_text"):
        yield "self_attn.q_norm.weight", (head,)
        yield "self_attn.k_norm.weight", (head,)
    if kind in ("olmo2", "olmoe"):
        yield "self_attn.q_norm.weight", (q,)
        yield "self_attn.k_norm.weight", (k,)
    if kind != "olmo2":
        yield "input_layernorm.weight", (dim,)
    yield "post_attention_layernorm.weight", (dim,)
    if kind in ("gemma2", "gemma3_text"):
        yield "pre_feedforward_layernorm.weight", (dim,)
    if kind in ("gemma2", "gemma3_text", "olmo2"):
        yield "post_feedforward_layernorm.weight", (dim,)
    yield from _ffn(kind, c, dim)


def _ffn(kind: str, c: Mapping[str, Any], dim: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    ffn = c["intermediate_size"]
    if kind == "phi3":
        yield "mlp.gate_up_proj.weight", (2 * ffn, dim)
        yield "mlp.down_proj.weight", (dim, ffn)
        return
    if kind == "mixtral":
        yield "block_sparse_moe.gate.weight", (c["num_local_experts"], dim)
        for e in range(c["num_local_experts"]):
            for name, shape in (("w1", (ffn, dim)), ("w2", (dim, ffn)), ("w3", (ffn, dim))):
                yield f"block_sparse_moe.experts.{e}.{name}.weight", shape
        return
    if kind == "smallthinker":
        ffn = c["moe_ffn_hidden_size"]
        yield "block_sparse_moe.primary_router.weight", (c["moe_num_primary_experts"], dim)
        for e in range(c["moe_num_primary_experts"]):
            for name, shape in (("gate", (ffn, dim)), ("up", (ffn, dim)), ("down", (dim, ffn))):
                yield f"block_sparse_moe.experts.{e}.{name}.weight", shape
        return
    rooms = [("mlp", ffn)]
    if kind in ("qwen2_moe", "qwen3_moe", "olmoe"):
        yield "mlp.gate.weight", (c["num_experts"], dim)
        rooms = [(f"mlp.experts.{e}", c.get("moe_intermediate_size", ffn)) for e in range(c["num_experts"])]
    if kind == "qwen2_moe":
        yield "mlp.shared_expert_gate.weight", (1, dim)
        rooms.append(("mlp.shared_expert", c["shared_expert_intermediate_size"]))
    for room, width in rooms:
        for name, shape in (("gate_proj", (width, dim)), ("up_proj", (width, dim)), ("down_proj", (dim, width))):
            yield f"{room}.{name}.weight", shape
            if c.get("mlp_bias"):
                yield f"{room}.{name}.bias", shape[:1]


def tiny_tensors(architecture: str, config: Mapping[str, Any], seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Random weights by name. A tensor's numbers depend on its name and the seed only, so overrides disturb little."""
    kind = _ALIASES.get(architecture, architecture)
    table_shape = (config["vocab_size"], config["hidden_size"])
    names: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", table_shape)]
    for i in range(config["num_hidden_layers"]):
        names += [(f"model.layers.{i}.{name}", shape) for name, shape in _layer(kind, config)]
    names.append(("model.norm.weight", (config["hidden_size"],)))
    if not config["tie_word_embeddings"]:
        names.append(("lm_head.weight", table_shape))
    # A tied head would repeat the last token for ever if the embedding outweighed what the layers add to it.
    table = 0.07 if kind.startswith("gemma") else (0.15 if config["tie_word_embeddings"] else 0.5)
    tensors = {}
    for name, shape in names:
        values = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape, np.float32)
        centre = 1.0 if "norm" in name and not kind.startswith("gemma") else 0.0
        scale = 0.1 if len(shape) == 1 else (table if "embed_tokens" in name else 1.5 / np.sqrt(shape[-1]))
        tensors[name] = (centre + np.float32(scale) * values).astype(np.float32)
    return tensors


def write_safetensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]], dtype: str = "F32") -> None:
    """The format in ten lines: 8 bytes of header length, a JSON header padded to 8, the bytes."""
    blobs, entries, offset = [], {}, 0
    for name, values in tensors.items():
        if dtype == "BF16":
            bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
            blob = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
        else:
            blob = values.astype({"F32": np.float32, "F16": np.float16}[dtype]).tobytes()
        entries[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"".join(blobs))


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer without merges: one id a byte after the three special ones; BOS is added on request."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {text: i for i, text in enumerate([*SPECIALS, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token=SPECIALS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIALS])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True, "model_max_length": 512,
        "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>",
        "chat_template": "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))


def tiny_config(architecture: str, **overrides: Any) -> dict[str, Any]:
    """config.json of a tiny model. An override of None removes the key."""
    kind = _ALIASES.get(architecture, architecture)
    if kind not in ARCHITECTURES:
        raise Unsupported(f"There is no tiny '{architecture}'.{nearest(architecture, sorted(ARCHITECTURES))}")
    class_name, settings = ARCHITECTURES[kind]
    config = {"architectures": [class_name], "model_type": kind, **_COMMON, **settings, **overrides}
    return {key: value for key, value in config.items() if value is not None}


def tiny_model(architecture: str, folder: Path | str, seed: int = 0, *, dtype: str = "F32", **overrides: Any) -> Path:
    """Writes a tiny random model into `folder` (made if absent) and returns it.

    architecture: a Hugging Face model_type ("llama", "gemma3_text", "qwen2_moe", …). dtype: "F32", "F16" or "BF16".
    overrides: settings of config.json; None removes one.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_config(architecture, **overrides)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    eos = {"bos_token_id": config.get("bos_token_id"), "eos_token_id": config.get("eos_token_id")}
    (folder / "generation_config.json").write_text(json.dumps(eos))
    write_safetensors(folder / "model.safetensors", tiny_tensors(architecture, config, seed), dtype)
    write_tokenizer(folder)
    return folder
