"""Templates print exactly what transformers prints, reach no Python object, and cannot burn the machine."""

import gc
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from styles import STYLES

from edgewise.base import BadInput
from edgewise.testing.bombs import TEMPLATES
from edgewise.text.budget import BYTES, STEPS
from edgewise.text.chat import JinjaChatTemplate
from edgewise.text.template import Template

CALL = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Köln", "n": 1.5, "l": [1, None, True]}},
}
CHATS = {
    "one": [{"role": "user", "content": ' Hi <b>&amp; "there"  '}],
    "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    "turns": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb"},
        {"role": "user", "content": "日本\n"},
    ],
    "tools": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": '{"t": 20}', "name": "weather", "tool_call_id": "abcdefghi"},
        {"role": "assistant", "content": "20 degrees", "reasoning": "easy"},
        {"role": "user", "content": "ok"},
    ],
    "parts": [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}
    ],
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'It\'s <sunny> & "warm"?',
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "enum": ["Köln", "東京"]}},
                "required": ["city"],
            },
        },
    }
]


@pytest.mark.oracle
@pytest.mark.parametrize("style", sorted(STYLES))
def test_the_output_is_that_of_transformers(style):
    oracle = pytest.importorskip("transformers.utils.chat_template_utils").render_jinja_template
    ours = JinjaChatTemplate({"default": STYLES[style]}, {"bos_token": "<s>", "eos_token": "</s>"})
    printed = 0
    for messages in CHATS.values():
        for tools in (None, TOOLS):
            for prompt in (False, True):
                for extra in ({}, {"enable_thinking": False}, {"documents": [{"title": "t", "text": "x"}]}):
                    given = {"tools": tools, "add_generation_prompt": prompt, **extra}
                    try:
                        both = {"bos_token": "<s>", "eos_token": "</s>", **given}
                        expected = oracle([messages], chat_template=STYLES[style], **both)[0][0]
                    except Exception:
                        with pytest.raises(BadInput):
                            ours.render(messages, **given)
                        continue
                    assert ours.render(messages, **given) == expected
                    printed += 1
    assert printed > 10


PAYLOADS = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ ['']|map(attribute='__class__')|list }}",
    "{{ [{}]|map(attribute='pop')|first }}{{ {}.pop }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "{{ joiner.__init__.__globals__['os'].system('touch CANARY') }}",
    "{{ namespace.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "{{ lipsum.__globals__['os'].system('touch CANARY') }}",
    "{{ range.__self__ }}",
    "{{ dict.__base__.__subclasses__() }}",
    "{{ raise_exception.__globals__['__builtins__']['open']('CANARY', 'w') }}",
    "{{ strftime_now.__globals__ }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'a': 1}) }}",
    "{{ messages.__setitem__(0, 1) }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{a.__class__}'.format(a='') }}",
    "{{ ('{0.__class__}' | replace('x', 'y')).format('') }}",
    "{{ ['{0.__class__}'] | map('format', '') | list }}{{ ''.format_map({}) }}",
    "{{ ('{0.__cl' ~ 'ass__}').format(messages) }}",
    "{% set f = '{0.__class__}'.format %}{{ f(1) }}",
    "{{ (1).__class__ }}",
    "{{ (messages|string).encode('ascii').__class__ }}",
    "{{ ''.encode() }}",
    "{{ ''.maketrans({}) }}",
    "{{ ''.join.__self__ }}",
    "{{ namespace(__class__=1) }}",
    "{% set n = namespace() %}{% set n._x = 1 %}",
    "{% set n = namespace() %}{{ n['__init__'] }}{{ n.__init__() }}",
    "{% for x in messages %}{{ loop.__class__.__init__.__globals__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}{{ m._func.__globals__ }}",
    "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ request.application.__globals__ }}",
    "{{ config.items() }}",
    "{{ url_for.__globals__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('touch CANARY') }}",
    "{% from 'os' import system %}{{ system('touch CANARY') }}",
    "{% extends '/etc/passwd' %}",
    "{{ environment.from_string('x') }}{{ context.environment }}",
    "{{ __builtins__.open('CANARY', 'w') }}",
    "{{ eval('1') }}{{ exec('1') }}{{ open('CANARY', 'w') }}",
    "{{ undefined_thing.__init__.__globals__ }}",
    "{{ (undefined_thing|default(cycler)).__init__ }}{{ cycler('a').__class__() }}",
    "{{ cycler(1).items.__class__ }}{{ cycler(1).items.append(1) }}",
    "{{ {}.items().__class__ }}{{ {}.items().mapping.__class__ }}",
    "{{ [].copy.__self__.__class__() }}",
    "{% set x = ''.upper %}{{ x.__self__ }}{{ x.__call__() }}",
    "{{ (messages|items).gi_frame }}{{ (messages|map('upper')).gi_code }}",
    "{{ 5.0.hex() }}{{ 5.0.fromhex('1') }}",
    "{{ range(3).index(1) }}{{ range(3).__reduce__() }}",
)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_reaches_a_python_object(payload, tmp_path, monkeypatch):
    """Refused, or printed as the nothing that an undefined name is; never a class, a module, a function or a file."""
    monkeypatch.chdir(tmp_path)
    messages = [{"role": "user", "content": "hi"}]
    seen: list[str] = []
    sys.addaudithook(
        lambda event, _: seen.append(event) if armed and event in ("os.system", "subprocess.Popen", "os.exec") else None
    )
    armed = True
    try:
        printed = JinjaChatTemplate({"default": payload}, {}).render(messages)
    except BadInput:
        printed = ""
    finally:
        armed = False
    assert not printed
    assert not seen
    assert not list(tmp_path.iterdir())
    assert messages == [{"role": "user", "content": "hi"}]


