"""What a text has to look like, compiled against a vocabulary by llguidance: the automata that `rules` ask.

White space in JSON is at most one space or one line break with its indent: a model that has lost its way could
otherwise write blanks for ever.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from edgewise.base import BadInput, StructuredOutputsParams
from edgewise.decode.schemas import check_schema
from edgewise.kernels.parsing import parse_json

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

Piece = bytes | None
KEPT = 64  # compiled grammars
MAX_CHARS = 1 << 20
ROW = 8192  # items of the parser in one state: an object takes four for each property (schemas.PROPERTIES)
# The model chooses its own tokens; only the bytes are prescribed.
HEAD = '%llguidance {"no_forcing": true}\n'
JSON_OPTIONS = {"whitespace_flexible": True, "whitespace_pattern": r"[ ]|\n[ ]{0,12}"}
_WHERE = re.compile(r"^(?:at )?(\d+)\((\d+)\): ")
_SETTINGS = re.compile(r"^%llguidance\b(.*)$", re.MULTILINE)
_GBNF = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)

_INSIDE = {"/": "\\/", "\n": "\\n", "\\\n": "\\n"}  # what cannot stand between a Lark regex's slashes


def json_lark(schema: str, lenient: bool = False) -> str:
    """A JSON schema as an expression inside a Lark grammar. lenient: keywords that cannot be enforced are let be."""
    value: Any = parse_json(schema.encode(), "The schema", depth=128, values=1 << 18)
    check_schema(value)
    if value is True:
        value = {}
    options = {**JSON_OPTIONS, **({"lenient": True} if lenient else {}), **value.get("x-guidance", {})}
    return "%json " + json.dumps({**value, "x-guidance": options}, ensure_ascii=False)


def lark_of(wanted: StructuredOutputsParams) -> str:
    """The whole as a Lark grammar. Raises BadInput."""
    if wanted.kind == "grammar":
        assert wanted.grammar is not None
        text = wanted.grammar
        return _unforced(_from_gbnf(text) if _GBNF.search(text) and not text.startswith(HEAD) else text)
    if wanted.kind == "regex":
        assert wanted.regex is not None
        body = re.sub(r"\\.|/|\n", lambda found: _INSIDE.get(found[0], found[0]), wanted.regex, flags=re.DOTALL)
        return f"{HEAD}start: /{body}/"
    if wanted.kind == "choice":
        return f"{HEAD}start: " + " | ".join(json.dumps(text, ensure_ascii=False) for text in wanted.choice or ())
    schema = '{"type": "object"}' if wanted.json_object else str(wanted.json)
    return f"{HEAD}start: {json_lark(schema)}"


def _unforced(text: str) -> str:
    """The grammar with HEAD's setting, beside others that it may bring."""
    own = _SETTINGS.search(text)
    if own is None:
        return HEAD + text
    try:
        settings = {**json.loads(own[1]), "no_forcing": True}
    except (ValueError, TypeError):
        raise BadInput("the line %llguidance takes a JSON object.") from None
    return text[: own.start()] + "%llguidance " + json.dumps(settings) + text[own.end() :]


def _from_gbnf(text: str) -> str:
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        return any_to_lark(text)
    except Exception as error:
        raise BadInput(f"This is no GBNF grammar: {error}.") from None


class Grammars:
    """pieces: what each token adds to a text, asked for when the first grammar is (some tenths of a second for 128,000
    tokens). vocab: columns of the logits. ends: tokens that end a text. Safe to use from several threads."""

    def __init__(self, pieces: Callable[[], Sequence[Piece]], vocab: int, ends: Collection[int]) -> None:
        self._pieces, self.vocab, self.ends = pieces, vocab, sorted(ends)
        self._lock, self._making = threading.Lock(), threading.Lock()
        self._words: LLTokenizer | None = None
        self._made: OrderedDict[StructuredOutputsParams, LLMatcher] = OrderedDict()

    def matcher(self, wanted: StructuredOutputsParams) -> "LLMatcher":
        """An automaton at its beginning. Raises BadInput with place and reason for what cannot be fulfilled."""
        made = self._made.get(wanted)
        if made is None:
            made = self._compile(wanted)  # not under the lock: the engine is not to wait for somebody else's grammar
        with self._lock:
            self._made[wanted] = made
            self._made.move_to_end(wanted)
            if len(self._made) > KEPT:
                self._made.popitem(last=False)
        return made.deep_copy()

    def _compile(self, wanted: StructuredOutputsParams) -> "LLMatcher":
        try:
            from llguidance import LLMatcher, LLParserLimits
        except ModuleNotFoundError:
            raise BadInput("Structured output needs the package 'llguidance': pip install llguidance.") from None
        where = f"structured_outputs.{wanted.kind}"
        size = len(str(wanted.json or wanted.regex or wanted.grammar or wanted.choice))
        if size > MAX_CHARS:
            raise BadInput(f"{where}: it has {size} characters; at most {MAX_CHARS} are compiled.")
        if not self.ends:
            raise BadInput("This model knows no token that ends a text, so a structured output could never end.")
        try:
            grammar = lark_of(wanted)
        except BadInput as problem:
            raise BadInput(f"{where}: {problem}") from None
        limits = LLParserLimits(verbose_errors=False, max_items_in_row=ROW)
        found = LLMatcher(self._tokenizer(), grammar, log_level=0, limits=limits)
        if found.is_error():
            raise BadInput(f"{where}: {_sentence(found.get_error(), wanted.kind == 'grammar')}")
        if not any(found.compute_bitmask()) or found.is_error():
            raise BadInput(f"{where}: no text of this model's tokens fits it.")
        return found

    def _tokenizer(self) -> "LLTokenizer":
        with self._making:
            if self._words is None:
                from llguidance import LLTokenizer, TokenizerWrapper

                words = TokenizerWrapper(_Vocabulary(self._pieces(), self.ends))
                self._words = LLTokenizer(words, self.vocab, self.ends)
            return self._words


class _Vocabulary:
    """A tokenizer in llguidance's words. It is never asked to encode: grammars force no tokens."""

    bos_token_id = None

    def __init__(self, pieces: Sequence[Piece], ends: Sequence[int]) -> None:
        self.eos_token_id = ends[0]
        ended = frozenset(ends)
        self.special_token_ids = [i for i, piece in enumerate(pieces) if piece is None or i in ended]
        # Control tokens get names, so that no two are alike; a marked one never matches text.
        self.tokens = [b"<|%d|>" % i if piece is None or i in ended else piece for i, piece in enumerate(pieces)]

    def __call__(self, text: bytes) -> list[int]:
        return []


def _sentence(error: str, own: bool) -> str:
    """What llguidance says in one line. own: the lines are the user's, one further down."""
    lines = error.strip().splitlines() or ["it cannot be compiled"]
    found = _WHERE.match(lines[0])
    said = (lines[0][found.end() :] if found else lines[0]).removeprefix("failed to compile JSON schema: ")
    more = next((line.removeprefix("error:").strip() for line in lines[1:] if line.startswith("error:")), "")
    said = f"{said.rstrip('.:')}{': ' if more else ''}{more.rstrip('.')}."
    return f"line {max(1, int(found[1]) - 1)}, column {found[2]}: {said}" if own and found else said
