"""Who leaves when weights do not all fit. `--residency NAME` of run and serve."""

from edgewise.base import Catalog

FOR_EXPERTS, FOR_LAYERS = "lru", "ring"  # when nobody says

RESIDENCIES = Catalog(
    "residency",
    __name__,
    {
        "none": ".none:NoResidency",
        "lru": ".lru:Lru",
        "lfu": ".lfu:Lfu",
        "mrs": ".mrs:Mrs",
        "ring": ".ring:Ring",
    },
)
