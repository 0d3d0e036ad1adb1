"""What members need from each other (caps) and where they may listen (taps). Compatibility is data, checked once."""

import enum


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
