"""A server that starts again knows the prompts of the one before."""

import time

from edgewise.serve.http import engine_thread
from edgewise.serve.http.settings import Settings

CHAT = "/v1/chat/completions"
PROMPT = "Sort the list, and say how. Do not use the built-in function, and explain each step of yours. " * 3


def test_a_server_keeps_them_when_it_is_idle(serving, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(engine_thread, "IDLE_S", 0.01)
    ask = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 8, "temperature": 0}
    with serving(Settings(port=0, keys=("test-key",)), prefix_cache=str(tmp_path)) as server:
        first = server.ask(CHAT, ask).json()
        warm = server.ask(CHAT, ask).json()
        end = time.monotonic() + 20
        while not list(tmp_path.glob("*.kv")):
            assert time.monotonic() < end, "nothing was written"
            time.sleep(0.01)
    with serving(Settings(port=0, keys=("test-key",)), prefix_cache=str(tmp_path)) as server:
        again = server.ask(CHAT, ask).json()
    assert again["choices"][0]["message"] == first["choices"][0]["message"]
    assert first["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert again["usage"] == warm["usage"]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 32
