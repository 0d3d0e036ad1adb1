"""`edgewise bench mixes`, small: bursts add up, the table's figures follow from the races, wrong names are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgewise.base import BadInput, EdgewiseError
from edgewise.serve.benches import mixes
from edgewise.serve.workloads import WORKLOADS, workload


@pytest.mark.native
def test_bursts_add_up_to_one_table(cli: Any, tmp_path: Path) -> None:
    pytest.importorskip("edgewise._native")
    options = ["bench", "mixes", "--workloads", "chat,noise", "--batch", "2", "-n", "8", "-t", "1", "--state", tmp_path]
    for rounds in (1, 2, 2):
        ran = cli(*options, "--rounds", rounds, "--svg", tmp_path / "mix.svg", "--json")
        assert ran.code == 0, ran.err
        rows = json.loads(ran.out)
        assert [(row["workload"], row["rounds"]) for row in rows] == [("chat", rounds), ("noise", rounds)]
        assert all(row["low"] <= row["ratio"] <= row["high"] for row in rows)
        assert set(rows[0]["sides"]) == {"none", "suffix", "auto"}
        assert set(rows[1]["sides"]) == {"none", "auto"}
    assert (tmp_path / "mix.svg").read_text().startswith("<svg")
    assert len(list(tmp_path.glob("*.json"))) == 1
    assert "of 2 at or above 0.97" in cli(*options, "--rounds", 1).out


@pytest.mark.native
def test_every_workload_can_be_asked_for_and_differs_from_sequence_to_sequence() -> None:
    pytest.importorskip("edgewise._native")
    from edgewise.serve.llm import LLM

    with LLM(threads=1) as llm:
        for name in WORKLOADS:
            asked = [workload(llm, name, 32, at) for at in range(16)]
            assert len({one.tokens for one in asked}) == 16, name
            assert all(len(one.tokens) + 32 <= llm.context for one in asked)
            assert [one.tokens for one in asked[:2]] == [workload(llm, name, 32, at).tokens for at in range(2)]
        with pytest.raises(BadInput, match="Known: edit, code"):
            workload(llm, "poems", 32, 0)


def test_the_better_side_is_compared_round_by_round() -> None:
    seconds = {"none": [1.0, 2.0, 1.0], "suffix": [0.5, 1.0, 3.0], "auto": [0.5, 0.8, 4.0]}
    cell = {"seconds": seconds, "tokens_step": {"auto": 2.0}}
    row = mixes.summary("chat", 1, cell)
    assert (row["best"], row["ratio"], row["on"], row["auto"]) == ("none", 2.0, 2.0, 2.0)  # medians 1, 1 and 0.8
    assert row["sides"] == {"none": 1.0, "suffix": 2.0, "auto": 2.0}
    assert row["off_tok_s"] == 1.0
    assert mixes.summary("noise", 1, cell)["floor"] < row["floor"]


def test_a_side_that_writes_another_text_is_found_out() -> None:
    class Fake:
        def __init__(self, name: str, text: list[int]) -> None:
            self.name, self.text, self.engine = name, text, self
            self.seconds = self.tokens = 1

        def start(self, asked: Any) -> None:
            self.made, self.order, self.got = 0, ["a"], {"a": self.text}

        def step(self) -> None:
            self.made += 1

        def has_work(self) -> bool:
            return self.made < 3

    same: Any = [Fake("none", [1, 2, 3]), Fake("x", [1, 2, 3])]
    assert list(mixes.races(same, [], "chat", 2)) == [{"none": 1.0, "x": 1.0}] * 2
    other: Any = [Fake("none", [1, 2, 3]), Fake("x", [1, 2, 4])]
    with pytest.raises(EdgewiseError, match="'x' changed the text of chat"):
        list(mixes.races(other, [], "chat", 1))


def test_wrong_names_and_numbers_are_refused_before_a_model_is_read(cli: Any) -> None:
    wrong = ((("--workloads", "poems"), "poems"), (("--batch", "1,x"), "--batch"), (("--batch", "0"), "at least 1"))
    for options, words in wrong:
        ran = cli("bench", "mixes", "/nowhere/model.gguf", *options)
        assert ran.code == 2
        assert words in ran.err
        assert "Traceback" not in ran.err
