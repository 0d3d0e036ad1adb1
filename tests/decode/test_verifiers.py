"""Which drafted tokens stay: the same text for `match`, the same distribution for `rejection`; `typical` is lossy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgewise.base import SamplingParams, SeqId
from edgewise.decode.api import Accepted, Draft, SeqView, Verifier
from edgewise.decode.rules.penalties import Penalties
from edgewise.decode.samplers.standard import StandardSampler, draw, uniform
from edgewise.decode.verifiers import VERIFIERS, build_verifier
from edgewise.decode.verifiers.rejection import resolve

VOCAB = 64
DRAWS = 100_000


def make(name: str) -> Verifier:
    verifier: Verifier = VERIFIERS.build(name, sampler=StandardSampler())
    return verifier


def view(tokens: Sequence[int] = (1, 2, 3), seed: int = 0, ends: Sequence[int] = (), **params: Any) -> SeqView:
    return SeqView(SeqId(4), list(tokens), 2, SamplingParams(**params), seed, frozenset(ends))


def rows(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal((count, VOCAB)) * 2).astype(np.float32)


def accept(name: str, at: SeqView, draft: Draft, logits: Any, rules: Sequence[Any] = ()) -> Accepted:
    kept = logits.copy()
    found = make(name).accept(at, draft, logits, rules, logits.argmax(axis=1).tolist())
    assert np.array_equal(kept, logits)
    return found


def chance(seen: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """The upper tail of chi-squared (Wilson and Hilferty's normal); cells that expect little are put together."""
    from statistics import NormalDist

    rare = expected < 8
    if rare.any():
        seen, expected = np.append(seen[~rare], seen[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    free = len(seen) - 1
    statistic = float(((seen - expected) ** 2 / np.maximum(expected, 1e-9)).sum())
    z = ((statistic / free) ** (1 / 3) - (1 - 2 / (9 * free))) / (2 / (9 * free)) ** 0.5
    return 1 - NormalDist().cdf(z)


def softmax(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    e = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float64] = e / e.sum(axis=-1, keepdims=True)
    return shares


@pytest.mark.parametrize("name", ["match", "rejection", "typical"])
def test_greedy_walks_the_tree_and_adds_one(name: str) -> None:
    logits = rows(6)
    first, second = int(logits[0].argmax()), int(logits[3].argmax())
    draft = Draft((9, first + 1, first, 8, second), (-1, -1, -1, 0, 2))
    logits[0, first] += 1
    found = accept(name, view(temperature=0), draft, logits)
    assert found == Accepted(SeqId(4), (first, second, int(logits[5].argmax())), (2, 4), (0, 3, 5))
    assert accept(name, view(temperature=0), Draft(), logits[:1]).tokens == (first,)
    wrong = Draft.chain([(first + 1) % VOCAB, 3])
    assert accept(name, view(temperature=0), wrong, logits).tokens == (first,)


@pytest.mark.parametrize("name", ["match", "rejection", "typical"])
def test_nothing_follows_a_token_that_ends_the_text(name: str) -> None:
    logits = rows(3)
    best = [int(row.argmax()) for row in logits]
    found = accept(name, view(temperature=0, ends=[best[0]]), Draft.chain(best[:2]), logits)
    assert (found.tokens, found.nodes, found.logits_rows) == ((best[0],), (0,), (0,))


def test_a_node_sees_its_own_history() -> None:
    """What was accepted a token ago is already punished; the rejected sibling is not."""
    logits = np.zeros((3, VOCAB), np.float32)
    logits[:, 7], logits[:, 9] = 2.0, 1.5
    found = accept("match", view(temperature=0), Draft((7, 9), (-1, -1)), logits, [Penalties(1.0, 1.0, 0.0)])
    assert found.tokens == (7, 9)
    plain = accept("match", view(temperature=0), Draft.chain((7, 9)), logits, [Penalties(1.0, 1.0, 0.0)])
    assert plain.tokens == (7, 9, 7)  # both at 1.0 and 0.5 now


@pytest.mark.parametrize("settings", [{"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.8, "top_k": 9}])
def test_match_draws_what_plain_sampling_draws(settings: dict[str, Any]) -> None:
    logits, none, kept = rows(4), make("none"), 0
    for seed in range(200):
        want, tokens = [], [1, 2, 3]
        for row in logits:
            got = none.accept(view(tokens, seed, **settings), Draft(), row[None], (), [int(row.argmax())])
            want += got.tokens
            tokens += got.tokens
        draft = Draft.chain([want[0], want[1] if seed % 2 else (want[1] + 1) % VOCAB, want[2]])
        found = accept("match", view(seed=seed, **settings), draft, logits)
        assert found.tokens == tuple(want[: len(found.tokens)])
        kept += len(found.nodes)
    assert kept == 100 * 3 + 100 * 1


@pytest.mark.parametrize(("count", "replaced"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("near", [0.3, 2.0])
def test_refusing_keeps_the_distribution(count: int, replaced: bool, near: float) -> None:
    """Chi-squared over 64 tokens, 100,000 draws: chain, tree without and with replacement; q near p, and far."""
    numbers = np.random.default_rng(11)
    base = numbers.standard_normal(VOCAB) * 1.5
    p, q = softmax(base), softmax(base + near * numbers.standard_normal(VOCAB))
    draws = DRAWS // 2  # both values of `near` together make up the number
    if replaced or count == 1:
        drawn = numbers.choice(VOCAB, (draws, count), p=q)
    else:  # the largest of log q + Gumbel noise: without replacement
        drawn = np.argsort(-(np.log(q) + numbers.gumbel(size=(draws, VOCAB))), axis=1)[:, :count]
    coins = numbers.random((draws, count + 1)).tolist()
    got = [resolve(p, q, tokens, dice, replaced) for tokens, dice in zip(drawn.tolist(), coins, strict=True)]
    seen = np.bincount(got, minlength=VOCAB)
    assert chance(seen, p * draws) > 0.01
    assert chance(seen, q * draws) < 1e-9  # the test can fail


def test_children_that_were_chosen_cannot_be_refused_like_drawn_ones() -> None:
    """The control: handing a fixed token to the rule for drawn ones shifts the distribution, and the test sees it."""
    p, q = softmax(rows(1)[0]), softmax(rows(1, 5)[0])
    coins = np.random.default_rng(2).random((20_000, 2)).tolist()
    seen = np.bincount([resolve(p, q, [int(q.argmax())], dice, False) for dice in coins], minlength=VOCAB)
    assert chance(seen, p * 20_000) < 1e-9


@pytest.mark.parametrize("shape", ["chain", "tree"])
def test_rejection_by_seed_gives_pairs_with_the_right_frequency(shape: str) -> None:
    """Two positions over 8 tokens: all 64 pairs, with the numbers that a request's own seed gives."""
    numbers = np.random.default_rng(6)
    base = numbers.standard_normal((9, 8)).astype(np.float32)
    p, q = softmax(base), softmax(base + 0.8 * numbers.standard_normal((9, 8)))
    pairs = np.zeros((8, 8))
    for seed in range(5_000):
        at = view(seed=seed, temperature=1.0)
        one = draw(q[8], uniform(seed, 3, 9))
        rest = q[8].copy()
        rest[one] = 0
        two = draw(rest, uniform(seed, 3, 10))
        if shape == "chain":
            draft = Draft.chain([one, draw(q[one], uniform(seed, 4, 9))], [q[8], q[one]])
            logits = base[[8, one, 0]]
        else:
            under = draw(q[two], uniform(seed, 4, 9))
            draft = Draft((one, two, under), (-1, -1, 1), (q[8], q[8], q[two]))
            logits = base[[8, one, two, 0]]
        tokens = list(make("rejection").accept(at, draft, logits, (), [0] * len(logits)).tokens)
        if len(tokens) == 1:
            tokens += make("none").accept(view([1, 2, 3, tokens[0]], seed), Draft(), base[tokens[:1]], (), [0]).tokens
        pairs[tokens[0], tokens[1]] += 1
    assert chance(pairs.ravel(), (p[8][:, None] * p[:8]).ravel() * 5_000) > 0.01


def test_typical_is_lossy_and_says_so() -> None:
    import edgewise.decode.verifiers.typical as module

    assert "LOSSY" in (module.__doc__ or "")
    row = np.zeros((2, VOCAB), np.float32)
    row[:, 5] = 4.0
    kept = sum(accept("typical", view(seed=s, temperature=1.0), Draft.chain([5]), row).nodes == (0,) for s in range(50))
    assert kept == 50  # likely enough, so never refused, though its probability is below 1
    assert 0.4 < softmax(row[0])[5] < 0.6


def test_auto_checks_only_where_somebody_drafts() -> None:
    assert type(build_verifier("auto", "none", StandardSampler())).__name__ == "NoVerifier"
    assert type(build_verifier("auto", "suffix:n=3", StandardSampler())).__name__ == "MatchVerifier"
    assert build_verifier("rejection", "none", StandardSampler()).odds
