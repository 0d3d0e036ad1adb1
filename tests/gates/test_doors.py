"""Rule D10: one door for each danger. Nothing else runs what a file says, maps a file, or opens a model's files."""

import ast
from collections.abc import Iterator
from pathlib import PurePath

import pytest
from tree import ROOT, parsed, python_files

SRC = ROOT / "src" / "edgewise"

# Module → where it may be imported (paths below src/edgewise; a folder means everything in it).
MODULES = {
    "pickle": (), "marshal": (), "shelve": (), "dill": (), "cloudpickle": (), "joblib": (),
    "runpy": ("serve/commands/train.py",), "mmap": (),
    "torch": ("train",), "transformers": ("train",), "safetensors": ("train",), "ctypes": ("testing/hostile",
    "serve/probe.py", "serve/machine.py"),
    "jinja2": ("text/template.py",),
}  # fmt: skip
# Call → where it may stand.
CALLS = {
    "eval": (), "exec": (), "compile": (), "__import__": (), "np.load": ("train",), "np.memmap": (), "np.fromfile": (),
    "numpy.load": (), "os.system": (), "os.popen": (), "torch.load": ("train",),
    "importlib.import_module": ("base/catalog.py", "serve/cli.py", "serve/commands/members.py"),
}  # fmt: skip
# Rooms that handle a model's files: they read through weights/bundle.py. Writers may open what they write.
READERS = ("kernels", "weights", "kv", "models", "decode", "text", "engine", "convert")
READS = {"open", "os.open", "io.open"}
READ_METHODS = {"read_text", "read_bytes", "open"}
MAY_READ = ("weights/bundle.py", "convert/outputs.py", "convert/safetensors_writer.py", "convert/gguf_writer.py",
            "convert/parts.py", "convert/journal.py", "convert/streaming.py", "kv/prefixes.py",
            "convert/neuron_layout.py")  # fmt: skip


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def _allowed(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or PurePath(path).is_relative_to(place) for place in places)


def offences(tree: ast.AST, path: str) -> Iterator[str]:
    """What in this module goes past a door; path is relative to src/edgewise."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                root = name.partition(".")[0]
                if root in MODULES and not _allowed(path, MODULES[root]):
                    yield f"{path}:{node.lineno} imports {root}"
        elif isinstance(node, ast.Call):
            name = _name(node.func)
            if name in CALLS and not _allowed(path, CALLS[name]):
                yield f"{path}:{node.lineno} calls {name}"
            if path.split("/")[0] in READERS and not _allowed(path, MAY_READ):
                method = name.rpartition(".")[2]
                owner = name.rpartition(".")[0]
                of_a_path = method in READ_METHODS and (method != "open" or "path" in owner or "file" in owner)
                if name in READS or (of_a_path and owner not in ("bundle", "")):
                    yield f"{path}:{node.lineno} opens a file with {name}; use weights.bundle"


def test_every_danger_has_one_door() -> None:
    found = []
    for path in python_files("src"):
        found += offences(parsed(path), path.relative_to(SRC).as_posix())
    found = [line for line in found if not line.startswith("testing/") or "imports ctypes" in line]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from torch import load", "import jinja2", "import mmap", "eval('1')", "exec(x)",
        "import ctypes", "import os; os.system('x')", "importlib.import_module(config['module'])", "open(path)",
        "path.read_text()", "config_path.open()", "np.memmap(p)", "np.fromfile(p)",
    ],
)  # fmt: skip
def test_the_gate_sees_what_it_forbids(code: str) -> None:
    assert list(offences(ast.parse(code), "models/evil.py"))
    assert not list(offences(ast.parse("bundle.read_bytes(path, 5); kv.open(seq)"), "models/good.py"))
