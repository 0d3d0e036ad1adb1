"""The file formats we read. `edgewise.weights.open_checkpoint(path)` chooses by the path and the first bytes."""

from edgewise.base import Catalog

CHECKPOINTS = Catalog(
    "checkpoint",
    __name__,
    {
        "safetensors": ".safetensors:SafetensorsCheckpoint",
        "gguf": ".gguf:GgufCheckpoint",
        "streamed": ".streamed:StreamedCheckpoint",
    },
)
