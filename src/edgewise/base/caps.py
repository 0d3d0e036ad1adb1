"""What members need from each other (caps) and where they may listen (taps). Compatibility is data, checked once."""

import enum

from edgewise.base.errors import Incompatible


class Cap(enum.Enum):
    """A promise one member gives and another needs."""

    REWIND = "rewind"  # a KV cache can drop its newest tokens
    FORK = "fork"  # a KV cache can share a prefix copy-on-write
    EXPORT = "export"  # a KV cache can hand its content to another
    TREE = "tree"  # attention accepts a draft tree
    EXACT = "exact"  # greedy output equals the null member's


class Tap(enum.Enum):
    """A read-only view that a model announces while it runs."""

    HIDDEN = "hidden"  # (tokens, dim) after a layer
    GATE = "gate"  # (tokens, experts) router logits
    STATES = "states"  # (rows whose logits are wanted, dim) after the last norm


def check_needs(who: str, needs: frozenset[Cap], giver: str, gives: frozenset[Cap]) -> None:
    """Raises Incompatible, saying what is missing."""

    def names(caps: frozenset[Cap]) -> str:
        return ", ".join(sorted(cap.name for cap in caps)) or "nothing"

    if needs - gives:
        raise Incompatible(f"{who} needs {names(needs - gives)}; {giver} gives {names(gives)}. Change one of them.")
