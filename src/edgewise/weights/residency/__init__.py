"""Who leaves when weights do not all fit. `--residency NAME` of run and serve."""

from edgewise.base import Catalog

# When nobody says. With less room than one token asks of all layers together LRU keeps nothing until it is asked for
# again, as on any list that is gone through in order; scores do.
FOR_EXPERTS, FOR_FEW_EXPERTS, FOR_LAYERS, FOR_NEURONS = "lru", "mrs", "ring", "neuron-window"
SCARCE = 1.5  # tokens' worth of experts

RESIDENCIES = Catalog(
    "residency",
    __name__,
    {
        "none": ".none:NoResidency",
        "lru": ".lru:Lru",
        "lfu": ".lfu:Lfu",
        "mrs": ".mrs:Mrs",
        "ring": ".ring:Ring",
        "neuron-window": ".neuron_window:NeuronWindow",
    },
)
