"""The corpus: same folder, same documents; the held-out part is a function of the path alone."""

from pathlib import Path

import pytest

from edgewise.base import BadInput
from edgewise.train.corpus import gather, is_held_out, looks_generated, stdlib_folder, summary, top_level_pieces


def library(root: Path) -> Path:
    (root / "site-packages").mkdir(parents=True)
    (root / "pydoc_data").mkdir()
    (root / "site-packages" / "other.py").write_text("nobody = 1\n")
    (root / "b.py").write_text("x = 1\r\ny = 2\n")
    (root / "a.py").write_text("# -*- coding: latin-1 -*-\nname = '\u00e9'\n", encoding="latin-1")
    (root / "again.py").write_text("x = 1\ny = 2\n")
    (root / "broken.py").write_bytes(b"# coding: utf-8\nx = '\xff\xfe'\n")
    (root / "table.py").write_text("table = [\n" + "".join(f"    '\\u{n:04x}',\n" for n in range(900)) + "]\n")
    (root / "pydoc_data" / "topics.py").write_text("topics = {'assert': 'The statement\\n', 'if': 'Another\\n'}\n")
    return root


def test_gather_is_sorted_deduplicated_and_counts_what_it_leaves_out(tmp_path: Path) -> None:
    documents, notes = gather(library(tmp_path / "lib"))
    assert [d.path for d in documents] == [
        "a.py", "again.py", "pydoc_data/topics.py#assert", "pydoc_data/topics.py#if", "table.py"
    ]  # fmt: skip
    assert "'\u00e9'" in documents[0].text
    assert documents[1].text == "x = 1\ny = 2\n"
    assert documents[2].text == '"""The statement\n"""\n'
    assert len(documents[4].text) <= 2000
    assert notes == {"undecodable": 1, "duplicate or empty": 1, "table, shortened": 1}


def test_twice_the_same(tmp_path: Path) -> None:
    root = library(tmp_path / "lib")
    assert summary(*gather(root)) == summary(*gather(root))


def test_split_is_a_function_of_the_path() -> None:
    # Fixed points: a change here would move files between training and held out.
    assert is_held_out("sched.py", 3.0)
    assert is_held_out("chunk.py", 3.0)
    assert not is_held_out("json/decoder.py", 3.0)
    assert not any(is_held_out(f"{n}.py", 0.0) for n in range(100))
    assert 200 < sum(is_held_out(f"{n}.py", 3.0) for n in range(10_000)) < 400


def test_pieces_begin_at_top_level_statements() -> None:
    text = "import os\n\n\n@cache\ndef f():\n    def g(): pass\n\n\nclass A:\n    pass\nasync def h(): ...\n"
    pieces = top_level_pieces(text)
    assert "".join(pieces) == text
    assert [piece.split("\n")[0] for piece in pieces] == [
        "import os",
        "@cache",
        "def f():",
        "class A:",
        "async def h(): ...",
    ]


def test_ordinary_code_is_no_table() -> None:
    assert not looks_generated((stdlib_folder() / "textwrap.py").read_text())


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no Python source"):
        gather(tmp_path)
