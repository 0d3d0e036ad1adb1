"""L5: from logits to tokens. Speculator → rules → sampler inside a verifier; every slot has a null member."""
