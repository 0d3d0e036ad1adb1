"""What every KV cache must do. Subclass in a test file and implement `make`; every test works by equality of bits."""

from collections.abc import Sequence

import numpy as np
import pytest

from edgewise.base import Cap, OutOfRoom, SeqId
from edgewise.kernels.api import AttnSpec, Device, Floats, SeqRows
from edgewise.kv.api import KVCache

LAYERS, HEADS, KV_HEADS, HEAD_DIM = 2, 4, 2, 16


def projections(tokens: Sequence[int], layer: int) -> list[Floats]:
    """q, k, v of a sequence of token ids; a row depends on its token, position and layer only."""
    rows = [np.random.default_rng((token, at, layer)) for at, token in enumerate(tokens)]
    return [
        np.stack([r.standard_normal(heads * HEAD_DIM).astype(np.float32) for r in rows])
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]


def feed(device: Device, kv: KVCache, parts: Sequence[tuple[int, Sequence[int], int]]) -> list[Floats]:
    """Runs one step for (seq, all its tokens so far, how many of them are cached); the layers' attention, summed."""
    seqs, start = [], 0
    for seq, tokens, past in parts:
        kv.reserve(SeqId(seq), len(tokens))
        seqs.append(SeqRows(seq, start, len(tokens) - past, past))
        start += len(tokens) - past
    plan = kv.begin(seqs)
    total = np.zeros((start, HEADS * HEAD_DIM), np.float32)
    for layer in range(LAYERS):
        pieces = [[x[past:] for x in projections(tokens, layer)] for _, tokens, past in parts]
        q, k, v = (device.upload(np.concatenate(rows)) for rows in zip(*pieces, strict=True))
        spec = AttnSpec(layer, HEADS, KV_HEADS, HEAD_DIM, HEAD_DIM**-0.5)
        total += device.download(kv.attend(spec, q, k, v, plan))
    kv.commit(seqs)
    return [total[s.start : s.start + s.count].copy() for s in seqs]


