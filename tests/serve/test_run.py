"""`edgewise run`: where the prompt comes from, chat or completion, the JSON contract."""

import json
from pathlib import Path

import pytest

from edgewise import LLM, SamplingParams

KEYS = {
    "text", "token_ids", "prompt_tokens", "completion_tokens", "finish_reason", "ttft_s", "tok_s", "peak_rss_bytes",
    "tokens_per_pass", "drafted", "accepted",
}  # fmt: skip


def greedy(cli, *arguments, **options):
    ran = cli("run", *arguments, "--temp", 0, "-n", 8, "--json", **options)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_json_is_one_object_with_the_promised_keys(cli, plain):
    answer = greedy(cli, plain, "Hello", "--ignore-eos")
    assert set(answer) == KEYS
    assert answer["prompt_tokens"] == 6  # BOS and five bytes
    assert answer["completion_tokens"] == len(answer["token_ids"]) == 8
    assert answer["finish_reason"] == "length"
    assert answer["tok_s"] > 0
    assert answer["ttft_s"] > 0
    assert answer["peak_rss_bytes"] > 2**20


def test_it_gives_what_the_library_gives(cli, plain):
    with LLM(plain, device="reference") as llm:
        (want,) = llm.generate("Hello", SamplingParams(temperature=0, max_tokens=8))
    answer = greedy(cli, plain, "Hello")
    assert answer["token_ids"] == want.outputs[0].token_ids
    assert answer["text"] == want.outputs[0].text
    ran = cli("run", plain, "Hello", "--temp", 0, "-n", 8)
    assert ran.out.rstrip("\n") == want.outputs[0].text.rstrip("\n")


def test_the_prompt_comes_from_anywhere(cli, plain):
    want = greedy(cli, plain, "Hello")["token_ids"]
    assert greedy(cli, plain, "--prompt", "Hello")["token_ids"] == want
    assert greedy(cli, plain, stdin="Hello")["token_ids"] == want
    assert greedy(cli, plain, "-", stdin="Hello")["token_ids"] == want
    assert greedy(cli, plain, "Hello", stdin="ignored, the argument is the prompt")["token_ids"] == want
    assert greedy(cli, plain, "--prompt", "")["prompt_tokens"] == 1  # BOS alone


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Hello", "--prompt", "Hello"], "twice"),
        ([], "no prompt"),
        (["Hello", "--raw", "--chat"], "exclude"),
        (["Hello", "--chat"], "chat template"),
        (["Hello", "--system", "Be brief."], "system prompt"),
        (["Hello", "--temp", "-1"], "temperature"),
        (["Hello", "--top-p", "2"], "top_p"),
        (["Hello", "--speculator", "nun"], "'none'"),
        (["Hello", "-ctk", "q9"], "q9"),
        (["Hello", "-c", "100000"], "100000"),
        (["Hello", "--chat-template-file", "nosuch.jinja"], "nosuch.jinja"),
    ],
)
def test_contradictions_are_refused(cli, plain, arguments, words):
    ran = cli("run", plain, *arguments)
    assert ran.code == 2
    assert words in ran.err
    assert ran.err.count("\n") == 1


def test_a_chat_template_makes_it_a_chat_unless_raw(cli, chatty):
    raw = greedy(cli, chatty, "Hi", "--raw")
    chat = greedy(cli, chatty, "Hi")
    assert raw["prompt_tokens"] == 3
    with LLM(chatty, device="reference") as llm:
        want = llm.chat_tokens([{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}])
    assert chat["prompt_tokens"] < len(want)
    assert greedy(cli, chatty, "Hi", "--system", "S")["prompt_tokens"] == len(want)


def test_another_template(cli, plain, tmp_path):
    file = tmp_path / "short.jinja"
    file.write_text("{{ messages[0].content }}!")
    answer = greedy(cli, plain, "Hi", "--chat-template-file", file)
    assert answer["prompt_tokens"] == 3
    inline = greedy(cli, plain, "Hi", "--chat-template", "{{ bos_token }}{{ messages[0].content }}!")
    assert inline["prompt_tokens"] == 4


def test_stop_ends_the_text(cli, plain):
    text = greedy(cli, plain, "Hello", "--ignore-eos")["text"]
    at = text[2:4]
    stopped = greedy(cli, plain, "Hello", "--ignore-eos", "--stop", at)
    assert stopped["finish_reason"] == "stop"
    assert stopped["text"] == text[: text.index(at)]


def test_seed_repeats(cli, plain):
    runs = [cli("run", plain, "Hello", "--temp", 1, "--seed", 7, "-n", 16, "--json") for _ in range(2)]
    assert json.loads(runs[0].out)["token_ids"] == json.loads(runs[1].out)["token_ids"]


def test_verbose_tells_on_standard_error(cli, plain):
    ran = cli("run", plain, "Hello", "-n", 4, "--verbose")
    assert "tok/s" in ran.err
    assert "tok/s" not in ran.out


def test_a_prompt_in_the_place_of_the_model_is_recognised(cli):
    ran = cli("run", "def fib(n):")
    assert ran.code == 2
    assert "--prompt" in ran.err


def test_the_first_command_says_what_the_readme_shows(cli):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    shown = readme.partition("$ scripts/run\n")[2].partition("```")[0]
    assert cli("run").out.rstrip("\n") == shown.rstrip("\n") != ""
