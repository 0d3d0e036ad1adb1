"""The next layer's router is asked early, on what enters this layer's experts; its likeliest choices are fetched.

Paper:  Eliseev and Mazur, Fast Inference of MoE Language Models with Offloading, arXiv 2312.17238 (speculative loading)
Exact.
Needs:  nothing
Cost:   one more router product a layer; bytes read in vain where the guess is wrong
Status: kept
"""

from collections.abc import Callable, Sequence


class Lookahead:
    """most: experts that are guessed."""

    def __init__(self, most: int = 2) -> None:
        self.most = most

    def wants(self, layer: int, chosen: Sequence[int], gate: Callable[[], Sequence[int]]) -> Sequence[int]:
        return gate()[: self.most]