class KVCacheContract:
    """make(device, pages, page_tokens) → a cache of LAYERS layers, KV_HEADS heads of HEAD_DIM."""

    TOKENS = tuple(range(3, 60))

    def make(self, device: Device, pages: int = 16, page_tokens: int = 16) -> KVCache:
        raise NotImplementedError

    def whole(self, device: Device, tokens: Sequence[int]) -> Floats:
        """The same tokens in a cache of their own, in one step."""
        kv = self.make(device)
        kv.open(SeqId(0), tokens)
        return feed(device, kv, [(0, tokens, 0)])[0]

    @pytest.mark.parametrize("chunk", [1, 7, 16, 40])
    def test_chunks_equal_the_whole(self, device: Device, chunk: int) -> None:
        kv, tokens = self.make(device), self.TOKENS
        kv.open(SeqId(5), tokens)
        pieces = [
            feed(device, kv, [(5, tokens[: past + chunk], past)])[0] for past in range(0, len(tokens), chunk)
        ]
        assert np.array_equal(np.concatenate(pieces), self.whole(device, tokens))
        assert kv.length(SeqId(5)) == len(tokens)

    @pytest.mark.parametrize("page_tokens", [16, 32, 64])
    def test_page_size_changes_no_bit(self, device: Device, page_tokens: int) -> None:
        kv, tokens = self.make(device, 8, page_tokens), self.TOKENS
        kv.open(SeqId(0), tokens)
        assert np.array_equal(feed(device, kv, [(0, tokens, 0)])[0], self.whole(device, tokens))

    @pytest.mark.parametrize("keep", [0, 1, 15, 16, 17, 33, 57])
    def test_rewind_then_append_equals_fresh(self, device: Device, keep: int) -> None:
        kv = self.make(device)
        assert Cap.REWIND in kv.gives
        kv.open(SeqId(0), self.TOKENS)
        feed(device, kv, [(0, self.TOKENS, 0)])
        kv.rewind(SeqId(0), keep)
        assert kv.length(SeqId(0)) == keep
        other = (*self.TOKENS[:keep], *range(200, 230))
        assert np.array_equal(feed(device, kv, [(0, other, keep)])[0], self.whole(device, other)[keep:])

    @pytest.mark.parametrize("shared", [1, 16, 20, 32])
    def test_fork_is_isolated(self, device: Device, shared: int) -> None:
        kv = self.make(device)
        assert Cap.FORK in kv.gives
        prefix = self.TOKENS[:shared]
        kv.open(SeqId(0), prefix)
        feed(device, kv, [(0, prefix, 0)])
        kv.fork(SeqId(0), SeqId(1))
        kv.fork(SeqId(1), SeqId(2))
        branches = {seq: [*prefix] for seq in range(3)}
        for step in range(20):  # turns taken in a different order each time, so that everybody writes first once
            for seq in np.random.default_rng(step).permutation(3).tolist():
                branches[seq].append(100 * seq + step)
                got = feed(device, kv, [(seq, branches[seq], len(branches[seq]) - 1)])[0]
                assert np.array_equal(got, self.whole(device, branches[seq])[-1:])

    def test_fork_survives_the_parent(self, device: Device) -> None:
        kv, prefix = self.make(device), self.TOKENS[:20]
        kv.open(SeqId(0), prefix)
        feed(device, kv, [(0, prefix, 0)])
        kv.fork(SeqId(0), SeqId(1))
        kv.close(SeqId(0))
        longer = (*prefix, *range(90, 110))
        kv.open(SeqId(7), self.TOKENS)
        feed(device, kv, [(7, self.TOKENS, 0)])  # takes whatever pages are free
        assert np.array_equal(feed(device, kv, [(1, longer, 20)])[0], self.whole(device, longer)[20:])

    @pytest.mark.parametrize("shared", [3, 16, 20])
    def test_one_becomes_another(self, device: Device, shared: int) -> None:
        kv, prefix = self.make(device), self.TOKENS[:shared]
        room = kv.free_tokens()
        kv.open(SeqId(0), prefix)
        feed(device, kv, [(0, prefix, 0)])
        kv.fork(SeqId(0), SeqId(1))
        one, other = (*prefix, *range(90, 110)), (*prefix, *range(40, 62))
        feed(device, kv, [(0, one, shared), (1, other, shared)])
        kv.become(SeqId(0), SeqId(1))
        assert kv.length(SeqId(0)) == len(other)
        kv.rewind(SeqId(0), shared + 5)
        longer = (*other[: shared + 5], 7, 8, 9)
        got = feed(device, kv, [(0, longer, shared + 5)])[0]
        assert np.array_equal(got, self.whole(device, longer)[shared + 5 :])
        kv.close(SeqId(0))
        assert kv.free_tokens() == room

    def test_neighbours_change_no_bit(self, device: Device) -> None:
        kv = self.make(device)
        for seq in range(3):
            kv.open(SeqId(seq), ())
        parts = [(0, tuple(range(70, 75)), 0), (1, self.TOKENS, 0), (2, (9,), 0)]
        for (_, tokens, _), got in zip(parts, feed(device, kv, parts), strict=True):
            assert np.array_equal(got, self.whole(device, tokens))

    def test_full_cache_refuses_and_keeps_what_it_has(self, device: Device) -> None:
        kv = self.make(device, 2, 16)
        kv.open(SeqId(0), ())
        feed(device, kv, [(0, self.TOKENS[:20], 0)])
        with pytest.raises(OutOfRoom, match=r"33 tokens need 1 more pages .* 0 of 2 are free"):
            kv.reserve(SeqId(0), 33)
        assert kv.length(SeqId(0)) == 20
        got = feed(device, kv, [(0, self.TOKENS[:32], 20)])[0]
        assert np.array_equal(got, self.whole(device, self.TOKENS[:32])[20:])

    def test_close_frees_everything(self, device: Device) -> None:
        kv = self.make(device)
        room = kv.free_tokens()
        for seq in range(3):
            kv.open(SeqId(seq), ())
            feed(device, kv, [(seq, self.TOKENS[: 10 + 20 * seq], 0)])
        kv.fork(SeqId(0), SeqId(9))
        assert kv.free_tokens() < room
        for seq in (0, 1, 9, 2):
            kv.close(SeqId(seq))
        assert kv.free_tokens() == room
