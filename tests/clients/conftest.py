"""A server in this process on the embedded model, and a strict reader of its streams."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from edgewise.embedded import embedded_model
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.http.running import Background
from edgewise.serve.http.settings import Settings
from edgewise.serve.llm import LLM
from edgewise.text.chat import JinjaChatTemplate

KEY = "test-key"
TEMPLATE = (  # the embedded model has none: it writes Python, so a chat is a module of questions and answers
    "{% for m in messages %}# {{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}# assistant:\n{% endif %}"
)


class Served:
    def __init__(self, background: Background, hosted: list[Hosted]) -> None:
        self.background, self.hosted = background, hosted
        self.url = background.url

    @property
    def model(self) -> Hosted:
        return self.hosted[0]

    def ask(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {KEY}", **more.pop("headers", {})}
        method = more.pop("method", "GET" if body is None else "POST")
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as client:
            return client.request(method, path, json=body, headers=headers, **more)

    def frames(self, path: str, body: Any) -> list[Any]:
        """Objects of a stream of server-sent events, its framing checked byte by byte."""
        answer = self.ask(path, body)
        assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
        assert answer.text.endswith("data: [DONE]\n\n")
        parts = answer.text.removesuffix("\n\n").split("\n\n")
        assert all(part.startswith("data: ") and "\n" not in part for part in parts if not part.startswith(":"))
        return [json.loads(part[6:]) for part in parts[:-1] if not part.startswith(":")]

    def until(self, true: Callable[[], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it never became true"
            time.sleep(0.01)

    def idle(self) -> bool:
        load = self.model.thread.load
        return not self.model.thread.streams and load.running == 0 and load.free == load.capacity


@contextlib.contextmanager
def _serving(settings: Settings, count: int = 1, **options: Any) -> Iterator[Served]:
    hosted: list[Hosted] = []

    def hosts() -> list[Hosted]:
        for name in ("base", "base2")[:count]:
            llm = LLM(embedded_model(), **{"threads": 1, "max_num_seqs": 8, **options})
            hosted.append(Hosted(llm, name, JinjaChatTemplate({"default": TEMPLATE}, {})))
        return hosted

    with Background(hosts, settings) as background:
        yield Served(background, hosted)


@pytest.fixture
def serving() -> Callable[..., contextlib.AbstractContextManager[Served]]:
    return _serving


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    with _serving(Settings(port=0, keys=(KEY, "another"))) as server:
        yield server
