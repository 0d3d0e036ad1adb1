"""Every speculator in every circumstance, small; the full size is `python -m edgewise.testing.identity`."""

from typing import Any

import pytest

from edgewise.base import BadInput
from edgewise.decode.speculators import SPECULATORS
from edgewise.testing import drafted, identity


@pytest.fixture(scope="module")
def found() -> list[drafted.Outcome]:
    pytest.importorskip("edgewise._native")
    pytest.importorskip("llguidance")
    sizes = {("batch", "chunked"): 24, ("together",): 64}  # the longer ones outgrow their pages
    return [
        one for names, answer in sizes.items()
        for one in drafted.compare(drafted.everyone(), names, 4 * answer, threads=1, control=True, answer=answer)
    ]  # fmt: skip


@pytest.mark.native
def test_no_token_differs_whoever_drafts_whatever_happens(found: list[drafted.Outcome]) -> None:
    mine = [one for one in found if one.member != drafted.CONTROL]
    assert {one.member for one in mine} == set(SPECULATORS) - {drafted.PLAIN}
    for one in mine:
        assert one.tokens >= 96, one
        assert (one.differ, one.error) == (0, ""), one


@pytest.mark.native
def test_what_was_to_happen_did(found: list[drafted.Outcome]) -> None:
    for around, shown in (("together", "swapped"), ("batch", "trees"), ("chunked", "trees")):
        assert sum(getattr(one, shown) for one in found if one.circumstance == around) > 0, around
    for member in set(SPECULATORS) - {drafted.PLAIN}:
        assert sum(one.accepted for one in found if one.member == member) > 0, member


@pytest.mark.native
def test_a_verifier_that_believes_drafts_is_found_out(found: list[drafted.Outcome]) -> None:
    assert any(one.differ > 0 for one in found if one.member == drafted.CONTROL)


@pytest.mark.native
def test_layers_that_come_from_disk_change_nothing() -> None:
    pytest.importorskip("edgewise._native")
    names = [name for name, around in drafted.CIRCUMSTANCES.items() if around.streamed]
    with_model = [name for name, text in drafted.everyone().items() if "model=" in text]
    members = {name: drafted.everyone()[name] for name in with_model}
    for one in drafted.compare(members, names, 48, threads=1, answer=24):
        assert (one.tokens, one.differ) == (48, 0), one


def test_the_command_says_what_it_does_not_know(monkeypatch: Any) -> None:
    for options, words in ((["all", "--circumstances", "alnoe"], "alnoe"), (["ngarm"], "ngram")):
        monkeypatch.setattr("sys.argv", ["identity", "--speculators", *options])
        with pytest.raises(SystemExit, match=words):
            identity.main()
    with pytest.raises(BadInput, match="Known: alone"):
        drafted.report("all", "nowhere", 10, None, None, False, True)
