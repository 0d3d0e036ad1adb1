"""From the trained Hugging Face directory to the one file that travels in the package: GGUF, Q8_0, tokenizer inside.

Q8_0 for every matrix, the embedding included; norms stay float32. llama.cpp rotates neighbouring pairs where Hugging
Face rotates halves, so the rows of q and k are reordered.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewise.base import BadInput
from edgewise.train.model import load_hf
from edgewise.train.tokenizer import BOS, EOS, PAD, PRE_TOKENIZER

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def gguf_name(name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` → `blk.3.ffn_up.weight`."""
    fixed = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in fixed:
        return fixed[name]
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{NAMES[part.removesuffix('.weight')]}.weight"


def interleave(rows: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """(heads * head_dim, dim) with each head's two halves dealt out alternately."""
    per_head = rows.reshape(heads, 2, -1, rows.shape[-1])
    return np.ascontiguousarray(per_head.swapaxes(1, 2).reshape(rows.shape))


def export_gguf(model_folder: Path, tokenizer_folder: Path, file: Path, *, name: str, version: str) -> int:
    """Writes `file` and returns its size in bytes. Needs the `gguf` package, which the extra `train` brings."""
    try:
        import gguf
    except ImportError as error:
        raise BadInput("Writing GGUF needs the package gguf: pip install 'edgewise[train]'.") from error
    model = load_hf(model_folder)
    shape = model.shape
    tokenizer = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    writer: Any = gguf.GGUFWriter(str(file), "llama")
    writer.add_name(name)
    writer.add_version(version)
    writer.add_license("Apache-2.0")
    writer.add_description("Trained on the Python standard library's own source; completes Python.")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn_dim)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_vocab_size(shape.vocab)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)

    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    pieces = sorted((vocab | special).items(), key=lambda item: item[1])
    if [index for _, index in pieces] != list(range(shape.vocab)):
        raise BadInput(f"The tokenizer in {tokenizer_folder} has {len(pieces)} ids, the model {shape.vocab} rows.")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list([piece for piece, _ in pieces])
    kinds = gguf.TokenType
    writer.add_token_types([int(kinds.CONTROL if piece in special else kinds.NORMAL) for piece, _ in pieces])
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(special[BOS])
    writer.add_eos_token_id(special[EOS])
    writer.add_pad_token_id(special[PAD])
    writer.add_add_bos_token(False)

    for key, value in model.state_dict().items():
        array = value.numpy()
        if "q_proj" in key or "k_proj" in key:
            array = interleave(array, shape.heads if "q_proj" in key else shape.kv_heads)
        if array.ndim == 1:
            writer.add_tensor(gguf_name(key), array)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(gguf_name(key), gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file.stat().st_size
