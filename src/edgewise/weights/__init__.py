"""L3: every byte of the model."""
