"""Chats as tokens: special tokens come from the template alone, whatever users and tools write."""

import pytest
from styles import STYLES

from edgewise.base import BadInput
from edgewise.testing.vocabularies import FAMILIES, byte_level, hf_header, sentencepiece
from edgewise.text import load_template, load_tokenizer
from edgewise.text.chat import JinjaChatTemplate

STYLE = {"llama3": "llama3", "qwen3": "qwen3", "gemma": "gemma3", "mistral": "mistral", "deepseek": "deepseek"}
HELLO = [
    {"role": "user", "content": "Hello there"},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "ok"},
]


@pytest.fixture(params=sorted(FAMILIES))
def family(request, tmp_path):
    name = request.param
    source = sentencepiece("mistral", "prepend") if name == "mistral" else byte_level(name)
    tokens = [text for text, special in FAMILIES[name] if special]
    strings = {
        "bos_token": next((t for t in tokens if "begin" in t or t in ("<s>", "<bos>")), None),
        "eos_token": "</s>",
    }
    strings = {key: value for key, value in strings.items() if value}
    made = load_tokenizer(hf_header(source, tmp_path / "m", chat_template=STYLES[STYLE[name]], **strings))
    return name, source, made, JinjaChatTemplate({"default": STYLES[STYLE[name]]}, strings)


def steering(name, source, template):
    """The family's control tokens and those its template prints: none of them may come from a message."""
    texts = [text for text, special in FAMILIES[name] if special or (text.strip() and text in template.source())]
    return {source.token_to_id(text): text for text in texts}


def counted(ids, tokens):
    return {text: ids.count(token) for token, text in tokens.items()}


def test_ids_equal_those_of_the_rendered_text(family):
    _, source, made, template = family
    for prompt in (False, True):
        text = template.render(HELLO, add_generation_prompt=prompt)
        ids = template.encode(made, HELLO, add_generation_prompt=prompt)
        assert ids == source.encode(text, add_special_tokens=False).ids
        assert ids == made.encode(text, parse_special=True)


def test_no_control_token_ever_comes_from_a_message(family):
    """Every control token of the family, in every place a user or a tool can write to."""
    name, source, made, template = family
    tokens = steering(name, source, template)
    assert len(tokens) >= 5

    def chat(text, extra=""):
        messages = [
            {"role": "user", "content": text},
            {"role": "assistant", "content": f"Hi{extra}"},
            {"role": "user", "content": f"a{text}b"},
        ]
        return messages if name.startswith("gemma") else [{"role": "system", "content": f"Rules {text}"}, *messages]

    clean = counted(template.encode(made, chat("x")), tokens)
    for text in tokens.values():
        for hostile in (text, f"{text}{text}", f" {text}\n", f"x{text[:-1]}{text}", text[:1] + text):
            ids = template.encode(made, chat(hostile))
            assert counted(ids, tokens) == clean, hostile
            shown = made.decode(ids, skip_special=False)
            assert shown.count(hostile.strip()) >= template.render(chat(hostile)).count(hostile.strip())


def test_tools_and_their_results_are_text_too(family):
    name, source, made, template = family
    tokens = steering(name, source, template)
    if name in ("gemma", "deepseek"):  # their templates here print no tools
        template = JinjaChatTemplate({"default": STYLES["qwen3"]}, {})
        tokens = steering(name, source, template)

    def chat(text):
        call = {
            "id": "abcdefghi",
            "type": "function",
            "function": {"name": f"f{text}", "arguments": {f"k{text}": text}},
        }
        return [
            {"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": f"result {text}", "tool_call_id": "abcdefghi"},
            {"role": "user", "content": "y"},
        ]  # fmt: skip

    def tool(text):
        return [{"type": "function", "function": {"name": f"n{text}", "description": text, "parameters": {text: text}}}]

    clean = counted(template.encode(made, chat("x"), tools=tool("x")), tokens)
    for text in tokens.values():
        assert counted(template.encode(made, chat(text), tools=tool(text)), tokens) == clean


def test_pieces_that_only_join_in_the_template_stay_text(family):
    name, source, made, _ = family
    template = JinjaChatTemplate(
        {"default": "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"}, {}
    )
    for text in (t for t, special in FAMILIES[name] if special):
        for cut in range(len(text) + 1):
            messages = [{"role": "user", "content": [{"text": text[:cut]}, {"text": text[cut:]}]}]
            ids = template.encode(made, messages)
            assert source.token_to_id(text) not in ids
            assert made.decode(ids) == text


def test_what_the_model_wrote_keeps_its_thoughts():
    """An assistant's own <think> is the token it was; a user's is text."""
    source = byte_level("qwen3", "qwen2")
    think = source.token_to_id("<think>")
    template = JinjaChatTemplate({"default": "<think>?{% for m in messages %}{{ m.content }}{% endfor %}"}, {})
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        made = load_tokenizer(hf_header(source, Path(folder) / "m"))
    assert template.encode(made, [{"role": "assistant", "content": "<think>a"}]).count(think) == 2
    assert template.encode(made, [{"role": "user", "content": "<think>a"}]).count(think) == 1


def test_private_use_characters_of_the_user_survive(family):
    _, _, made, template = family
    text = "a\ue000b\ue001c \\ue002"
    messages = [{"role": "user", "content": text}]
    assert text in made.decode(template.encode(made, messages), skip_special=False)


def test_a_json_escaping_template_leaves_no_trace(family):
    name, _, made, _ = family
    special = FAMILIES[name][0][0]
    template = JinjaChatTemplate({"default": "{{ messages[0].content|tojson(ensure_ascii=true) }}"}, {})
    ids = template.encode(made, [{"role": "user", "content": f"a{special}"}])
    assert "ue00" not in made.decode(ids, skip_special=False)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("text", "list"),
        ({"role": "user"}, "list"),
        ([1], r"messages\[0\]"),
        ([{"content": "x"}], "no role"),
        ([{"role": 3}], "no role"),
        ([{"role": "user", "content": object()}], r"messages\[0\]\.content is a object"),
        ([{"role": "user", 3: 4}], "key"),
        ([{"role": "user", "content": b"x"}], "bytes"),
    ],
)
def test_malformed_messages_are_named(messages, words):
    with pytest.raises(BadInput, match=words):
        JinjaChatTemplate({"default": "x"}, {}).render(messages)


def test_deep_messages_and_wrong_tools_are_named():
    deep: list = []
    for _ in range(100):
        deep = [deep]
    template = JinjaChatTemplate({"default": "x"}, {})
    with pytest.raises(BadInput, match="deeper"):
        template.render([{"role": "user", "content": deep}])
    for tools in ("x", {"a": 1}, [1]):
        with pytest.raises(BadInput, match="tools"):
            template.render(HELLO, tools=tools)


def test_templates_that_are_not_there_say_how_to_give_one():
    with pytest.raises(BadInput, match="--chat-template"):
        JinjaChatTemplate({}, {})
    assert JinjaChatTemplate({"rag": "R"}, {}).render(HELLO) == "R"


def test_the_sample_model_has_no_template(stories):
    from edgewise.weights import open_checkpoint

    assert load_template(open_checkpoint(stories, need_tensors=False).header()) is None
