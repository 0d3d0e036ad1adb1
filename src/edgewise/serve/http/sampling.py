"""OpenAI's sampling fields, and the further ones that vLLM and llama.cpp take, as SamplingParams."""

from dataclasses import replace
from typing import Any

from edgewise.base import BadInput, SamplingParams
from edgewise.serve.http.errors import bad
from edgewise.serve.http.fields import Fields
from edgewise.serve.http.settings import MAX_BIASES, MAX_LOGPROBS, MAX_N, MAX_STOPS

SEEDS = (-(1 << 63), (1 << 64) - 1)
BOOKS = (  # say who asks, or are for the caller's own records
    "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
)  # fmt: skip


def sampling(body: Fields, defaults: SamplingParams, **more: Any) -> SamplingParams:
    """Reads every field that says how tokens are drawn. more: what the dialect reads in its own way."""
    body.no_effect(*BOOKS)
    body.only("service_tier", "auto", "default")
    given: dict[str, Any] = {
        "n": body.integer("n", 1, 1, MAX_N),
        "temperature": body.number("temperature", None, 0, 100),
        "top_p": body.number("top_p", None, 0, 1),
        "top_k": body.integer("top_k", None, -1, 1 << 30),
        "min_p": body.number("min_p", None, 0, 1),
        "seed": body.integer("seed", None, *SEEDS),
        "stop": stops(body, "stop"),
        "stop_token_ids": token_ids(body, "stop_token_ids", MAX_STOPS),
        "min_tokens": body.integer("min_tokens", None, 0, 1 << 30),
        "ignore_eos": body.boolean("ignore_eos"),
        "repetition_penalty": body.number("repetition_penalty", None, 0.01, 100),
        "presence_penalty": body.number("presence_penalty", None, -2, 2),
        "frequency_penalty": body.number("frequency_penalty", None, -2, 2),
        "logit_bias": biases(body),
        "allowed_token_ids": token_ids(body, "allowed_token_ids", 1 << 20),
        "skip_special_tokens": body.boolean("skip_special_tokens", True),
        **more,
    }
    if given["top_p"] == 0:  # some clients mean "the likeliest"
        raise bad("top_p", "top_p must be above 0 but is 0. For the likeliest token set temperature to 0.")
    try:
        return replace(defaults, **{name: value for name, value in given.items() if value is not None})
    except BadInput as problem:
        raise bad(str(problem).partition(" ")[0], str(problem)) from problem


def max_tokens(body: Fields, *names: str) -> int | None:
    """The same thing under several names; two that disagree are refused."""
    found: int | None = None
    for name in names:
        value: int | None = body.integer(name, None, 1, 1 << 31)
        if value is not None and found is not None and value != found:
            raise bad(name, f"{' and '.join(names)} say different things ({found} and {value}); give one of them.")
        found = value if found is None else found
    return found


def stops(body: Fields, name: str) -> tuple[str, ...] | None:
    value = body.anything(name)
    if value is None:
        return None
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(text, str) and text for text in listed):
        raise body.wrong(name, "a non-empty string or a list of them")
    if len(listed) > MAX_STOPS:
        raise bad(name, f"{name} has {len(listed)} entries; at most {MAX_STOPS} are taken.")
    if any(len(text) > 1000 for text in listed):
        raise bad(name, f"An entry of {name} is longer than 1000 characters.")
    return tuple(listed)


def token_ids(body: Fields, name: str, most: int) -> tuple[int, ...] | None:
    value = body.array(name, most)
    if value is None:
        return None
    if not all(isinstance(token, int) and not isinstance(token, bool) and 0 <= token < 1 << 31 for token in value):
        raise bad(name, f"{name} must be a list of token ids (integers from 0).")
    return tuple(value)


def biases(body: Fields) -> dict[int, float] | None:
    value = body.mapping("logit_bias", MAX_BIASES)
    if value is None:
        return None
    found = {}
    for token, bias in value.items():
        if not token.isascii() or not token.isdigit() or len(token) > 9:
            raise bad("logit_bias", f"logit_bias has the key '{token[:40]}', which is not a token id.")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise bad("logit_bias", f"logit_bias of token {token} must be a number from -100 to 100.")
        found[int(token)] = float(bias)
    return found


def chat_logprobs(body: Fields) -> int | None:
    top = body.integer("top_logprobs", None, 0, MAX_LOGPROBS)
    if body.boolean("logprobs"):
        return top or 0
    if top is not None:
        raise bad("top_logprobs", "top_logprobs needs logprobs: true.")
    return None


def streaming(body: Fields) -> tuple[bool, bool]:
    """(stream, and usage at its end)"""
    stream = body.boolean("stream")
    options = body.mapping("stream_options")
    if options is None:
        return stream, False
    if not stream:
        raise bad("stream_options", "stream_options needs stream: true.")
    inner = Fields(options, "stream_options.")
    usage = inner.boolean("include_usage")
    inner.only("include_obfuscation", False)
    inner.done()
    return stream, usage
