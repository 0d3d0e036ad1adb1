"""What is wrong with a request is said with a 4xx and the field's name. Nothing is ignored silently."""

import itertools
import json
import socket

import httpx
import pytest

pytestmark = pytest.mark.native
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASK = [{"role": "user", "content": "hi"}]

REFUSED = [
    (CHAT, {"messages": ASK, "max_tokenz": 3}, "max_tokenz"),
    (CHAT, {"messages": ASK, "tools": [{"type": "function"}]}, "tools[0].function.name"),
    (CHAT, {"messages": ASK, "response_format": {"type": "yaml"}}, "response_format.type"),
    (CHAT, {"messages": ASK, "response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
    (CHAT, {"messages": ASK, "response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": []}}}},
     "response_format.json_schema.schema"),
    (CHAT, {"messages": ASK, "response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
     "response_format.json_schema.schema"),
    (CHAT, {"messages": ASK, "guided_regex": "("}, "guided_regex"),
    (CHAT, {"messages": ASK, "guided_choice": []}, "guided_choice"),
    (CHAT, {"messages": ASK, "guided_json": {"type": "nope"}}, "guided_json"),
    (CHAT, {"messages": ASK, "guided_json": {}, "guided_regex": "a"}, "guided_regex"),
    (CHAT, {"messages": ASK, "structured_outputs": {"regex": "a", "json": {}}}, "structured_outputs"),
    (CHAT, {"messages": ASK, "structured_outputs": {"color": "red"}}, "structured_outputs.color"),
    (CHAT, {"messages": ASK, "guided_regex": "a", "min_tokens": 3}, "min_tokens"),
    (CHAT, {"messages": ASK, "guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
    (TEXT, {"prompt": "a", "structured_outputs": {"grammar": "start: x"}}, "structured_outputs"),
    (CHAT, {"messages": ASK, "modalities": ["audio"]}, "modalities"),
    (CHAT, {"messages": ASK, "n": 9}, "n"),
    (CHAT, {"messages": ASK, "n": 0}, "n"),
    (CHAT, {"messages": ASK, "n": 1.5}, "n"),
    (CHAT, {"messages": ASK, "n": True}, "n"),
    (CHAT, {"messages": ASK, "temperature": -1}, "temperature"),
    (CHAT, {"messages": ASK, "temperature": "hot"}, "temperature"),
    (CHAT, {"messages": ASK, "top_p": 0}, "top_p"),
    (CHAT, {"messages": ASK, "top_p": 1.1}, "top_p"),
    (CHAT, {"messages": ASK, "presence_penalty": 3}, "presence_penalty"),
    (CHAT, {"messages": ASK, "top_logprobs": 3}, "top_logprobs"),
    (CHAT, {"messages": ASK, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    (CHAT, {"messages": ASK, "max_tokens": 0}, "max_tokens"),
    (CHAT, {"messages": ASK, "max_tokens": -1}, "max_tokens"),
    (CHAT, {"messages": ASK, "max_tokens": 2**63}, "max_tokens"),
    (CHAT, {"messages": ASK, "max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
    (CHAT, {"messages": ASK, "seed": 2**64}, "seed"),
    (CHAT, {"messages": ASK, "stop": [""]}, "stop"),
    (CHAT, {"messages": ASK, "stop": ["x"] * 17}, "stop"),
    (CHAT, {"messages": ASK, "stop": 5}, "stop"),
    (CHAT, {"messages": ASK, "logit_bias": {"x": 1}}, "logit_bias"),
    (CHAT, {"messages": ASK, "logit_bias": {"5": 101}}, "logit_bias"),
    (CHAT, {"messages": ASK, "logit_bias": {"99999999": 1}}, "logit_bias"),
    (CHAT, {"messages": ASK, "stream_options": {"include_usage": True}}, "stream_options"),
    (CHAT, {"messages": ASK, "stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
    (CHAT, {"messages": ASK, "stream": "yes"}, "stream"),
    (CHAT, {"messages": ASK, "store": True}, "store"),
    (CHAT, {"messages": ASK, "service_tier": "priority"}, "service_tier"),
    (CHAT, {}, "messages"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": "hi"}, "messages"),
    (CHAT, {"messages": [{"role": "king", "content": "hi"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "user", "content": "a", "mood": "b"}]}, "messages[0].mood"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
     "messages[0].content[0]"),
    (CHAT, {"messages": ASK * 1001}, "messages"),
    (TEXT, {}, "prompt"),
    (TEXT, {"prompt": []}, "prompt"),
    (TEXT, {"prompt": {"a": 1}}, "prompt"),
    (TEXT, {"prompt": [-1]}, "prompt"),
    (TEXT, {"prompt": [4294967295]}, "prompt"),
    (TEXT, {"prompt": ["a"] * 65}, "prompt"),
    (TEXT, {"prompt": "a", "echo": True}, "echo"),
    (TEXT, {"prompt": "a", "suffix": "b"}, "suffix"),
    (TEXT, {"prompt": "a", "best_of": 3}, "best_of"),
    (TEXT, {"prompt": "a", "logprobs": 21}, "logprobs"),
    (TEXT, {"prompt": "a", "allowed_token_ids": []}, "allowed_token_ids"),
    ("/tokenize", {}, "prompt"),
    ("/detokenize", {"tokens": [1 << 30]}, "tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "param"), REFUSED, ids=lambda value: str(value)[:60])
def test_the_field_is_named(served, path, body, param):
    answer = served.ask(path, {"model": "base", **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert len(error["message"]) < 400


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"a":1,"a":2}', b'{"temperature": NaN}', b"[" * 100_000, b'"\xff"', b"null",
     b'{"prompt":"\\ud800"}'],
    ids=["empty", "half", "list", "twice", "nan", "deep", "bytes", "null", "surrogate"],
)  # fmt: skip
def test_broken_json(served, body):
    answer = httpx.post(
        f"{served.url}{CHAT}", content=body, trust_env=False,
        headers={"authorization": "Bearer test-key", "content-type": "application/json"},
    )  # fmt: skip
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_unknown_models_are_404(served):
    answer = served.ask(CHAT, {"model": "gpt-5", "messages": ASK})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_every_route_and_method_needs_the_key(served):
    from edgewise.serve.http.app import ROUTES
    from edgewise.serve.http.guard import PUBLIC

    methods = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
    keys = ({}, {"authorization": "Bearer wrong"}, {"x-api-key": ""})
    with httpx.Client(base_url=served.url, trust_env=False) as client:
        for path, method, headers in itertools.product(ROUTES, methods, keys):
            expected = 200 if (method, path) in PUBLIC else 401
            assert client.request(method, path, headers=headers).status_code == expected, (method, path)
    assert {("GET", "/health"), ("HEAD", "/health"), ("GET", "/"), ("GET", "/page.js"), ("GET", "/page.css")} == PUBLIC


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "localhost.evil.example:80"}, 421),
        ({"host": ""}, 421),
        ({"host": "["}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"host": "localhost:1"}, 200),
    ],
    ids=str,
)
def test_host_and_origin(served, headers, status):
    answer = served.ask("/v1/models", headers=headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers
    assert "server" not in answer.headers


def test_only_json_and_not_too_much_of_it(served):
    key = {"authorization": "Bearer test-key"}
    form = httpx.post(f"{served.url}{TEXT}", content=b"{}", headers={**key, "content-type": "text/plain"},
                      trust_env=False)  # fmt: skip
    assert form.status_code == 415
    for more, status in (({}, 400), ({"origin": served.url}, 415), ({"sec-fetch-site": "none"}, 415)):
        unsaid = httpx.post(f"{served.url}{TEXT}", content=b"{}", headers={**key, **more}, trust_env=False)
        assert unsaid.status_code == status  # no type at all: not from a browser, or not at all
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as raw:  # said before it is read
        raw.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer test-key\r\n"
            b"Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n"
        )
        assert b" 413 " in raw.recv(4096).partition(b"\r\n")[0]
    big = httpx.post(f"{served.url}{TEXT}", content=iter([b" " * 100_000] * 50), trust_env=False,
                     headers={**key, "content-type": "application/json"})  # fmt: skip
    assert big.status_code == 413
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n")
        assert b" 431 " in raw.recv(4096).partition(b"\r\n")[0]


def test_a_model_without_a_template_says_so(served, monkeypatch):
    monkeypatch.setattr(served.model, "template", None)
    answer = served.ask(CHAT, {"model": "base", "messages": ASK})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "no_chat_template"


def test_errors_in_every_dialect_are_json(served):
    assert json.loads(served.ask("/nothing", {}).text)["error"]["code"] == "no_route"
    assert served.ask("/v1/models", method="DELETE").status_code == 405