CHILD = """
import json, resource
from edgewise.testing.bombs import TEMPLATES
from edgewise.base import BadInput
from edgewise.text.template import Template
Template("{{ messages }}").render({"messages": [1]})
start = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (start + (64 << 20),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (len(TEMPLATES),) * 2)
for name, source in TEMPLATES.items():
    try:
        print(json.dumps([name, len(Template(source).render({"messages": []}))]))
    except BadInput as error:
        print(json.dumps([name, str(error)]))
"""


def test_bombs_stop_within_time_and_memory():
    """Row R05: all in one child that may take 64 MB more than it starts with, and a second of CPU each on average."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc: address space cannot be read")
    import edgewise

    here = [str(Path(edgewise.__file__).parents[1]), str(Path(__file__).parent)]
    child = subprocess.run(
        [sys.executable, "-c", CHILD], env={**os.environ, "PYTHONPATH": os.pathsep.join(here)}, capture_output=True,
        text=True, timeout=280, check=False,
    )  # fmt: skip
    found = dict(map(json.loads, child.stdout.splitlines()))
    assert child.returncode == 0, child.stderr[-2000:]
    assert set(found) == set(TEMPLATES)
    assert {name for name, result in found.items() if isinstance(result, int)} == {"power"}
    assert not {
        name for name, result in found.items() if "needs too much memory" in str(result)
    }  # the budget came first


def test_the_budget_grows_with_what_the_user_sends():
    """A thousand long messages through a loop of real size: no refusal."""
    messages = [{"role": "user" if i % 2 == 0 else "assistant", "content": f"{i} " * 300} for i in range(1000)]
    prompt = JinjaChatTemplate({"default": STYLES["qwen3"]}, {}).render(messages)
    assert prompt.count("<|im_start|>") == 1000


def test_budgets_are_what_the_docs_say():
    assert (STEPS, BYTES) == (1_500_000, 24 << 20)


def test_a_template_is_one_for_all_threads():
    template = JinjaChatTemplate({"default": STYLES["llama3"]}, {"bos_token": "<s>"})
    answers: set[str] = set()

    def work():
        for _ in range(20):
            answers.add(template.render(CHATS["turns"], add_generation_prompt=True))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 1
    gc.collect()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% if %}", "line 1"),
        ("{{ x | nope }}", "nope"),
        ("{{ a.b.c }}", "'a' is undefined"),
        ("{{ raise_exception('No system role.') }}", "refuses these messages: No system role."),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("\n\n{% for %}", "line 3"),
        ("{{ {}|tojson(indent='a' * 99) }}", "memory"),
        ("{% for m in none %}{% endfor %}", "NoneType"),
    ],
)
def test_broken_templates_say_what_is_wrong_in_one_sentence(source, words):
    with pytest.raises(BadInput, match=words.replace("(", r"\(")) as info:
        JinjaChatTemplate({"default": source}, {}, "tiny").render([{"role": "user", "content": "x"}])
    assert "\n" not in str(info.value)


def test_dates_and_generation_marks():
    assert len(Template("{{ strftime_now('%Y-%m-%d') }}").render({})) == 10
    source = (
        "{% for m in messages %}\n{% generation %}\n{% set x = 1 %}\n{{ m.content }}\n{% endgeneration %}\n{% endfor %}"
    )
    assert Template(source).render({"messages": [{"content": "a"}, {"content": "b"}]}) == "a\nb\n"
