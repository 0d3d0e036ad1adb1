"""Gate 2: a catalog line imports, has the five items and a status, is tested; every slot has a null member."""

import ast
import importlib
import re

import pytest
from tree import ROOT, SOURCE, catalogs, file_of, members, parsed, python_files

# Where nothing is impossible, the plainest correct member plays the null member's part.
PLAINEST = {
    "tokenizer": "hf",
    "device": "reference", "checkpoint": "safetensors", "source": "file", "kv": "paged", "sampler": "greedy",
    "policy": "fcfs", "runner": "text", "quantiser": "nearest", "architecture": "llama", "model": "llama",
    "router": "softmax", "format": "F32", "bench": "speed", "neurons": "all",
}  # fmt: skip
ITEMS = (("Paper:",), ("Exact.", "Exact:", "Approximate.", "Approximate:"), ("Needs:",), ("Cost:",), ("Status:",))
STATUSES = ("kept", "trial", "retired")


def ids(row):
    return f"{row[0]}-{row[1]}"


@pytest.mark.parametrize("member", members(), ids=ids)
def test_it_imports(member):
    _, _, module, attribute = member
    if not hasattr(importlib.import_module(module), attribute):
        pytest.fail(f"{module} has no {attribute}")


@pytest.mark.parametrize("member", members(), ids=ids)
def test_it_opens_with_the_five_items(member):
    text = ast.get_docstring(parsed(file_of(member[2]))) or ""
    missing = [" or ".join(item) for item in ITEMS if not any(word in text for word in item)]
    assert not missing, f"{file_of(member[2]).relative_to(ROOT)}: its docstring lacks {', '.join(missing)}"
    status = text.partition("Status:")[2].split()
    assert status[:1], "its status is empty"
    assert status[0].rstrip(".,;") in STATUSES, f"its status is none of {', '.join(STATUSES)}"


@pytest.mark.parametrize("member", members(), ids=ids)
def test_it_is_tested(member):
    slot, name, module, attribute = member
    room = module.split(".")[1]
    catalog = importlib.import_module(file_of(module).parent.relative_to(SOURCE.parent).as_posix().replace("/", "."))
    doors = [key for key, value in vars(catalog).items() if getattr(value, "__module__", None) == catalog.__name__]
    doors += [key for key, value in vars(catalog).items() if getattr(value, "slot", None) == slot]
    words = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in (name, attribute, module, *doors)))
    files = [p for p in python_files("tests") if room in p.relative_to(ROOT).parts]
    tested = any(words.search(p.read_text(encoding="utf-8")) for p in files)
    assert tested, f"no file under tests/{room}/ mentions {attribute} or the {slot} '{name}'"


@pytest.mark.parametrize("catalog", [c for _, c in catalogs()], ids=lambda c: c.slot)
def test_the_slot_has_a_null_member(catalog):
    plain = PLAINEST.get(catalog.slot, "none")
    assert plain in catalog or "none" in catalog, f"slot '{catalog.slot}' has neither 'none' nor '{plain}'"


def test_unknown_names_and_settings_are_refused_by_the_nearest():
    from edgewise.base import Unsupported

    for _, catalog in catalogs():
        first = sorted(catalog)[0]
        with pytest.raises(Unsupported, match=first):
            catalog.load(first + "x")


def test_catalogs_are_tables_of_contents():
    """A catalog lists every file of its folder that holds a member, so that nothing hides from packaging tools."""
    listed = {file_of(module) for _, _, module, _ in members()}
    hidden = []
    for package, _ in catalogs():
        folder = SOURCE.parent / package.replace(".", "/")
        for path in folder.glob("*.py"):
            text = ast.get_docstring(parsed(path)) or ""
            if path not in listed and "Status:" in text and "Cost:" in text:
                hidden.append(path.relative_to(ROOT).as_posix())
    assert not hidden, f"members without a catalog line: {hidden}"
