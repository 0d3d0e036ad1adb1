"""What a tensor is called: our canonical name → the name in a Hugging Face checkpoint → the name in a GGUF file.

Canonical names: embed, norm, head, rope_freqs, rope_short, rope_long, and below `layers.N.`: attn_norm, q, k, v, qkv,
o, q_norm, k_norm, attn_post_norm, ffn_norm, gate, up, gate_up, down, ffn_post_norm, router, experts.gate (all experts
in one tensor), expert.E.gate (one of them), the same of up and down, experts.gate_up, shared_gate, shared.gate,
shared.up, shared.down; `.bias` may follow a linear layer's, and `.scale` (one number) where its weights are packed.
An architecture that departs from a table says so in its own file (`hf_names`, `gguf_names`).
"""

from collections.abc import Iterator, Mapping, Sequence

# {i} is the layer, {e} the expert. A Hugging Face name may be written in several ways, tried in order.
HF_NAMES: Mapping[str, str | tuple[str, ...]] = {
    "embed": "embed_tokens",
    "norm": "norm",
    "attn_norm": "layers.{i}.input_layernorm",
    "q": "layers.{i}.self_attn.q_proj",
    "k": "layers.{i}.self_attn.k_proj",
    "v": "layers.{i}.self_attn.v_proj",
    "qkv": "layers.{i}.self_attn.qkv_proj",
    "o": "layers.{i}.self_attn.o_proj",
    "q_norm": "layers.{i}.self_attn.q_norm",
    "k_norm": "layers.{i}.self_attn.k_norm",
    "ffn_norm": "layers.{i}.post_attention_layernorm",
    "gate": "layers.{i}.mlp.gate_proj",
    "up": "layers.{i}.mlp.up_proj",
    "gate_up": "layers.{i}.mlp.gate_up_proj",
    "down": "layers.{i}.mlp.down_proj",
    "router": "layers.{i}.mlp.gate",
    "expert.gate": "layers.{i}.mlp.experts.{e}.gate_proj",
    "expert.up": "layers.{i}.mlp.experts.{e}.up_proj",
    "expert.down": "layers.{i}.mlp.experts.{e}.down_proj",
    "experts.gate_up": "layers.{i}.mlp.experts.gate_up_proj",  # fused by newer versions: (experts, 2 ffn, dim)
    "experts.down": "layers.{i}.mlp.experts.down_proj",
    "shared_gate": "layers.{i}.mlp.shared_expert_gate",
    "shared.gate": "layers.{i}.mlp.shared_expert.gate_proj",
    "shared.up": "layers.{i}.mlp.shared_expert.up_proj",
    "shared.down": "layers.{i}.mlp.shared_expert.down_proj",
}

GGUF_NAMES: Mapping[str, str | tuple[str, ...]] = {
    "embed": "token_embd",
    "norm": "output_norm",
    "head": "output",
    "rope_freqs": "rope_freqs",
    "rope_short": "rope_factors_short",
    "rope_long": "rope_factors_long",
    "attn_norm": "blk.{i}.attn_norm",
    "q": "blk.{i}.attn_q",
    "k": "blk.{i}.attn_k",
    "v": "blk.{i}.attn_v",
    "qkv": "blk.{i}.attn_qkv",
    "o": "blk.{i}.attn_output",
    "q_norm": "blk.{i}.attn_q_norm",
    "k_norm": "blk.{i}.attn_k_norm",
    "attn_post_norm": "blk.{i}.post_attention_norm",
    "ffn_norm": "blk.{i}.ffn_norm",
    "gate": "blk.{i}.ffn_gate",
    "up": "blk.{i}.ffn_up",
    "down": "blk.{i}.ffn_down",
    "ffn_post_norm": "blk.{i}.post_ffw_norm",
    "router": "blk.{i}.ffn_gate_inp",
    "expert.gate": "blk.{i}.ffn_gate.{e}",  # before 2024-04 every expert was a tensor of its own
    "expert.up": "blk.{i}.ffn_up.{e}",
    "expert.down": "blk.{i}.ffn_down.{e}",
    "experts.gate": "blk.{i}.ffn_gate_exps",
    "experts.up": "blk.{i}.ffn_up_exps",
    "experts.gate_up": "blk.{i}.ffn_gate_up_exps",
    "experts.down": "blk.{i}.ffn_down_exps",
    "shared_gate": "blk.{i}.ffn_gate_inp_shexp",
    "shared.gate": "blk.{i}.ffn_gate_shexp",
    "shared.up": "blk.{i}.ffn_up_shexp",
    "shared.down": "blk.{i}.ffn_down_shexp",
}

# Where the language model sits in a Hugging Face checkpoint, and where its head does.
HF_PREFIXES = (
    ("model.", "lm_head"),
    ("model.language_model.", "lm_head"),
    ("language_model.model.", "language_model.lm_head"),
    ("", "lm_head"),
)


class Names:
    """Stored names of one checkpoint's tensors.

    stored: every name in the checkpoint. overrides: the architecture's departures from the dialect's table.
    """

    def __init__(
        self, dialect: str, stored: Sequence[str], overrides: Mapping[str, str | tuple[str, ...]] | None = None
    ) -> None:
        self.dialect = dialect
        self.stored = frozenset(stored)
        self._table = {**(GGUF_NAMES if dialect == "gguf" else HF_NAMES), **(overrides or {})}
        self.prefix = ""
        if dialect == "hf":
            found = [pair for pair in HF_PREFIXES if f"{pair[0]}embed_tokens.weight" in self.stored]
            self.prefix, head = found[0] if found else HF_PREFIXES[0]
            self._table["head"] = head

    def candidates(self, name: str) -> list[str]:
        """Every stored name that a canonical one may have; the first is the usual one."""
        index: dict[str, str] = {}
        parts = name.split(".")
        suffix = "weight"
        if parts[-1] in ("bias", "scale"):
            suffix = {"bias": "bias", "scale": "weight_scale"}[parts.pop()]
        if parts[0] == "layers":
            index["i"], parts = parts[1], parts[2:]
        if parts[0] == "expert":  # expert.E.gate
            index["e"], parts = parts[1], [parts[0], parts[2]]
        pattern = self._table.get(".".join(parts))
        if pattern is None:
            return []
        spellings = [p.format(**index) for p in ((pattern,) if isinstance(pattern, str) else pattern)]
        prefix = "" if parts == ["head"] else self.prefix
        names = [f"{prefix}{spelling}.{suffix}" for spelling in spellings]
        # Fused experts of newer Hugging Face checkpoints are parameters, not modules: no ".weight".
        return names + [f"{prefix}{spelling}" for spelling in spellings if self.dialect == "hf" and suffix == "weight"]

    def find(self, name: str) -> str | None:
        """The stored name of a canonical one, or None when the checkpoint has no such tensor."""
        return next((stored for stored in self.candidates(name) if stored in self.stored), None)

    def usual(self, name: str) -> str:
        return (self.candidates(name) or [name])[0]

    def in_layers(self) -> Iterator[str]:
        """Stored names of everything inside the decoder's layers."""
        start = f"{self.prefix}layers." if self.dialect == "hf" else "blk."
        return (name for name in self.stored if name.startswith(start))

    def layers(self) -> int:
        """How many layers the checkpoint has tensors for: one more than the highest number seen."""
        start = f"{self.prefix}layers." if self.dialect == "hf" else "blk."
        numbers = {name[len(start) :].split(".", 1)[0] for name in self.in_layers()}
        return max((int(n) for n in numbers if n.isdecimal() and len(n) < 9), default=-1) + 1
