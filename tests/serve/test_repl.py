"""The REPL, fed lines by a list and read from a string."""

import pytest

from edgewise import LLM, SamplingParams
from edgewise.base import BadInput
from edgewise.serve.repl import Repl, with_setting
from edgewise.serve.session import Session


@pytest.fixture(scope="module")
def models(plain, chatty):
    with LLM(plain, device="reference") as one, LLM(chatty, device="reference") as two:
        yield one, two


def talk(llm, lines, **options):
    """What a REPL prints for these lines; None in `lines` is Ctrl+C at the prompt."""
    said = []
    feed = iter(lines)

    def read(prompt):
        said.append(prompt)
        line = next(feed, EOFError)
        if line is None:
            raise KeyboardInterrupt
        if line is EOFError:
            raise EOFError
        said.append(line + "\n")
        return line

    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    repl = Repl(Session(llm, params), read=read, write=said.append, **options)
    repl.loop()
    return repl, "".join(said)


def test_it_answers_and_remembers(models):
    repl, _ = talk(models[1], ["Hi", "And you?"])
    assert [message["role"] for message in repl.history] == ["user", "assistant", "user", "assistant"]
    repl, _ = talk(models[1], ["Hi", "/clear"])
    assert repl.history == []


def test_a_model_without_template_completes(models):
    repl, said = talk(models[0], ["Hello"])
    assert "not made to chat" in said
    assert repl.history == []


def test_settings(models):
    lines = ["/set temp 0.5", "/set parameter top_k 3", "/set system Be brief.", "/show", "/bye", "x"]
    repl, said = talk(models[1], lines)
    assert repl.session.params.temperature == 0.5
    assert repl.session.params.top_k == 3
    assert repl.session.system == "Be brief."
    assert "top_k 3" in said
    assert "Be brief." in said
    assert not said.endswith("x\n")  # /bye left before


def test_mistakes_do_not_end_it(models):
    _, said = talk(models[1], ["/sett temp 1", "/set tempratur 1", "/set temp hot", "/set temp -1", "/help", "/bye"])
    assert "'/set'" in said
    assert "'temperature'" in said
    assert "'hot'" in said
    assert "0 or greater" in said
    assert "/clear" in said


def test_too_long_a_prompt_is_a_sentence_and_forgotten(models):
    repl, said = talk(models[1], ["a" * 600, "Hi"])
    assert "512" in said
    assert len(repl.history) == 2


def test_many_lines_and_interrupts(models):
    repl, said = talk(models[1], [None, '"""one', "two", 'three"""'])
    assert repl.history[0]["content"] == "one\ntwo\nthree"
    assert "leaves" in said


def test_ctrl_c_keeps_what_was_said(models, monkeypatch):
    def ask(self, prompt, answer, history=()):
        answer.text += "half"
        yield "half"
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "ask", ask)
    repl, said = talk(models[1], ["Hi", "/bye"])
    assert repl.history[-1] == {"role": "assistant", "content": "half"}
    assert "half\n" in said


def test_settings_from_text():
    params = SamplingParams()
    assert with_setting(params, "max_tokens", "-1").max_tokens is None
    assert with_setting(params, "stop", "\\n\\n").stop == ("\n\n",)
    assert with_setting(params, "ignore_eos", "on").ignore_eos is True
    with pytest.raises(BadInput, match="seed"):
        with_setting(params, "sed", "1")
