"""L4: one file per architecture. The key is the HF model_type (GGUF names are aliases)."""
