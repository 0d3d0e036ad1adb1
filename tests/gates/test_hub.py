"""Gate 3: a technique's name occurs in its own file, its catalog, tests, docs and recipes, and nowhere else."""

import ast

from tree import ROOT, file_of, members, parsed, python_files

# Names that are also words of the trade (a format, an architecture, a file type), or the member a slot falls back to.
PLAIN_WORDS_SLOTS = {
    "device", "checkpoint", "source", "architecture", "model", "format", "quantiser", "sampler", "router",
    "tokenizer", "tool_format", "bench", "neurons",
}  # fmt: skip
DEFAULTS = {
    "none", "paged", "fcfs", "text", "penalties", "bias", "allowed", "min_tokens", "auto", "priority", "static",
    "suffix", "draft",  # also a field of OpenAI's and Ollama's requests, and the smallest of a family
}  # fmt: skip


def hub() -> list:
    """Every module but the ones made for tests."""
    return [path for path in python_files("src") if "testing" not in path.parts]


def homes(module: str) -> set:
    own = file_of(module)
    return {own, own.parent / "__init__.py", ROOT / "src" / "edgewise" / "assemble.py"}


def test_no_class_of_a_member_is_named_in_the_hub():
    found = []
    for slot, name, module, attribute in members():
        if file_of(module).name == "__init__.py" or slot in PLAIN_WORDS_SLOTS:
            continue
        for path in hub():
            if path in homes(module):
                continue
            for node in ast.walk(parsed(path)):
                word = node.id if isinstance(node, ast.Name) else node.name if isinstance(node, ast.alias) else None
                if word == attribute:
                    found.append(f"{path.relative_to(ROOT)} names {attribute} ({slot} '{name}')")
    assert not found, "\n".join(sorted(set(found)))


def test_no_technique_is_asked_for_by_name_in_the_hub():
    found = []
    for slot, name, module, _ in members():
        if slot in PLAIN_WORDS_SLOTS or name in DEFAULTS:
            continue
        for path in hub():
            if path in homes(module):
                continue
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.Constant) and node.value == name:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} says '{name}' ({slot})")
    assert not found, "\n".join(sorted(set(found)))
