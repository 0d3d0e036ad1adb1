"""Several models behind one server: loaded when asked for, unloaded when their time is over or for another."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import ollama
import openai
import pytest

from edgewise.base import OutOfRoom
from edgewise.serve.http.keeping import seconds

from .library import NAMES, SHORT, Library

pytestmark = pytest.mark.native


def test_durations():
    assert [seconds(text) for text in ("5m", "1h30m", "300", "0", "-1", "-1m", "1.5s", "250ms")] == [
        300, 5400, 300, 0, -1, -60, 1.5, 0.25,
    ]  # fmt: skip
    assert [seconds(text) for text in ("", "5 apples", "m", "1d", "--1")] == [None] * 5


def test_the_longest_unused_makes_room():
    with Library(max_loaded=2) as library:
        assert library.loaded() == []
        assert [model["id"] for model in library.web.get("/v1/models").json()["data"]] == list(NAMES)
        answers = [library.ask(name).json() for name in ("a", "b", "a", "c")]
        assert library.loaded() == ["a", "c"]
        assert len({answer["choices"][0]["text"] for answer in answers}) == 1
        assert [answer["model"] for answer in answers] == ["a", "b", "a", "c"]
        assert [(place.loads, place.unloads) for place in library.places] == [(1, 0), (1, 1), (1, 0)]
        with openai.OpenAI(base_url=f"{library.url}/v1", api_key="x", max_retries=0) as client:
            with pytest.raises(openai.NotFoundError) as caught:
                client.completions.create(model="d", prompt="x")
            assert caught.value.code == "model_not_found"
            assert client.models.retrieve("b").id == "b"
        assert library.loaded() == ["a", "c"]  # asking what there is loads nothing
        metrics = library.web.get("/metrics").text
        assert 'edgewise:model_loaded{model_name="b"} 0' in metrics
        assert 'edgewise:model_unloads_total{model_name="b"} 1' in metrics
        assert 'vllm:generation_tokens_total{model_name="b"} 3' in metrics  # what it did is not forgotten
        gc.collect()
        assert sum(one() is not None for one in library.opened) == 2


def test_keep_alive():
    with Library(keep_s=300) as library:
        client = ollama.Client(host=library.url, trust_env=False)
        few = {"num_predict": 2}

        def until(name):
            (model,) = [model for model in client.ps().models if model.model == name]
            assert model.size > library.places[0].card.weight_bytes > 0
            return model.expires_at.timestamp() - time.time()

        client.generate(model="a", prompt="x", options=few)
        assert 290 < until("a") <= 300
        client.chat(model="a", messages=[{"role": "user", "content": "x"}], options=few, keep_alive="1h")
        assert 3590 < until("a") <= 3600
        client.generate(model="a", prompt="x", options=few, keep_alive=-1)
        assert until("a") > 1e8
        client.embed(model="a", input="x", keep_alive=0.2)
        library.until(lambda: library.loaded() == [])
        made = client.generate(model="a", prompt="x", options=few, keep_alive=0)
        assert made.load_duration > 0
        library.until(lambda: library.loaded() == [])
        assert client.generate(model="b", prompt="").done_reason == "load"  # nothing but loaded
        assert 290 < until("b") <= 300
        assert client.chat(model="b", messages=[], keep_alive=0).done_reason == "unload"
        library.until(lambda: library.loaded() == [])
        assert [(place.loads, place.unloads) for place in library.places] == [(2, 2), (1, 1), (0, 0)]
        for wrong in ("5 apples", True, [], "nan"):
            answer = library.web.post("/api/generate", json={"model": "a", "prompt": "x", "keep_alive": wrong})
            assert answer.status_code == 400
            assert "keep_alive" in answer.json()["error"]
        client._client.close()
        assert datetime.fromisoformat(library.web.get("/api/tags").json()["models"][0]["modified_at"])


def test_what_runs_is_never_unloaded():
    """A long answer of a is running; b wants its room; more requests for a queue up behind b; all get their answers."""
    with Library(max_loaded=1, keep_s=0) as library, ThreadPoolExecutor(4) as pool:
        gate = threading.Event()
        library.ask("a", keep_alive=None)
        long = pool.submit(library.ask, "a", max_tokens=400, ignore_eos=True)
        a, b, _ = library.places
        library.until(lambda: a.hosted is not None and a.hosted.thread.streams)
        a.hosted.thread._order(gate.wait)
        other = pool.submit(library.ask, "b")
        library.until(lambda: a.leaving)
        behind = pool.submit(library.ask, "a")
        library.until(lambda: len(a.waiters) == 1)
        assert library.loaded() == ["a"]
        assert not other.done()
        gate.set()
        assert long.result().json()["usage"]["completion_tokens"] == 400
        assert other.result().status_code == behind.result().status_code == 200
        assert (a.loads, b.loads) == (3, 1)
        assert library.most == 1


def test_a_crowd_wants_them_all():
    """8 clients, 3 models, room for one."""
    with Library(max_loaded=1) as library, ThreadPoolExecutor(8) as pool:
        asked = [NAMES[(at * 7 + at // 3) % 3] for at in range(48)]
        answers = list(pool.map(library.ask, asked))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["choices"][0]["text"] for answer in answers}) == 1
        assert library.most == 1  # never two at once, never one twice
        loads, unloads = (sum(getattr(place, what) for place in library.places) for what in ("loads", "unloads"))
        assert loads == unloads + 1 == len(library.opened)
        assert all(place.users == 0 and not place.waiters for place in library.places)


def test_a_model_that_cannot_be_loaded_says_so():
    with Library(max_loaded=2) as library:
        library.fails.append(RuntimeError("secret/path"))
        answer = library.ask("a")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "load_failed")
        assert "secret" not in answer.text
        library.fails.append(OutOfRoom("It is too large."))
        answer = library.ask("a")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "out_of_room")
        assert library.ask("a").status_code == 200
        library.fails.append(OutOfRoom("It is too large beside the other."))
        assert library.ask("b").status_code == 200  # a, which nobody used, made room
        assert library.loaded() == ["b"]


def test_a_client_that_leaves_lets_the_model_go():
    with Library(max_loaded=1, keep_s=0) as library:
        body = {"model": "a", **SHORT, "max_tokens": 1000, "ignore_eos": True, "stream": True}
        with library.web.stream("POST", "/v1/completions", json=body) as answer:
            next(answer.iter_lines())
        library.until(lambda: library.loaded() == [])
        assert library.places[0].users == 0
