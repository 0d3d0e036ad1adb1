"""Three names for the embedded model behind one server, loaded and unloaded as it goes."""

import threading
import time
import weakref

import httpx

from edgewise.embedded import embedded_model
from edgewise.serve.http.running import Background
from edgewise.serve.http.settings import Settings
from edgewise.serve.http.shelf import Place, read_card
from edgewise.serve.llm import LLM
from edgewise.text.chat import JinjaChatTemplate

NAMES = ("a", "b", "c")
SHORT = {"prompt": "def f(", "max_tokens": 3, "temperature": 0}


class Library:
    """Three names for the embedded model. opened: every LLM that was made, as long as it lives."""

    def __init__(self, **settings):
        self.opened, self.fails, self.alive, self.most = [], [], 0, 0
        self._lock = threading.Lock()
        self.places = []
        self.background = Background(self._make, Settings(port=0, request_s=60, **settings))

    def _make(self):
        card = read_card(embedded_model(), None, chat=True)
        self.places = [Place(name, card, self._open) for name in NAMES]
        return self.places

    def _open(self):
        if self.fails:
            raise self.fails.pop()
        llm = LLM(embedded_model(), threads=1, max_num_seqs=4)
        with self._lock:
            self.opened.append(weakref.ref(llm))
            self.most = max(self.most, sum(one() is not None for one in self.opened))
        return llm, JinjaChatTemplate({"default": "{{ messages[-1].content }}"}, {})

    def __enter__(self):
        self.background.__enter__()
        self.url = self.background.url
        self.web = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        return self

    def __exit__(self, *problem):
        self.web.close()
        self.background.__exit__(*problem)

    def ask(self, name, **more):
        return self.web.post("/v1/completions", json={"model": name, **SHORT, **more})

    def loaded(self):
        return [place.name for place in self.places if place.hosted is not None]

    def until(self, true, limit_s=20):
        end = time.monotonic() + limit_s
        while not true():
            assert time.monotonic() < end, "it never became true"
            time.sleep(0.01)
