"""Where bytes come from."""

from edgewise.base import Catalog

SOURCES = Catalog(
    "source",
    __name__,
    {
        "file": ".file:FileSource",
        "faulty": ".faulty:FaultySource",
        "slow": ".slow:SlowSource",
    },
)
