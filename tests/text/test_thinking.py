"""Thoughts: which tags a template uses, where an answer begins, and that a text is parted alike however it is cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.text.thinking import AFTER, BEFORE, INSIDE, Splitter, Thinking, thinking_of

SOURCE = "{% if enable_thinking %}<think>\n{% else %}<think>\n\n</think>\n\n{% endif %}"


class Letters:
    """A token for each character, and one for each tag when they are given."""

    special = frozenset({1, 2})

    def __init__(self, *tags):
        self.tags = tags

    def encode(self, text, *, parse_special=False, **_):
        ids = []
        while text:
            tag = next((at for at, tag in enumerate(self.tags) if text.startswith(tag)), None)
            ids.append(ord(text[0]) if tag is None else 1 + tag)
            text = text[1 if tag is None else len(self.tags[tag]) :]
        return ids

    def decode(self, ids, *, skip_special=True):
        return "".join(self.tags[i - 1] if 0 < i <= len(self.tags) else chr(i) for i in ids)


class Written:
    def __init__(self, source):
        self._source = source

    def source(self, tools=None):
        return self._source


def thinking(*tags):
    made = thinking_of(Written(SOURCE), Letters(*tags))
    assert isinstance(made, Thinking)
    return made


def parted(text, state=BEFORE, cuts=()):
    splitter, bounds = Splitter(thinking(), state), [0, *sorted(cuts), len(text)]
    pieces = [splitter.push(text[begin:end]) for begin, end in itertools.pairwise(bounds)]
    pieces.append(splitter.flush())
    return tuple("".join(side) for side in zip(*pieces, strict=True))


@pytest.mark.parametrize(
    ("text", "state", "thought", "answer"),
    [
        ("<think>\na b\n</think>\n\nyes", BEFORE, "a b", "yes"),
        ("\n<think>a</think>b", BEFORE, "a", "b"),
        ("a <b> c\n</think>\nyes </think> no", INSIDE, "a <b> c", "yes </think> no"),
        ("no thought <think>x</think>", BEFORE, "", "no thought <think>x</think>"),
        ("  spaced", BEFORE, "", "  spaced"),
        ("<thin", BEFORE, "", "<thin"),
        ("never ends </thin", INSIDE, "never ends </thin", ""),
        ("never ends \n\n", INSIDE, "never ends", ""),
        ("</think>\n\n", INSIDE, "", ""),
        ("<think>x</think>", AFTER, "", "<think>x</think>"),
        ("", BEFORE, "", ""),
    ],
)
def test_a_text_is_parted(text, state, thought, answer):
    assert parted(text, state) == (thought, answer)
    assert parted(text, state, range(len(text))) == (thought, answer)


@given(st.data(), st.text("<>/think \na", max_size=40), st.sampled_from([BEFORE, INSIDE, AFTER]))
def test_cuts_change_nothing(data, text, state):
    begin, end = (data.draw(st.sampled_from(some)) for some in (["", "<think>"], ["", "</think>b", "\n</think>\n"]))
    text = begin + text + end
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    assert parted(text, state, cuts) == parted(text, state)


def test_what_the_template_says():
    assert thinking_of(Written("{{ messages }}"), Letters()) is None
    assert thinking_of(None, Letters()) is None
    assert thinking_of(Written("[THINK][/THINK]"), Letters()).close == "[/THINK]"
    made = thinking("<think>", "</think>")
    assert (made.opening_ids, made.close_ids) == ((1,), (2,))
    assert made.tags == {1, 2}
    assert made.reads == {"enable_thinking"}
    assert made.opened([5, 1])
    assert not made.opened([1, 5])
    letters = thinking()
    assert letters.tags == frozenset()
    assert letters.closed(Letters().encode("ab</think>"))
    assert not letters.closed(Letters().encode("ab</think"))


@pytest.mark.parametrize("tags", [(), ("<think>", "</think>")])
def test_where_an_answer_begins(tags):
    made, letters = thinking(*tags), Letters(*tags)
    for prompt, state in (
        ("a\n<think>\n", INSIDE), ("a\n<think>\n\n</think>\n\n", AFTER), ("a <think> b", BEFORE), ("a", BEFORE),
    ):  # fmt: skip
        assert made.begins(letters.encode(prompt)) == state
