"""L5: from logits to tokens."""
