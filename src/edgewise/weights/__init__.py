"""L3: every byte of the model."""

from edgewise.weights.opening import open_checkpoint

__all__ = ["open_checkpoint"]
