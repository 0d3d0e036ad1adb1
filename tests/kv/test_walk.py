"""Row R24: a random walk finds nothing in the cache as it is, and every one of a dozen seeded bugs."""

import pytest

from edgewise.kv.pages import Pages
from edgewise.testing.kv_bugs import BUGS, WeakHash, cache_with
from edgewise.testing.kv_walk import Walk, walk


@pytest.mark.parametrize("seed", range(3))
def test_a_walk_finds_nothing(seed: int) -> None:
    one = walk(4000, seed)
    assert one.reused > 40
    assert min(one.done.values()) > 100, one.done


def test_a_weak_hash_is_no_danger_while_tokens_are_compared() -> None:
    assert walk(6000, 5, cache_with(WeakHash)).reused > 40


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_seeded_bug_is_found(bug: type[Pages]) -> None:
    def walks() -> None:
        for seed in range(4):
            walk(5000, seed, cache_with(bug))

    with pytest.raises((AssertionError, KeyError, IndexError, ValueError)):
        walks()


def test_a_swap_that_mixes_up_pages_is_found() -> None:
    class Mixed(Walk):
        def swap_in(self) -> None:
            for seq, (text, chunks) in self.kept.items():
                if len(chunks[0]) >= 256:
                    self.kept[seq] = text, [chunks[0].reshape(-1, 128)[::-1].reshape(-1).copy()]
            super().swap_in()

    def mixed() -> None:
        one = Mixed(1)
        for _ in range(5000):
            one.step()

    with pytest.raises(AssertionError, match="reads another"):
        mixed()
