"""Plans under a cap: what is foretold is what is taken, the cap holds, and where nothing fits decoding is plain."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewise.base import BadInput, Incompatible, OutOfRoom, SamplingParams
from edgewise.decode.api import Speculator
from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.speculators.specmemo import SpecMemoSpeculator
from edgewise.kernels.devices import DEVICES
from edgewise.models.footprint import block_bytes
from edgewise.testing.decode_contract import SpeculatorContract, toy_target


class TestSpecMemo(SpeculatorContract):
    def make(self) -> Speculator:
        return SpecMemoSpeculator(cap="64MiB", depth=4)


class TestSpecMemoUngated(SpeculatorContract):
    def make(self) -> Speculator:
        return SpecMemoSpeculator(cap="64MiB", member="suffix", gate=False)


def test_blocks_are_the_allocators() -> None:
    assert [block_bytes(n) for n in (0, 256, 257, 384, 385, 512, 513, 768, 1 << 20, (1 << 20) + 1)] == [
        256, 256, 384, 384, 512, 512, 768, 768, 1 << 20, 3 << 19,
    ]  # fmt: skip


def test_less_room_means_smaller_plans_and_then_plain_decoding() -> None:
    def plan(cap: int) -> Any:
        member = SpecMemoSpeculator(cap=cap)
        target = toy_target(DEVICES.build("reference"))
        member.prepare(target)
        assert member.plan.total <= cap
        assert (target.room.rows, target.room.pages) == (member.plan.rows, member.plan.pages)
        return member.plan

    wide = plan(1 << 30)
    assert (wide.rows, wide.depth > 0, wide.served) == (512, True, 4)
    totals = [plan(cap).total for cap in (2_000_000, 400_000, 200_000, 120_000)]
    assert totals == sorted(totals, reverse=True)
    tight = plan(wide.kv // 4 + 30_000)
    assert tight.depth == 0
    with pytest.raises(OutOfRoom, match=r"take 0\.\d MiB in plain decoding already, but the cap is 0\.0 MiB"):
        plan(1000)


@pytest.mark.parametrize(
    "text",
    ["specmemo", "specmemo:cap=0", "specmemo:cap=many", "specmemo:cap=1MiB,member=draft", "specmemo:cap=1MiB,depth=0",
     "specmemo:cap=1MiB,member=auto", "specmemo:cap=1MiB,model=x,member=ngram"],
)  # fmt: skip
def test_senseless_settings_are_refused(text: str) -> None:
    with pytest.raises(BadInput):
        SPECULATORS.build(text)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.native
def test_the_cap_holds_and_the_plan_comes_true() -> None:
    pytest.importorskip("edgewise._native")
    from edgewise.serve.benches.capped_drafts import Talk

    free = Talk(None, "specmemo:cap=1GiB", ctx_size=512, max_num_seqs=1, threads=1)
    want, _ = free.chat(4, 300, 24)
    cap = int(0.5 * free.taken())
    held = Talk(None, f"specmemo:cap={cap}", ctx_size=512, max_num_seqs=1, threads=1)
    assert held.chat(4, 300, 24)[0] == want
    assert max(held.marks) <= cap
    plan = held.plan
    assert plan.depth > 0
    assert plan.rows < free.plan.rows
    kv = held.llm.parts.kv
    assert kv.pages.pages == plan.pages  # type: ignore[attr-defined]
    assert 0.9 < held.passes / plan.passes <= 1.0
    for talk in (free, held):
        talk.llm.close()


@pytest.mark.native
def test_passes_are_never_wider_than_foretold() -> None:
    pytest.importorskip("edgewise._native")
    from edgewise.models.footprint import pass_bytes, table_bytes
    from edgewise.serve.llm import LLM

    with LLM(ctx_size=512, max_num_seqs=1, threads=1) as llm:
        device: Any = llm.parts.device
        device.activations()
        base = device.activations(0)
        spec = llm.parts.spec
        llm.generate([[5, 6, 7]], SamplingParams(max_tokens=1))
        for rows in (33, 100, 256):
            llm.parts.runner._logits = None
            device.activations(base)
            llm.generate([list(range(rows, 2 * rows))], SamplingParams(max_tokens=1))
            wanted = pass_bytes(spec, rows, 1, ("Q8_0", "F32")) + table_bytes(spec, 512) + 4096
            assert 0.85 * wanted <= device.activations() - base <= wanted, rows
        device.activations(1 << 40)


def test_a_draft_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    from edgewise.embedded import embedded_model
    from edgewise.serve.llm import LLM
    from edgewise.testing.tiny import tiny_model

    target = tiny_model("llama", tmp_path / "target")
    with pytest.raises(Incompatible, match="different vocabularies"):
        LLM(target, device="reference", speculator=f"specmemo:cap=64MiB,model={embedded_model()}")
    with LLM(target, device="reference", speculator=f"specmemo:cap=64MiB,model={target}") as llm:
        assert llm.generate("a", SamplingParams(temperature=0, max_tokens=4))


