"""Which neurons of a feed-forward part are computed. `--neurons NAME`, for models laid out by neurons."""

from edgewise.base import Catalog

NEURONS = Catalog(
    "neurons",
    __name__,
    {
        "all": ".all:AllNeurons",
        "gate": ".gate:FiringNeurons",
        "predictor": ".predictor:PredictedNeurons",
    },
)
USUAL, USUAL_RELU = "all", "gate"
