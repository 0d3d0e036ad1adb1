"""L3: what the model remembers."""

from edgewise.base import Catalog

CACHES = Catalog("kv", __name__, {
    "paged": ".paged:PagedCache",
})
