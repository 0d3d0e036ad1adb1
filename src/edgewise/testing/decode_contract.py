"""What every sampler, rule and speculator must do. Subclass in a test file and implement `make`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from edgewise.base import Cap, Request, SamplingParams, SeqId, Tap
from edgewise.decode.api import Accepted, Draft, LogitsRule, Sampler, SeqView, Speculator, Spent, Target
from edgewise.decode.samplers import SAMPLERS
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.verifiers import VERIFIERS
from edgewise.engine.api import StepCost
from edgewise.engine.loop import Engine
from edgewise.engine.policies import POLICIES
from edgewise.engine.runners import RUNNERS
from edgewise.kernels.api import Device
from edgewise.kernels.devices import DEVICES
from edgewise.kv.swap import SwapFile
from edgewise.testing.toy import ToyModel
from edgewise.weights.api import Header

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
    """Output is the output without speculation. verifier: the catalog name of one that reads its drafts."""

    verifier = "match"

    def make(self) -> Speculator:
        raise NotImplementedError

    def run(
        self, speculator: Speculator, verifier: str, pages: int = 64, rows: int = 512, swap: SwapFile | None = None,
        **params: Any,
    ) -> dict[str, list[int]]:  # fmt: skip
        """swap: where pages go when they are short, whatever it costs; that they do is asserted."""
        device = DEVICES.build("reference")
        model = ToyModel(device)
        kv = model.cache(pages)
        speculator.prepare(toy_target(device))
        loop = Engine(
            RUNNERS.build("text", model=model, kv=kv, device=device), kv, POLICIES.build("fcfs"), speculator,
            VERIFIERS.build(verifier, sampler=SAMPLERS.build("standard")), vocab=61, context=128, rows=rows,
            swap=swap, cost=StepCost(1.0, 1.0, 1.0) if swap is not None else StepCost(),
        )  # fmt: skip
        if swap is not None:
            kv.pages.reuse = False  # or pages would be found where they were left
        for at in range(4):
            prompt = np.random.default_rng(at).integers(0, 61, 6 + 9 * at).tolist()
            settings = SamplingParams(**{"temperature": 0, "max_tokens": 30, "seed": at, **params})
            loop.add(Request(tuple(prompt * 2), settings, str(at)))
        got: dict[str, list[int]] = {}
        while loop.has_work():
            for event in loop.step():
                assert event.error is None
                assert 0 <= event.accepted <= event.drafted
                got.setdefault(f"{event.request_id}.{event.index}", []).extend(event.tokens)
        assert kv.free_tokens() == loop.capacity
        assert swap is None or loop.swapped_in > 0
        return got

    def counted(self, speculator: Speculator) -> tuple[int, int]:
        """Tokens it drafted in a run, and how many of them came true."""
        drafted = hits = 0
        propose, accepted = speculator.propose, speculator.accepted

        def proposing(seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
            nonlocal drafted
            drafts = propose(seqs, budget)
            drafted += sum(len(draft.tokens) for draft in drafts)
            return drafts

        def accepting(outcomes: Sequence[Accepted], spent: Spent) -> None:
            nonlocal hits
            hits += sum(len(outcome.nodes) for outcome in outcomes)
            accepted(outcomes, spent)

        with patch.object(speculator, "propose", proposing), patch.object(speculator, "accepted", accepting):
            self.run(speculator, self.verifier)
        return drafted, hits

    def test_greedy_output_is_unchanged(self) -> None:
        want = self.run(SPECULATORS.build("none"), "none")
        assert self.run(self.make(), self.verifier) == want
        assert self.run(self.make(), self.verifier, pages=12) == want  # with preemption
        assert self.run(self.make(), self.verifier, rows=7) == want  # with chunked prefill

    @pytest.mark.parametrize(
        "settings",
        [
            {"temperature": 0.8, "n": 2, "top_p": 0.9},
            {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.3},
            {"min_tokens": 12, "stop_token_ids": tuple(range(0, 61, 3)), "logit_bias": {7: 1.5, 9: -1.0}},
        ],
    )
    def test_seeded_samples_and_rules_are_those_without(self, settings: dict[str, Any]) -> None:
        want = self.run(SPECULATORS.build("none"), "none", **settings)
        assert self.run(self.make(), "match", **settings) == want

    def test_it_says_what_it_needs(self) -> None:
        assert all(isinstance(cap, Cap) for cap in self.make().needs)
        assert all(isinstance(tap, Tap) for tap in self.make().taps)

    def test_it_keeps_to_the_budget(self) -> None:
        member = self.make()
        member.prepare(toy_target(DEVICES.build("reference")))
        views = [SeqView(SeqId(i), [1, 2, 3, 4, 5, 6] * 6, 3, SamplingParams(temperature=0)) for i in range(3)]
        for view in views:
            member.begin(view.seq, view.tokens)
        for budget in (0, 1, 4, 100):
            drafts = member.propose(views, budget)
            assert len(drafts) == 3
            assert sum(len(draft.tokens) for draft in drafts) <= budget
            for draft in drafts:
                assert all(-1 <= parent < i for i, parent in enumerate(draft.parents))
                assert len(draft.tokens) == len(draft.parents)


def toy_target(device: Device) -> Target:
    """A ToyModel as speculators see the model that they draft for."""
    header = Header("hf", "llama", {}, (), Path("."), {}, "toy")
    return Target(header, ToyModel(device).spec, device, 128, 4, False, lambda _: None)
