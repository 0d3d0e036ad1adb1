"""What to read before it is asked for. `--prefetch NAME` of run and serve."""

from edgewise.base import Catalog

PREFETCHERS = Catalog(
    "prefetcher",
    __name__,
    {
        "none": ".none:NoPrefetcher",
        "lookahead": ".lookahead:Lookahead",
        "transitions": ".transitions:Transitions",
    },
)
