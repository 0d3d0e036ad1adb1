"""L5: words to tokens and back."""

from collections.abc import Sequence
from typing import Any

from edgewise.base import BadInput, Catalog, Unsupported
from edgewise.text.api import ChatTemplate, Detokenizer, Tokenizer
from edgewise.weights.api import Header

TOKENIZERS = Catalog(
    "tokenizer",
    "edgewise.text",
    {
        "hf": ".hf:HfTokenizer",
        "llama": ".gguf_llama:LlamaTokenizer",
        "gpt2": ".gguf_gpt2:Gpt2Tokenizer",
    },
)


def load_tokenizer(header: Header) -> Tokenizer:
    """The tokenizer a checkpoint carries. Raises BadInput for a broken one, Unsupported for an unknown kind."""
    kind: Any = "hf"
    if header.dialect != "hf":
        kind = header.config.get("tokenizer.ggml.model")
        if kind is None:
            raise BadInput(f"{header.name} carries no tokenizer: the key tokenizer.ggml.model is missing.")
        if not isinstance(kind, str):
            raise BadInput(f"tokenizer.ggml.model must be a string but is {kind!r}.")
        if kind not in TOKENIZERS or kind == "hf":
            raise Unsupported(
                f"{header.name} has a tokenizer of kind '{kind}'. Known kinds in GGUF files: llama, gpt2. "
                "Use the model's Hugging Face directory instead."
            )
    tokenizer: Tokenizer = TOKENIZERS.build(kind, header=header)
    return tokenizer


def has_words(header: Header) -> bool:
    """Whether the checkpoint carries a tokenizer. One without is still a model."""
    if header.dialect == "gguf":
        return "tokenizer.ggml.model" in header.config
    return any((header.folder / name).exists() for name in ("tokenizer.json", "tokenizer.model"))


def pieces_of(header: Header) -> Sequence[str] | None:
    """The string of every token id; None where the checkpoint has no tokenizer."""
    if not has_words(header):
        return None
    tokenizer = load_tokenizer(header)
    return [tokenizer.piece(token) for token in range(tokenizer.vocab)]


def load_template(header: Header) -> ChatTemplate | None:
    """The chat template a checkpoint carries, or None."""
    if header.dialect == "gguf" and not any(key.startswith("tokenizer.chat_template") for key in header.config):
        return None  # without importing the template engine
    from edgewise.text.chat import template_of

    return template_of(header)


def ends_of(header: Header, tokenizer: Tokenizer | None, vocab: int) -> frozenset[int]:
    """Every id that ends a text, by the tokenizer or by generation_config.json."""
    listed = header.generation.get("eos_token_id")
    also = listed if isinstance(listed, list) else [listed]
    ends = {token for token in also if isinstance(token, int) and 0 <= token < vocab}
    return frozenset(ends | (tokenizer.eos if tokenizer else set()))


__all__ = [
    "TOKENIZERS", "ChatTemplate", "Detokenizer", "Tokenizer", "ends_of", "has_words", "load_template", "load_tokenizer",
    "pieces_of",
]  # fmt: skip
