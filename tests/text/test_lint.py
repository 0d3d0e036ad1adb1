"""Rule D10: no code from files, and Jinja in one module only. Read from the syntax tree of every source file."""

import ast
from pathlib import Path

import pytest

import edgewise

SOURCE = Path(edgewise.__file__).parent
ONE_DOOR = {"jinja2": {"text/template.py"}}
NEVER = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "code",
    "codeop",
    "runpy",
    "imp",
}
NEVER_CALLED = {"eval", "exec", "compile", "__import__"}
# importlib loads our own modules by names from our own tables; importlib.metadata and .resources load nothing.
IMPORTERS = {
    "base/catalog.py", "serve/cli.py", "serve/commands/members.py", "serve/commands/train.py",
    "serve/commands/version.py", "__init__.py",
}  # fmt: skip
HARMLESS = {"importlib.metadata", "importlib.resources"}
LOADERS = {"torch.load", "yaml.load", "yaml.unsafe_load"}  # numpy's refuses pickles unless told otherwise
# What starts edgewise.train as a program, and what compiles a completion, never run, to see whether it is whole.
RUNNERS = {"serve/commands/train.py": "runpy", "train/evaluation.py": "codeop"}


def dotted(node):
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"


def problems(name, text):
    found = []
    for node in ast.walk(ast.parse(text)):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        for module in modules:
            top = module.partition(".")[0]
            if top in NEVER and RUNNERS.get(name) != top:
                found.append(f"{name}:{node.lineno} imports {module}")
            if top in ONE_DOOR and name not in ONE_DOOR[top]:
                found.append(f"{name}:{node.lineno} imports {module}, which only {ONE_DOOR[top]} may")
            if top == "importlib" and name not in IMPORTERS and not name.startswith("testing/"):
                inner = module if module != "importlib" or isinstance(node, ast.Import) else ""
                if inner and not any(inner == one or inner.startswith(one + ".") for one in HARMLESS):
                    found.append(f"{name}:{node.lineno} imports {module}")
        if isinstance(node, ast.Call):
            called = dotted(node.func)
            if called in NEVER_CALLED:
                found.append(f"{name}:{node.lineno} calls {called}")
            safe = any(k.arg == "weights_only" and getattr(k.value, "value", None) is True for k in node.keywords)
            if called in LOADERS and not (called == "torch.load" and safe and name.startswith("train/")):
                found.append(f"{name}:{node.lineno} calls {called}")
            if any(k.arg == "allow_pickle" and getattr(k.value, "value", None) is not False for k in node.keywords):
                found.append(f"{name}:{node.lineno} allows pickles")
            if any(
                k.arg == "trust_remote_code" and getattr(k.value, "value", None) is not False for k in node.keywords
            ):
                found.append(f"{name}:{node.lineno} trusts remote code")
    return found


def test_no_file_loads_code_and_jinja_has_one_door():
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        found += problems(name, path.read_text(encoding="utf-8"))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import jinja2",
        "from jinja2 import Template",
        "import jinja2.sandbox",
        "eval('1')",
        "exec('x')",
        "__import__('os')",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=True)",
        "import importlib",
        "from importlib import import_module",
        "import importlib.util",
        "from importlib.util import find_spec",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "f(trust_remote_code=True)",
        "compile('1', '', 'eval')",
        "import marshal",
        "import runpy",
        "def f():\n    from dill import loads",
    ],
)
def test_the_lint_itself_sees(text):
    assert problems("engine/loop.py", text)


@pytest.mark.parametrize(
    "text",
    [
        "from importlib import resources",
        "import importlib.metadata",
        "from importlib.metadata import version",
        "model.eval()",
        "re.compile('x')",
        "np.load('x')",
        "np.load('x', allow_pickle=False)",
        "json.load(f)",
    ],
)
def test_the_lint_lets_pass(text):
    assert not problems("engine/loop.py", text)
