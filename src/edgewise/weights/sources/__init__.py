"""Where bytes come from. `--source NAME` of run and plan; auto: `weights.probing` chooses."""

from edgewise.base import Catalog

SOURCES = Catalog(
    "source",
    __name__,
    {
        "file": ".file:FileSource",
        "uring": ".uring:UringSource",
        "cached": ".cached:CachedSource",
        "faulty": ".faulty:FaultySource",
        "slow": ".slow:SlowSource",
    },
)
