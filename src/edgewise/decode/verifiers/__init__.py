"""Who decides which drafted tokens stay."""

from edgewise.base import Catalog
from edgewise.decode.api import Sampler, Verifier

VERIFIERS = Catalog("verifier", __name__, {
    "none": ".none:NoVerifier",
    "match": ".match:MatchVerifier",
    "rejection": ".rejection:RejectionVerifier",
    "typical": ".typical:TypicalVerifier",
})  # fmt: skip


def build_verifier(name: str, speculator: str, sampler: Sampler) -> Verifier:
    """auto: the one whose output is plain decoding's, bit for bit, under the same seed."""
    if name == "auto":
        name = "none" if speculator == "none" else "match"
    verifier: Verifier = VERIFIERS.build(name, sampler=sampler)
    return verifier
