"""tokenizer.json and tokenizer_config.json from the vocabulary inside a GGUF file."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import processors

from edgewise.text import load_tokenizer
from edgewise.text.gguf import PREFIX
from edgewise.weights.api import Header


def write_hf_tokenizer(header: Header, folder: Path) -> None:
    """Writes both files, and the chat template where the GGUF file has one."""
    tokenizer: Any = load_tokenizer(header)
    state = json.loads(tokenizer.backend.to_str())
    state["decoder"] = {**tokenizer.decoder}
    if state["decoder"]["type"] == "ByteLevel":  # the short description lacks what the file format asks for
        state["decoder"] |= {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    backend.encode_special_tokens = False
    bos = None if tokenizer.bos is None else tokenizer.piece(tokenizer.bos)
    if bos and tokenizer.add_bos:
        # In the template's little language a colon starts a type id, so the token goes by a name without one.
        backend.post_processor = processors.TemplateProcessing(
            single=["BOS", "$A"], pair=["BOS", "$A", "$B"],
            special_tokens=[{"id": "BOS", "ids": [tokenizer.bos], "tokens": [bos]}],
        )  # fmt: skip
    backend.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": bool(tokenizer.add_bos)}
    for kind, key in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        token = header.config.get(f"{PREFIX}{kind}_token_id")
        if token is not None and 0 <= int(token) < tokenizer.vocab:
            config[f"{key}_token"] = tokenizer.piece(int(token))
    template = header.config.get("tokenizer.chat_template")
    if isinstance(template, str):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")
    generation = {"bos_token_id": tokenizer.bos, "eos_token_id": sorted(tokenizer.eos)}
    (folder / "generation_config.json").write_text(
        json.dumps({k: v for k, v in generation.items() if v not in (None, [])}, indent=1)
    )
