"""The generated tasks: the same everywhere, right, their held-out questions never trained on; the chat format."""

import json
import random
from pathlib import Path

import jinja2
import pytest

from edgewise.train import chat, tasks
from edgewise.train.tokenizer import CHAT_TEMPLATE, load_tokenizer


@pytest.mark.parametrize("task", tasks.TASKS)
@pytest.mark.parametrize("level", range(1, tasks.LEVELS + 1))
def test_an_example_is_a_function_of_its_name(task: str, level: int) -> None:
    assert tasks.example(task, level, 7) == tasks.example(task, level, 7)
    assert len({tasks.example(task, level, n).question for n in range(50)}) > 5
    assert tasks.example(task, level, 7).right(tasks.example(task, level, 7).answer)


def test_fixed_points() -> None:
    # A change here would change every training and every held-out question.
    assert tasks.example("addition", 1, 5).question == "4 + 1 = ?"
    assert tasks.example("chain", 1, 5).answer == "62"


def test_arithmetic_is_right() -> None:
    for number in range(200):
        one = tasks.example("addition", 1 + number % 4, number)
        a, b = (int(part) for part in one.question.removesuffix(" = ?").split(" + "))
        assert int(one.answer) == a + b
        assert one.answer.startswith(one.thinking.rpartition("=")[2])
        two = tasks.example("chain", 1 + number % 4, number)
        first, *steps = two.question.removesuffix(", modulo 100.").removeprefix("Start with ").split(", ")
        value = int(first)
        for step in steps:
            value = eval(f"({value} {step.removeprefix('then ')}) % 100")
        assert int(two.answer) == value


def test_json_is_compared_by_meaning() -> None:
    one = tasks.example("json", 3, 1)
    assert one.right(json.dumps(json.loads(one.answer), indent=2))
    assert not one.right(one.answer[:-1])
    assert not one.right("[]")


def test_no_held_out_question_is_trained_on() -> None:
    trained = {(e.task, e.question) for e in tasks.training(3000)}
    held = [e for task in tasks.TASKS for level in range(1, 5) for e in tasks.held_out(task, level, 12)]
    assert not trained & {(e.task, e.question) for e in held}
    assert len({e.question for e in held}) == len(held) > 300


def test_the_template_says_what_training_saw(data_folder: Path) -> None:
    tokenizer = load_tokenizer(data_folder)
    template = jinja2.Environment().from_string(CHAT_TEMPLATE.read_text())
    for task in tasks.TASKS:
        one = tasks.example(task, random.Random(1).randrange(1, 5), 3)
        asked = [{"role": "user", "content": one.question}]
        text = template.render(messages=asked, bos_token="<|bos|>", add_generation_prompt=True)
        tokenizer.encode_special_tokens = False
        assert tokenizer.encode(text).ids == chat.prompt_ids(tokenizer, one)
        said = {"role": "assistant", "content": one.answer, "reasoning_content": one.thinking}
        whole = template.render(messages=[*asked, said], bos_token="<|bos|>")
        tokenizer.encode_special_tokens = False
        encoded = tokenizer.encode(whole + "<|eos|>").ids
        assert encoded == chat.prompt_ids(tokenizer, one) + chat.reply_ids(tokenizer, one)
        assert chat.answer_in(tokenizer, chat.reply_ids(tokenizer, one)) == one.answer


def test_tools_and_their_results_have_places() -> None:
    template = jinja2.Environment().from_string(CHAT_TEMPLATE.read_text())
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    text = template.render(
        messages=[{"role": "system", "content": "S"}, {"role": "user", "content": "U"},
                  {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "2"}],
        tools=[{"name": "add"}], bos_token="<|bos|>", add_generation_prompt=True, enable_thinking=False,
    )  # fmt: skip
    assert text == (
        '<|bos|><|tools|>[{"name": "add"}]<|end|><|system|>S<|end|><|user|>U<|end|><|assistant|>'
        '<|tool|>{"arguments": {"a": 1}, "name": "add"}<|/tool|><|end|><|result|>2<|end|>'
        "<|assistant|><|think|><|/think|>"
    )
