"""L4: one file per architecture. The key is the HF model_type (GGUF names are aliases)."""

from edgewise.base import Catalog
from edgewise.models.loading import Loading, begin_model, load_model, read_spec

MODELS = Catalog("model", __name__, {
    "llama": ".llama:Llama",
    "mistral": ".mistral:Mistral",
    "qwen2": ".qwen2:Qwen2",
    "qwen3": ".qwen3:Qwen3",
    "gemma2": ".gemma2:Gemma2",
    "gemma3": ".gemma3:Gemma3",
    "gemma3_text": ".gemma3:Gemma3",
    "phi3": ".phi3:Phi3",
    "olmo2": ".olmo2:Olmo2",
    "smollm3": ".smollm3:SmolLM3",
    "bitnet": ".bitnet:BitNet",
    "mixtral": ".mixtral:Mixtral",
    "qwen2_moe": ".qwen2_moe:Qwen2Moe",
    "qwen2moe": ".qwen2_moe:Qwen2Moe",
    "qwen3_moe": ".qwen3_moe:Qwen3Moe",
    "qwen3moe": ".qwen3_moe:Qwen3Moe",
    "olmoe": ".olmoe:Olmoe",
    "smallthinker": ".smallthinker:SmallThinker",
})

__all__ = ["MODELS", "Loading", "begin_model", "load_model", "read_spec"]
