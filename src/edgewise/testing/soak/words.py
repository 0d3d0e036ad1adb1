"""R21: pieces of streamed text, for every kind of tokenizer, however they are cut."""

import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from edgewise.base import Event, SamplingParams
from edgewise.embedded import embedded_model
from edgewise.serve.outputs import Writer
from edgewise.testing.soak import Found
from edgewise.testing.vocabularies import FAMILIES, byte_level, gguf_header, hf_header, sentencepiece
from edgewise.text import load_tokenizer
from edgewise.text.api import Tokenizer
from edgewise.weights import open_checkpoint


def every_tokenizer(folder: Path) -> Iterator[tuple[str, Tokenizer]]:
    yield "embedded", load_tokenizer(open_checkpoint(embedded_model(), need_tensors=False).header())
    for family in FAMILIES:
        if family in ("gemma", "mistral"):
            continue
        made = byte_level(family)
        yield f"hf {family}", load_tokenizer(hf_header(made, folder / family))
        yield f"gguf {family}", load_tokenizer(gguf_header(made, "gpt2"))
    for scheme in ("prepend", "first", "none"):
        made = sentencepiece(scheme=scheme)
        yield f"hf sentencepiece {scheme}", load_tokenizer(hf_header(made, folder / scheme))
    yield "gguf sentencepiece", load_tokenizer(gguf_header(sentencepiece(scheme="prepend"), "llama"))


def utf8_streams(small: bool, seed: int) -> Found:
    """Random ids; half of them short pieces, so that characters are made of several; ended by length anywhere."""
    each = 200 if small else 10_000
    tries = wrong = 0
    words: list[str] = []
    kinds = 0
    with TemporaryDirectory() as folder:
        for name, tokenizer in every_tokenizer(Path(folder)):
            kinds += 1
            dice = random.Random(seed)
            short = [token for token in range(tokenizer.vocab) if len(tokenizer.piece(token)) <= 6]
            for at in range(each):
                pool = short if at % 2 else range(tokenizer.vocab)
                ids = [pool[dice.randrange(len(pool))] for _ in range(dice.randrange(1, 14))]
                skip = bool(at & 2)
                writer = Writer(0, SamplingParams(skip_special_tokens=skip), tokenizer, [])
                parts = []
                for place, token in enumerate(ids):  # as the server does it, cut by max_tokens at the end
                    reason = "length" if place == len(ids) - 1 else None
                    parts.append(writer.take(Event("x", (token,), (), reason)).text)
                tries += 1
                try:
                    "".join(parts).encode()
                    good = "".join(parts) == tokenizer.decode(ids, skip_special=skip) == writer.output.text
                    good &= _cut(tokenizer, ids, skip, dice)
                except UnicodeEncodeError:
                    good = False
                if not good:
                    wrong += 1
                    words.append(f"{name}: {ids}")
    got = f"{tries} sequences of {kinds} tokenizers, dropped or doubled {wrong}"
    return Found(tries, wrong, "; ".join([got, *words[:3]]), wrong == 0)


def _cut(tokenizer: Tokenizer, ids: list[int], skip: bool, dice: random.Random) -> bool:
    """A stop string out of the middle of the text: what came before it, and nothing else, is told."""
    whole = tokenizer.decode(ids, skip_special=skip)
    if len(whole) < 3:
        return True
    begin = dice.randrange(len(whole) - 1)
    stop = whole[begin : begin + dice.randrange(1, 4)]
    writer = Writer(0, SamplingParams(stop=(stop,), skip_special_tokens=skip), tokenizer, [])
    told = ""
    for place, token in enumerate(ids):
        chunk = writer.take(Event("x", (token,), (), "length" if place == len(ids) - 1 else None))
        told += chunk.text
        if chunk.finish_reason:
            break
    # A character that is not whole yet may not match: then the stop string is found later, never earlier.
    return told == writer.output.text and (told == whole[: len(told)]) and stop not in told
