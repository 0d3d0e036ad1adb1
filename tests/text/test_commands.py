"""The verbs tokenize and template, as a shell sees them."""

import io
import json
import sys

import pytest

from edgewise.serve.cli import main
from edgewise.testing.vocabularies import byte_level, hf_header, sentencepiece


@pytest.fixture
def shell(monkeypatch, capfdbinary):
    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out := Keep(), encoding="utf-8", write_through=True))
        code = main([str(argument) for argument in arguments])
        sys.stdout.flush()
        return code, out.getvalue(), capfdbinary.readouterr().err.decode()

    return run


class Keep(io.BytesIO):
    def close(self):  # the wrapper closes it when it goes
        pass


@pytest.fixture
def model(tmp_path):
    source = byte_level("llama3")
    template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}{% if tools %}{{ tools|length }}{% endif %}"
    )
    header = hf_header(source, tmp_path / "m", bos_token="<|begin_of_text|>", chat_template=template)
    return source, header.folder


def test_tokenize_prints_ids_and_pieces(shell, model):
    source, folder = model
    text = "Once <|eot_id|> 世"
    source.encode_special_tokens = True
    expected = source.encode(text, add_special_tokens=False)
    for arguments, stdin in ((("tokenize", folder, text), b""), (("tokenize", folder), text.encode())):
        code, out, _ = shell(*arguments, "--json", stdin=stdin)
        assert code == 0
        assert json.loads(out) == {"ids": expected.ids, "pieces": expected.tokens, "count": len(expected.ids)}
        code, out, _ = shell(*arguments, stdin=stdin)
        assert [int(line.split()[0]) for line in out.decode().splitlines()] == expected.ids
    code, out, _ = shell("tokenize", folder, "<|eot_id|>", "--special", "--json")
    assert json.loads(out)["ids"] == [source.token_to_id("<|eot_id|>")]


def test_tokenize_a_batch(shell, model, stories):
    source, folder = model
    texts = ["", "a b", "é\n", "<|eot_id|>"]
    source.encode_special_tokens = True
    code, out, _ = shell("tokenize", folder, "--batch", "--json", stdin=json.dumps(texts).encode())
    assert (code, json.loads(out)) == (0, [source.encode(text, add_special_tokens=False).ids for text in texts])
    both = [shell("tokenize", path, "--batch", "--json", stdin=b'["Once upon", " a "]')[1]
            for path in (stories, stories / "stories260K-F32.gguf", stories / "stories260K-Q8_0.gguf")]  # fmt: skip
    assert both[0] == both[1] == both[2]


def test_tokenize_a_vocabulary_only_file(shell, tmp_path):
    gguf = pytest.importorskip("gguf")
    source = sentencepiece("mistral")
    from edgewise.testing.vocabularies import gguf_header

    config = gguf_header(source, "llama").config
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(config["tokenizer.ggml.tokens"])
    writer.add_token_scores(config["tokenizer.ggml.scores"])
    writer.add_token_types(config["tokenizer.ggml.token_type"])
    writer.add_bos_token_id(config["tokenizer.ggml.bos_token_id"])
    writer.add_chat_template("{{ bos_token }}{{ messages[0].content }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    code, out, error = shell("tokenize", tmp_path / "v.gguf", "--batch", "--json", stdin=b'["hello world"]')
    assert code == 0, error
    assert json.loads(out) == [source.encode("hello world", add_special_tokens=False).ids]
    (tmp_path / "m.json").write_text('[{"role": "user", "content": "hi"}]')
    assert shell("template", tmp_path / "v.gguf", tmp_path / "m.json")[1] == b"<s>hi"


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b'"a"', b"[", b"\xff", b'["a", null]'])
def test_tokenize_refuses_what_is_no_batch(shell, model, text):
    code, out, error = shell("tokenize", model[1], "--batch", "--json", stdin=text)
    assert (code, out) == (2, b"")
    assert len(error.splitlines()) == 1


def test_tokenize_refuses_text_that_is_not_utf8(shell, model):
    code, _, error = shell("tokenize", model[1], stdin=b"a\xff")
    assert code == 2
    assert "not UTF-8" in error


def test_template_prints_the_prompt_and_nothing_more(shell, model, tmp_path):
    path = tmp_path / "messages.json"
    path.write_text('[{"role": "user", "content": "hé"}]', encoding="utf-8")
    assert shell("template", model[1], path) == (0, "<|begin_of_text|>[user]hé".encode(), "")
    assert shell("template", model[1], path, "--bos", "B", "--add-generation-prompt")[1] == "B[user]hé>".encode()
    (tmp_path / "tools.json").write_text('[{"type": "function"}, {}]')
    assert shell("template", model[1], path, "--tools", tmp_path / "tools.json")[1].endswith(b"2")
    full = {
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{}],
        "add_generation_prompt": True,
        "bos_token": "Q",
    }
    assert shell("template", model[1], "-", stdin=json.dumps(full).encode())[1] == b"Q[user]x>1"
    jinja = tmp_path / "t.jinja"
    jinja.write_text("{{ bos_token }}|{{ eos_token }}|{{ extra }}\n\n", encoding="utf-8")
    full = {"messages": [], "extra": "E"}
    assert shell("template", jinja, "-", "--bos", "B", "--eos", "E", stdin=json.dumps(full).encode())[1] == b"B|E|E\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ('{"messages": 3}', "list"),
        ("[3]", "messages[0]"),
        ('[{"role": "user"}]', "content"),
        ("3", "list"),
        ('{"messages": [{"role": "user", "content": "x"}], "tools": 3}', "tools"),
    ],
)
def test_template_refuses_malformed_messages_in_one_sentence(shell, tmp_path, text, words):
    jinja = tmp_path / "t.jinja"
    jinja.write_text("{{ messages[0].content + 'x' }}", encoding="utf-8")
    code, out, error = shell("template", jinja, "-", stdin=text.encode())
    assert (code, out) == (2, b"")
    assert len(error.splitlines()) == 1
    assert words in error or words == "JSON"


def test_template_without_a_template_says_what_to_do(shell, tmp_path, stories):
    (tmp_path / "m.json").write_text("[]")
    code, _, error = shell("template", stories, tmp_path / "m.json")
    assert code == 2
    assert "FILE.jinja" in error
    code, _, error = shell("template", tmp_path / "none.jinja", tmp_path / "m.json")
    assert code == 2
    assert "no such file" in error.lower()
