"""Finding special strings: leftmost, longest, and never through a breaker."""

from hypothesis import given
from hypothesis import strategies as st

from edgewise.text.specials import Added, SpecialFinder

FINDER = SpecialFinder([Added(1, "<a>"), Added(2, "<a>>"), Added(3, "a>b"), Added(4, "|"), Added(5, "<<")])


def slow(text):
    out, at = [], 0
    while at < len(text):
        found = max((t for t in FINDER.tokens if text.startswith(t, at)), key=len, default=None)
        if found:
            out.append(FINDER.tokens[found].id)
            at += len(found)
        else:
            if not out or isinstance(out[-1], int):
                out.append("")
            out[-1] += text[at]
            at += 1
    return out


@given(st.text(alphabet="<a>b| ", max_size=20))
def test_split_equals_the_slow_search(text):
    assert FINDER.split(text) == slow(text)


@given(st.lists(st.text(alphabet="<a>b| ", max_size=8), max_size=4))
def test_broken_pieces_hold_no_special_however_they_are_joined(pieces):
    marked = "".join(FINDER.break_up(piece, "\ue000") for piece in pieces)
    assert marked.replace("\ue000", "") == "".join(pieces)
    assert not [part for part in FINDER.split(marked, "\ue000") if isinstance(part, int)]


def test_white_space_is_swallowed_where_the_token_says_so():
    finder = SpecialFinder([Added(1, "<l>", lstrip=True), Added(2, "<r>", rstrip=True)])
    assert finder.split("a  <l> b<r> \n c<r>") == ["a", 1, " b", 2, "c", 2]
    assert finder.split(" <l><r> ") == [1, 2]


def test_no_tokens_find_nothing():
    assert SpecialFinder([]).split("text") == ["text"]
    assert SpecialFinder([]).break_up("text", "!") == "text"
