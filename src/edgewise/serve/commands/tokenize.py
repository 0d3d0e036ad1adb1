"""`edgewise tokenize MODEL [TEXT]`: ids and pieces of a text; no BOS is added."""

import json
import sys
from typing import Annotated, Any

import typer

from edgewise.base import BadInput
from edgewise.kernels.parsing import parse_json
from edgewise.serve.options import Json


def command(
    model: Annotated[
        str, typer.Argument(help="a GGUF file (its vocabulary is enough), a folder with tokenizer.json, or org/name")
    ],
    text: Annotated[str | None, typer.Argument(help="the text [default: standard input]")] = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="a JSON array of texts in, a JSON array of id arrays out")
    ] = False,
    special: Annotated[bool, typer.Option("--special", help="strings of special tokens become their ids")] = False,
    as_json: Json = False,
) -> None:
    """Text to token ids and pieces. No BOS is added, and special strings in the text stay text without --special."""
    from edgewise.text import load_tokenizer
    from edgewise.weights import open_checkpoint

    given = sys.stdin.buffer.read() if text is None else text.encode("utf-8", "surrogateescape")
    texts = _texts(given) if batch else [_utf8(given)]
    tokenizer = load_tokenizer(open_checkpoint(model, need_tensors=False).header())
    found = [tokenizer.encode(one, parse_special=special) for one in texts]
    if batch:
        print(json.dumps(found))
    elif as_json:
        pieces = [tokenizer.piece(token) for token in found[0]]
        print(json.dumps({"ids": found[0], "pieces": pieces, "count": len(pieces)}, ensure_ascii=False))
    else:
        for token in found[0]:
            print(f"{token:>8}  {json.dumps(tokenizer.piece(token), ensure_ascii=False)}")


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"The text is not UTF-8: {error.reason} at byte {error.start}.") from None


def _texts(data: bytes) -> list[str]:
    value: Any = parse_json(data, "standard input")
    if not isinstance(value, list):
        raise BadInput("--batch expects a JSON array of texts on standard input.")
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise BadInput(f"--batch expects texts, but item {index} is a {type(item).__name__}.")
    return value
