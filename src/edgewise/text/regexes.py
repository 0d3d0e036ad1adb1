"""Keeps a hostile tokenizer.json from stalling the machine: its patterns run in a backtracking engine.

Three gates, cheapest first: patterns of published families pass by name; others must have a plain shape (an unlimited
repeat only of one character or class, no back-references); those are then tried on long runs in a child process with a
CPU limit, which catches what takes quadratic time.
"""

import json
import re
import subprocess
import sys

from edgewise.base import BadInput, Unsupported
from edgewise.text.pretokenizers import PRETOKENIZERS

MAX_PATTERN_CHARS = 4096
_MAX_COPIES = 2000  # atoms after writing out every bounded repeat

# "Regex": "...", with the key written in any way JSON allows.
_KEY = "".join(rf"(?:{c}|\\u00{ord(c):02x})" for c in "Regex")
_FOUND = re.compile(rf'"{_KEY}"\s*:\s*("(?:[^"\\]|\\.)*")', re.DOTALL)

_ESCAPE = re.compile(
    r"\\(?:[pP]\{\^?[\w =]+\}|x\{[0-9a-fA-F]{1,8}\}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[dDwWsShHbBAzZtnrfve]|\W)"
)
_QUANTIFIER = re.compile(r"([*+?])[?+]?|\{(\d*)(,?)(\d*)\}\??")
_OPENING = re.compile(r"\((?:\?(?::|i:|i-m:|m:|x:|=|!|<=|<!|>)|(?!\?|\*))")

KNOWN = frozenset(pattern for words in PRETOKENIZERS.values() for pattern in words.patterns)
# Published patterns that take quadratic time on long runs, and an equal one that does not.
REWRITTEN = {r"\s+$": r"(?<!\s)\s+$"}


def patterns_in(text: str) -> list[str]:
    """Every pattern a tokenizer.json can hand to the regex engine, in order, from its raw text."""
    return [json.loads(match[1]) for match in _FOUND.finditer(text)]


def check_patterns(patterns: list[str], where: str) -> None:
    """Raises BadInput or Unsupported, naming the pattern, unless all are known or shown to be harmless."""
    strange = [p for p in dict.fromkeys(patterns) if p not in KNOWN and p not in REWRITTEN]
    for pattern in strange:
        if len(pattern) > MAX_PATTERN_CHARS:
            raise BadInput(f"{where} has a pattern of {len(pattern)} characters; at most {MAX_PATTERN_CHARS} are read.")
        problem = _Shape(pattern).problem()
        if problem:
            raise Unsupported(f"{where}: the pattern {_short(pattern)} could run for ever: {problem}.")
    if strange and not _quick(strange):
        raise Unsupported(f"{where}: a pattern takes too long on long runs of one character: {_short(strange[-1])}.")


def _short(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 80 else pattern[:77] + "...")


class _Shape:
    """Reads Oniguruma's syntax, just enough of it to see repeats; what it does not know is a problem."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0

    def problem(self) -> str | None:
        try:
            copies = self._alternation(0)[0]
            if self._at < len(self._text):
                return "it has an unmatched parenthesis"
            return f"its repeats write out to {copies} parts" if copies > _MAX_COPIES else None
        except _StrangeError as error:
            return str(error)

    def _peek(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _alternation(self, depth: int) -> tuple[int, bool]:
        """(atoms when written out, contains an unlimited repeat)."""
        if depth > 16:
            raise _StrangeError("its parentheses nest too deep")
        copies, unlimited = 0, False
        while self._at < len(self._text) and not self._peek(")"):
            if self._peek("|"):
                self._at += 1
                continue
            more, endless = self._item(depth)
            copies, unlimited = copies + more, unlimited or endless
        return copies, unlimited

    def _item(self, depth: int) -> tuple[int, bool]:
        copies, unlimited, group = *self._atom(depth), self._was_group
        repeats = 0
        while True:
            low_high = self._quantifier()
            if low_high is None:
                return copies, unlimited
            low, high = low_high
            repeats += 1
            if repeats > 1 or (high != 1 and unlimited):
                raise _StrangeError("a repeat is repeated")
            if high is None and group:
                raise _StrangeError("a group is repeated without limit")
            copies *= max(low, high or 1, 1)
            unlimited = unlimited or high is None

    def _quantifier(self) -> tuple[int, int | None] | None:
        found = _QUANTIFIER.match(self._text, self._at)
        if found is None or found[0] in ("{}", "{,}"):
            return None
        self._at = found.end()
        if found[1]:
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[found[1]]
        low = int(found[2] or 0)
        high = (int(found[4]) if found[4] else None) if found[3] else low
        return low, high

    def _atom(self, depth: int) -> tuple[int, bool]:
        self._was_group = False
        char = self._text[self._at]
        if char == "(":
            opening = _OPENING.match(self._text, self._at)
            if opening is None:
                raise _StrangeError("it uses a group that is not known")
            self._at = opening.end()
            copies, unlimited = self._alternation(depth + 1)
            if not self._peek(")"):
                raise _StrangeError("it has an unmatched parenthesis")
            self._at += 1
            self._was_group = True
            return max(copies, 1), unlimited
        if char == "[":
            self._class()
        elif char == "\\":
            self._escape()
        elif char in "*+?":
            raise _StrangeError("a repeat has nothing to repeat")
        else:
            self._at += 1
        return 1, False

    def _escape(self) -> None:
        match = _ESCAPE.match(self._text, self._at)
        if match is None:
            raise _StrangeError("it uses an escape that is not known")
        self._at = match.end()

    def _class(self) -> None:
        depth = 0
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == "\\":
                self._escape()
                continue
            self._at += 1
            if char == "[":
                depth += 1
                found = re.compile(r"\^?\]?").match(self._text, self._at)
                self._at = found.end() if found else self._at
            elif char == "]":
                depth -= 1
                if depth == 0:
                    return
        raise _StrangeError("it has an unmatched bracket")


class _StrangeError(Exception):
    pass


_CHILD = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from tokenizers import Regex, normalizers
patterns, samples = json.load(sys.stdin)
seconds = 1 + len(patterns) // 8 + int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
for pattern in patterns:
    erase = normalizers.Replace(Regex(pattern), "")
    for sample in samples:
        erase.normalize_str(sample)
"""
_RUN_CHARS = 40_000  # quadratic time on this many takes some ten seconds, linear time some milliseconds


def _quick(patterns: list[str]) -> bool:
    """Tries the patterns on long runs in a child that is killed when it takes too long."""
    literal = {char for pattern in patterns for char in pattern if not char.isalnum()}
    runs = [*" a1A\n\t.'", "\u4e2d", "\u00e9", "\u02b0", "\u0301", " a", "\n ", "'s", *sorted(literal)[:16]]
    # What follows the run makes it fail there, and still holds every character that the engine may look ahead for.
    ending = "\x01" + "".join(map(chr, range(0x20, 0x7F)))
    samples = [run * (_RUN_CHARS // len(run)) + ending for run in runs]
    try:
        child = subprocess.run(
            [sys.executable, "-c", _CHILD], input=json.dumps([patterns, samples]).encode("ascii"),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30, check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return False
    return child.returncode == 0
