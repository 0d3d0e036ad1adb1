"""Which format each tensor gets under a `--quant` name. The names are llama.cpp's; the mixes are simple and told here.

- Vectors (norms, biases), routers and rope factors stay F32.
- fp8_e4m3, fp8_e5m2: the linear weights of the layers in blocks of 128 x 128, in folders only (convert/float8.py).
- f32, f16, bf16, q8_0, q6_k: every matrix has that format.
- q4_0, q4_1, q5_0, q5_1, q2_k, q3_k_s, q4_k_s, q5_k_s: the same, but the head (the embedding, when the head is tied
  to it) has Q6_K: it sees every token, and it is the part that few bits hurt most.
- q3_k_m, q4_k_m, q5_k_m (also written without the _m): of the value and down projections, those in the first and the
  last eighth of the layers and every third between get the next better format.
- int1, ternary, int2, int3, int4, int8, with :group=32, 64 or 128: our own formats, every matrix, in safetensors only.
- A matrix whose columns are no multiple of the format's block gets Q8_0, or F16 where that does not fit either.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgewise.base import Unsupported
from edgewise.base.catalog import nearest
from edgewise.kernels import formats

# In which format a tensor is kept when its own does not fit its columns: the first that does.
FALLBACKS = ("Q8_0", "F16")
FLOATS = ("F32", "F16", "BF16")  # what safetensors and GGUF both hold


@dataclass(frozen=True)
class Mix:
    """usual: most matrices. head: the output matrix. better: the sensitive half of value and down projections."""

    usual: str
    head: str | None = None
    better: str | None = None
    file_type: int = 0  # what GGUF calls the mix in general.file_type


MIXES: Mapping[str, Mix] = {
    "f32": Mix("F32", file_type=0),
    "f16": Mix("F16", file_type=1),
    "bf16": Mix("BF16", file_type=32),
    "fp8_e4m3": Mix("F8_E4M3"),
    "fp8_e5m2": Mix("F8_E5M2"),
    "q8_0": Mix("Q8_0", file_type=7),
    "q6_k": Mix("Q6_K", file_type=18),
    "q4_0": Mix("Q4_0", "Q6_K", file_type=2),
    "q4_1": Mix("Q4_1", "Q6_K", file_type=3),
    "q5_0": Mix("Q5_0", "Q6_K", file_type=8),
    "q5_1": Mix("Q5_1", "Q6_K", file_type=9),
    "q2_k": Mix("Q2_K", "Q6_K", "Q3_K", file_type=10),
    "q3_k_s": Mix("Q3_K", "Q6_K", file_type=11),
    "q3_k_m": Mix("Q3_K", "Q6_K", "Q5_K", file_type=12),
    "q4_k_s": Mix("Q4_K", "Q6_K", file_type=14),
    "q4_k_m": Mix("Q4_K", "Q6_K", "Q6_K", file_type=15),
    "q5_k_s": Mix("Q5_K", "Q6_K", file_type=16),
    "q5_k_m": Mix("Q5_K", "Q6_K", "Q6_K", file_type=17),
}
ALIASES = {"fp8": "fp8_e4m3", "q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m", "fp16": "f16", "fp32": "f32"}
_LAYER = re.compile(r"blk\.(\d+)\.")
_SENSITIVE = ("attn_v.weight", "ffn_down.weight", "ffn_down_exps.weight")
_FULL = ("ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "rope_freqs.weight", "rope_factors_long.weight",
         "rope_factors_short.weight")  # fmt: skip


def find_mix(quant: str) -> Mix:
    """The mix of a `--quant` name, upper or lower case. Raises Unsupported naming the nearest."""
    name = quant.lower().replace("-", "_")
    mix = MIXES.get(ALIASES.get(name, name))
    if mix is None and name.partition(":")[0] in formats.OWN:
        return Mix(formats.find(name).name)
    if mix is None:
        known = sorted({*MIXES, *ALIASES, *formats.OWN})
        raise Unsupported(f"There is no quantisation '{quant}'.{nearest(name, known)}")
    return mix


def choose(mix: Mix, name: str, shape: tuple[int, ...], *, layers: int, tied: bool) -> str:
    """The format of the tensor that GGUF calls `name`."""
    if len(shape) < 2 or name.endswith(_FULL):
        return "F32"
    wanted = mix.usual
    if mix.head is not None and name == ("token_embd.weight" if tied else "output.weight"):
        wanted = mix.head
    layer = _LAYER.match(name)
    if mix.better is not None and layer and name.endswith(_SENSITIVE) and sensitive(int(layer[1]), layers):
        wanted = mix.better
    return fitting(wanted, shape[-1])


def sensitive(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third of those between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def choose_own(fmt: str, shape: tuple[int, ...], stored: str, *, vector: bool) -> str:
    """The format of a tensor in safetensors, where vectors and routers stay floats: `fmt`, at a smaller group if need
    be, or the float it is stored as."""
    kept = stored if stored in FLOATS else "F32"
    if vector:
        return kept
    groups = [g for g in formats.GROUPS[::-1] if g <= formats.find(fmt).block]
    name = fmt.partition(":")[0]
    return next((f"{name}:group={g}" for g in groups if shape[-1] % g == 0), kept)


def fitting(fmt: str, columns: int) -> str:
    """`fmt`, or the fallback whose blocks fit rows of so many columns."""
    return next((f for f in (fmt, *FALLBACKS) if columns % formats.find(f).block == 0), "F16")
