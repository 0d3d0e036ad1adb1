"""Who decides which drafted tokens stay."""

from edgewise.base import Catalog

VERIFIERS = Catalog("verifier", __name__, {
    "none": ".none:NoVerifier",
})
