"""The ways byte-level BPE vocabularies cut text into words, by the name a GGUF file gives in tokenizer.ggml.pre.

Patterns are facts about published tokenizers: each is the one in the family's own tokenizer.json where that is public,
else the one llama.cpp documents for the name. Names that mean the same share a row.
"""

from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers

from edgewise.base import Unsupported
from edgewise.base.catalog import nearest

_CASE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CASE + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL
_QWEN2 = _CASE + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL
_QWEN35 = _CASE + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SEED = _CASE + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
_BAILING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CAMEL = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{{0}}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{{0}}|{{1}}"
_CAMEL_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _camel(contraction: str, digits: str) -> str:
    return _CAMEL.replace("{0}", contraction).replace("{1}", digits) + _CAMEL_TAIL


_TEKKEN = _camel("", r"\p{N}")
_GPT4O = _camel(_CASE + "?", r"\p{N}{1,3}")
_CJK = r"[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+"
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The letters DeepSeek LLM counts as a word: Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee and kin.
_DEEPSEEK_LETTERS = (
    r"\s?["
    r"A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af}"
    r"\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}"
    r"\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}"
    r"\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}"
    r"\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}"
    r"\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}"
    r"\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}"
    r"\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}"
    r"\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}"
    r"\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787}"
    r"\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}"
    r"\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}"
    r"\x{118a0}-\x{118df}\x{1e900}-\x{1e943}"
    r"]+"
)
_HAN = r"[\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+"
_DEEPSEEK_MARKS = r"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+"
# The family's own pattern is \s+$; the look-behind finds the same runs without trying every start inside a run.
_TRAILING = r"(?<!\s)\s+$"
_BLOOM = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{ff0c}\x{3001}\x{964}\x{6d4}\x{60c})]+"


@dataclass(frozen=True)
class Words:
    """patterns: each isolates its matches in what the ones before left. nfc: the family composes characters first.

    ignore_merges: a word that is in the vocabulary is taken whole. bos: the family's default for adding BOS.
    """

    patterns: tuple[str, ...]
    nfc: bool = False
    ignore_merges: bool = False
    bos: bool = False


_DIGITS = r"\p{N}"
_ROWS: dict[str, Words] = {
    "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert exaone4 roberta-bpe "
    "jina-v1-en jina-v2-code jais trillion granite-docling": Words((_GPT2,)),
    "mpt olmo": Words((_GPT2,), nfc=True),
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": Words(
        (_LLAMA3,), ignore_merges=True, bos=True
    ),
    "dbrx smaug-bpe glm4 chatglm-bpe": Words((_LLAMA3,)),
    "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez": Words((_QWEN2,), nfc=True),
    "stablelm2 hunyuan solar-open grok-2": Words((_QWEN2,)),
    "qwen35": Words((_QWEN35,), nfc=True),
    "smollm starcoder refact codeshell exaone minerva-7b mellum2": Words((_DIGITS, _GPT2)),
    "command-r": Words((_DIGITS, _GPT2), nfc=True),
    "deepseek-llm": Words((r"[\r\n]", _DEEPSEEK_LETTERS, _DEEPSEEK_MARKS, _TRAILING, _HAN, _DIGITS)),
    "deepseek-coder": Words((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN, _DIGITS)),
    "deepseek-v3 hunyuan-dense joyai-llm": Words((r"\p{N}{1,3}", _CJK, _DEEPSEEK3)),
    "falcon": Words((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")),
    "tekken": Words((_TEKKEN,), ignore_merges=True, bos=True),
    "gpt-4o llama4 kanana2 talkie minimax-m2": Words((_GPT4O,)),
    "bailingmoe bailingmoe2 llada-moe": Words((_BAILING,)),
    "seed-coder": Words((_SEED,)),
    "poro-chat bloom gpt3-finnish": Words((_BLOOM,)),
    "viking": Words((_BLOOM, _DIGITS)),
    "default": Words((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
}
PRETOKENIZERS: dict[str, Words] = {name: words for names, words in _ROWS.items() for name in names.split()}
"""Name in the file → how it cuts words."""


def words_of(name: str) -> Words:
    """The row for a name; Unsupported, naming the nearest, when there is none."""
    words = PRETOKENIZERS.get(name)
    if words is None:
        raise Unsupported(
            f"tokenizer.ggml.pre is '{name}', a way of cutting words that edgewise does not know."
            f"{nearest(name, sorted(PRETOKENIZERS))}"
        )
    return words


def build(words: Words) -> pre_tokenizers.PreTokenizer:
    """The cutter as a `tokenizers` object; its words are in GPT-2's byte alphabet."""
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in words.patterns
    ]
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
