"""The text: every .py file of the interpreter's own standard library, the same documents in the same order each time.

Source: CPython, under the PSF License Version 2 (https://docs.python.org/3/license.html). Nothing installed beside the
library (site-packages) is read. What is left out, and why, is counted in the summary.
"""

import ast
import hashlib
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewise.base import BadInput
from edgewise.convert.texts import SKIPPED_FOLDERS, is_held_out, stdlib_folder

TABLE_KEEPS_CHARS = 2_000  # of a generated table the beginning is enough
LONGEST_CHARS = 400_000  # a cut nobody reaches today; keeps one odd file from becoming the corpus
TOPICS = "pydoc_data/topics.py"  # the language reference as one dict of strings: every entry becomes a document

__all__ = ["Document", "gather", "is_held_out", "stdlib_folder", "summary", "top_level_pieces"]

_TABLE_LINE = re.compile(r"""\\[ux][0-9a-fA-F]{2,}|0x[0-9a-fA-F]{2,}|^[\s\d,.()\[\]'"eE+-]+$""")
_TOP_LEVEL = re.compile(r"^(?=(?:async def|def|class|@)[ \w])", re.MULTILINE)


@dataclass(frozen=True)
class Document:
    path: str  # relative to the library's folder, with forward slashes; '#name' for a part of a file
    text: str
    held_out: bool  # never trained on


def looks_generated(text: str) -> bool:
    """A table written by a program: most of its lines are escapes, hexadecimal or bare numbers."""
    lines = [line for line in text.splitlines() if line.strip()]
    return len(lines) >= 40 and sum(bool(_TABLE_LINE.search(line)) for line in lines) > 0.5 * len(lines)


def _topics(text: str) -> Iterator[tuple[str, str]]:
    """Each entry of pydoc's dict of topics as a module that consists of a docstring."""
    for node in ast.parse(text).body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Dict):
            for name, entry in ast.literal_eval(value).items():
                yield f"{TOPICS}#{name}", f'"""{entry.strip()}\n"""\n'


def gather(root: Path, held_out_percent: float = 3.0) -> tuple[list[Document], Counter[str]]:
    """All documents below `root` in path order, and how many files were left out or shortened, by reason.

    A file's encoding is the one it declares. Raises BadInput when the folder holds no Python source.
    """
    documents: list[Document] = []
    notes: Counter[str] = Counter()
    seen: set[bytes] = set()
    files = [p for p in root.rglob("*.py") if not SKIPPED_FOLDERS.intersection(p.relative_to(root).parts)]
    for file in sorted(files, key=lambda p: p.relative_to(root).as_posix()):
        path = file.relative_to(root).as_posix()
        data = file.read_bytes()
        try:
            encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
            text = data.decode(encoding)
        except (SyntaxError, UnicodeDecodeError, LookupError):
            notes["undecodable"] += 1  # lib2to3 and the tests carry some on purpose
            continue
        text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip("\n") + "\n"
        parts = list(_topics(text)) if path == TOPICS else [(path, text)]
        for name, part in parts:
            digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).digest()
            if digest in seen or not part.strip():
                notes["duplicate or empty"] += 1
                continue
            seen.add(digest)
            if looks_generated(part):
                notes["table, shortened"] += 1
                part = part[:TABLE_KEEPS_CHARS].rpartition("\n")[0] + "\n"
            documents.append(Document(name, part[:LONGEST_CHARS], is_held_out(name, held_out_percent)))
    if not documents:
        raise BadInput(f"There is no Python source below {root}. Point --corpus at a standard library's folder.")
    return documents, notes


def top_level_pieces(text: str) -> list[str]:
    """`text` cut before every top-level def, class and decorator; the pieces joined are `text` again."""
    cuts = sorted({0, *(m.start() for m in _TOP_LEVEL.finditer(text))})
    return [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True) if b > a]


def summary(documents: Sequence[Document], notes: Counter[str]) -> dict[str, object]:
    """What a model card needs: counts, bytes and a digest of the whole corpus."""
    whole = hashlib.sha256()
    for document in documents:
        whole.update(document.path.encode() + b"\0" + document.text.encode("utf-8", "surrogatepass") + b"\0")
    kept = {flag: [d for d in documents if d.held_out is flag] for flag in (False, True)}
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "sha256": whole.hexdigest(),
        "train_documents": len(kept[False]),
        "train_bytes": sum(len(d.text.encode("utf-8", "surrogatepass")) for d in kept[False]),
        "held_out_documents": len(kept[True]),
        "held_out_bytes": sum(len(d.text.encode("utf-8", "surrogatepass")) for d in kept[True]),
        "left_out": dict(sorted(notes.items())),
    }
