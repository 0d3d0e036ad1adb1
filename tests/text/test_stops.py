"""Stop strings over a stream: found wherever the stream is cut, never shown in part, nothing else held back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.base import BadInput
from edgewise.text.stops import StopMatcher


def slow(text, stops):
    """The first position at which any stop ends; of those ending there, the longest."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return text[: end - len(stop)], stop
    return text, None


@given(
    st.text(alphabet="ab", max_size=30),
    st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=3),
    st.lists(st.integers(0, 30)),
)
def test_it_equals_the_slow_search_however_the_text_is_cut(text, stops, cuts):
    expected, stop = slow(text, stops)
    cuts = sorted({cut for cut in cuts if cut <= len(text)})
    matcher = StopMatcher(stops)
    shown = ""
    for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True):
        shown += matcher.push(text[a:b])
        assert expected.startswith(shown)
        if matcher.matched is None:  # held back: exactly what could still become a stop
            held = text[:b][len(shown) :]
            longest = max((n for s in stops for n in range(1, len(s)) if text[:b].endswith(s[:n])), default=0)
            assert len(held) == longest
    shown += matcher.flush()
    assert (shown, matcher.matched) == (expected, stop)


def test_after_a_stop_nothing_more_is_shown():
    matcher = StopMatcher(["END"])
    assert matcher.push("a E") == "a "
    assert matcher.push("ND of it") == ""
    assert matcher.matched == "END"
    assert matcher.push("more") == matcher.flush() == ""


def test_no_stops_and_empty_stops():
    assert StopMatcher([]).push("all of it") == "all of it"
    with pytest.raises(BadInput, match="empty"):
        StopMatcher(["x", ""])
