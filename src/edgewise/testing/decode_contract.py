"""What every sampler, rule and speculator must do. Subclass in a test file and implement `make`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgewise.base import Cap, Request, SamplingParams, SeqId, Tap
from edgewise.decode.api import LogitsRule, Sampler, SeqView, Speculator
from edgewise.decode.samplers import SAMPLERS
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.verifiers import VERIFIERS
from edgewise.engine.loop import Engine
from edgewise.engine.policies import POLICIES
from edgewise.engine.runners import RUNNERS
from edgewise.kernels.devices import DEVICES
from edgewise.testing.toy import ToyModel

SETTINGS: Sequence[dict[str, Any]] = (
    {}, {"temperature": 0}, {"temperature": 1e-9}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.2},
    {"temperature": 4.0, "top_k": 9, "top_p": 0.9, "min_p": 0.01},
)  # fmt: skip


class SamplerContract:
    def make(self) -> Sampler:
        raise NotImplementedError

    def test_the_same_question_gets_the_same_answer(self) -> None:
        row = np.random.default_rng(0).standard_normal(300).astype(np.float32)
        for settings in SETTINGS:
            params = SamplingParams(**settings)
            first = [self.make().sample(row, params, 5, position) for position in range(30)]
            sampler = self.make()
            assert first == [sampler.sample(row, params, 5, position) for position in range(30)]

    def test_the_row_is_not_edited(self) -> None:
        row = np.random.default_rng(0).standard_normal(300).astype(np.float32)
        kept = row.copy()
        for settings in SETTINGS:
            self.make().sample(row, SamplingParams(**settings), 1, 1)
        assert np.array_equal(row, kept)

    def test_greedy_takes_the_lowest_of_equals(self) -> None:
        row = np.zeros(40, np.float32)
        row[[11, 30]] = 2
        assert self.make().sample(row, SamplingParams(temperature=0), 9, 9) == 11

    def test_forbidden_tokens_never_come(self) -> None:
        row = np.full(300, -np.inf, np.float32)
        row[[7, 150, 299]] = (0.0, 0.5, 0.2)
        for settings in SETTINGS:
            drawn = {self.make().sample(row, SamplingParams(**settings), 3, position) for position in range(60)}
            assert drawn <= {7, 150, 299}


class RuleContract:
    """make() → a rule with settings under which it does something to `tokens` of a prompt of 3."""

    tokens: tuple[int, ...] = (1, 2, 3, 9, 9, 4)

    def make(self) -> LogitsRule:
        raise NotImplementedError

    def apply(self, rule: LogitsRule, tokens: Sequence[int]) -> list[float]:
        row = np.linspace(-2, 2, 20, dtype=np.float32)
        edited: list[float] = rule.apply(SeqView(SeqId(0), tokens, 3, SamplingParams()), row).tolist()
        return edited

    def test_state_follows_from_the_tokens(self) -> None:
        """Fed step by step, jumped to, or taken back: a rule's answer depends on the sequence only."""
        grown, tokens = self.make(), list(self.tokens[:3])
        for token in self.tokens[3:]:
            tokens.append(token)
            step = self.apply(grown, tokens)
            assert step == self.apply(self.make(), tokens)
        assert self.apply(grown, self.tokens[:4]) == self.apply(self.make(), self.tokens[:4])

    def test_it_makes_no_nan(self) -> None:
        assert not np.isnan(self.apply(self.make(), self.tokens)).any()


class SpeculatorContract:
    """Greedy output is the output without speculation. verifier: the catalog name of one that reads its drafts."""

    verifier = "none"

    def make(self) -> Speculator:
        raise NotImplementedError

    def run(self, speculator: Speculator, verifier: str, pages: int = 64) -> dict[str, list[int]]:
        device = DEVICES.build("reference")
        model = ToyModel(device)
        kv = model.cache(pages)
        loop = Engine(
            RUNNERS.build("text", model=model, kv=kv, device=device), kv, POLICIES.build("fcfs"), speculator,
            VERIFIERS.build(verifier, sampler=SAMPLERS.build("greedy")), vocab=61, context=128,
        )  # fmt: skip
        for at in range(4):
            prompt = np.random.default_rng(at).integers(0, 61, 6 + 9 * at).tolist()
            loop.add(Request(tuple(prompt * 2), SamplingParams(temperature=0, max_tokens=30), str(at)))
        got: dict[str, list[int]] = {}
        while loop.has_work():
            for event in loop.step():
                assert event.error is None
                got.setdefault(event.request_id, []).extend(event.tokens)
        assert kv.free_tokens() == loop.capacity
        return got

    def test_greedy_output_is_unchanged(self) -> None:
        want = self.run(SPECULATORS.build("none"), "none")
        assert self.run(self.make(), self.verifier) == want
        assert self.run(self.make(), self.verifier, pages=12) == want  # with preemption

    def test_it_says_what_it_needs(self) -> None:
        assert all(isinstance(cap, Cap) for cap in self.make().needs)
        assert all(isinstance(tap, Tap) for tap in self.make().taps)
