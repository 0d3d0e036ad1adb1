"""The page: nothing comes from elsewhere; and where a headless browser is installed, a talk with the keyboard alone."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from edgewise.engine import loop
from edgewise.serve.http import page
from edgewise.serve.http.settings import Settings
from edgewise.text.chat import JinjaChatTemplate

from .library import Library

pytestmark = pytest.mark.native


def test_it_is_small_and_asks_nobody_else(served):
    total = 0
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        answer = served.ask(path)
        assert answer.headers["content-type"].startswith(kind)
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert not re.search(r"https?:|//[a-z]+\.", answer.text.replace("// ", "")), path
        total += len(answer.content)
    assert total < 40_000


def test_the_script_finds_what_it_looks_for():
    html = (page.FOLDER / "index.html").read_text()
    script = (page.FOLDER / "page.js").read_text()
    ids = set(re.findall(r'id="(\w+)"', html))
    assert set(re.findall(r'at\("(\w+)"\)', script)) <= ids
    assert "onclick" not in html
    assert "<style" not in html
    assert "innerHTML" not in script  # what a model writes is text, never markup


@pytest.fixture
def browser():
    """Chromium of playwright, or the one that EDGEWISE_CHROMIUM names."""
    sync = pytest.importorskip("playwright.sync_api", reason="no headless browser: pip install playwright")
    with sync.sync_playwright() as tools:
        try:
            made = tools.chromium.launch(executable_path=os.environ.get("EDGEWISE_CHROMIUM"))
        except sync.Error as problem:
            pytest.skip(f"no headless browser: {str(problem).splitlines()[0]}")
        yield made
        made.close()


def test_a_conversation(serving, browser):
    """Types, streams, stops, begins anew, changes the model, all by keyboard. EDGEWISE_SCREENSHOTS keeps pictures."""
    folder = os.environ.get("EDGEWISE_SCREENSHOTS")
    problems, foreign = [], []
    with serving(Settings(port=0), count=2) as server:
        for name, width, height, scheme in (
            ("desktop", 1200, 760, "light"), ("dark", 1200, 760, "dark"), ("phone", 390, 780, "light"),
        ):  # fmt: skip
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab = context.new_page()
            tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            tab.on("pageerror", lambda error: problems.append(str(error)))
            tab.on("request", lambda request: foreign.append(request.url))
            tab.goto(server.url)
            tab.wait_for_selector("#model option", state="attached")
            tab.locator("#max_tokens").evaluate("(field) => { field.value = 40; }")
            tab.locator("#seed").evaluate("(field) => { field.value = 3; }")
            tab.keyboard.type("Write a function that adds two numbers.")
            tab.keyboard.press("Enter")
            tab.wait_for_selector("#speed:has-text('tokens/s')")
            assert tab.locator(".said.user").count() == 1
            first = tab.locator(".said.assistant").inner_text().strip()
            assert first
            if folder:
                tab.screenshot(path=str(Path(folder) / f"page-{name}.png"))
            tab.locator("#max_tokens").evaluate("(field) => { field.value = ''; }")
            tab.keyboard.type("Again, and at length.")
            tab.keyboard.press("Enter")
            server.until(lambda tab=tab: tab.locator(".said.assistant").nth(1).inner_text().strip() != "")
            tab.keyboard.press("Escape")
            tab.wait_for_selector("#stop", state="hidden")
            server.until(server.idle)
            tab.keyboard.press("Alt+N")
            assert tab.locator(".said").count() == 0
            tab.locator("#model").focus()
            tab.keyboard.press("ArrowDown")
            assert tab.locator("#model").input_value() == "base2"
            made = server.hosted[1].tally.generation_tokens
            tab.locator("#max_tokens").evaluate("(field) => { field.value = 8; }")
            tab.locator("#prompt").focus()
            tab.keyboard.type("And the other one?")
            tab.keyboard.press("Enter")
            tab.wait_for_selector("#speed:has-text('tokens')")
            assert server.hosted[1].tally.generation_tokens > made  # it was the other one that answered
            context.close()
    assert not problems
    assert all(url.startswith((server.url, "data:")) for url in foreign)


def test_a_model_is_loaded_by_choosing_it(browser):
    """Two models, room for one: the picker says which is loaded, and writing to the other one swaps them."""
    with Library(max_loaded=1) as library:
        problems = []
        library.ask("a")
        tab = browser.new_page()
        tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(library.url)
        tab.wait_for_selector("#model option:has-text('b (not loaded)')", state="attached")
        assert tab.locator("#memory").inner_text() == "stays"
        assert tab.locator("#temperature").input_value() != ""
        tab.locator("#model").focus()
        tab.keyboard.press("ArrowDown")
        assert tab.locator("#temperature").input_value() == ""  # not known before it is loaded
        tab.locator("#max_tokens").evaluate("(field) => { field.value = 8; }")
        tab.locator("#prompt").focus()
        tab.keyboard.type("def f(")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#speed:has-text('tokens')")
        tab.wait_for_selector("#model option:has-text('a (not loaded)')", state="attached")
        library.until(lambda: library.loaded() == ["b"])
        library.until(lambda: tab.locator("#temperature").input_value() != "")  # at the next look
        tab.close()
        assert not problems


def test_a_thought_is_shown(serving, browser, monkeypatch):
    """Open while the model thinks, folded away when it answers."""
    plain = loop.rules_for

    class Script:
        def __init__(self, tokens):
            self.tokens = tokens

        def apply(self, seq, logits):
            at = len(seq.tokens) - seq.prompt_tokens
            logits.fill(-np.inf)
            logits[self.tokens[min(at, len(self.tokens) - 1)]] = 0
            return logits

    with serving(Settings(port=0)) as server:
        model = server.model
        model.template = JinjaChatTemplate({"default": "{% if no %}</think>{% endif %}{{ messages[-1].content }}"}, {})
        ids = [*model.tokenizer.encode("<think>\nOne and one.\n</think>\n\nTwo."), min(model.llm.parts.engine.ends)]
        monkeypatch.setattr(loop, "rules_for", lambda *given: [Script(ids), *plain(*given)])
        tab = browser.new_page()
        tab.goto(server.url)
        tab.wait_for_selector("#model option", state="attached")
        tab.keyboard.type("How much?")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#speed:has-text('tokens/s')")
        assert tab.locator(".said.assistant > span").inner_text() == "Two."
        assert tab.locator(".thought > span").text_content() == "One and one."
        assert not tab.locator(".thought").evaluate("(box) => box.open")
        tab.close()
