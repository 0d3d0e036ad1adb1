"""Chat templates: messages in, the prompt out, as text or as tokens.

For tokens, the strings that users and tools wrote are marked before the template sees them, so that a special token can
only come from the template itself.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgewise.base import BadInput
from edgewise.text.api import Tokenizer
from edgewise.text.hf import chat_templates, special_strings, tokenizer_config
from edgewise.text.template import Template
from edgewise.weights.api import Header

_REASONING = ("reasoning_content", "thinking", "reasoning")
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython"})
_DEPTH = 64


class JinjaChatTemplate:
    """One or more named templates (with tools, `tool_use` is preferred) and the special strings they may print."""

    def __init__(self, templates: Mapping[str, str], strings: Mapping[str, str], name: str = "the model") -> None:
        if not templates:
            raise BadInput(f"{name} has no chat template. Give one with --chat-template FILE.jinja.")
        self.strings = dict(strings)
        self._templates = {
            key: Template(source, _called(key, name))
            for key, source in templates.items()
            if key in ("default", "tool_use")
        }
        if not self._templates:
            key = sorted(templates)[0]
            self._templates = {"default": Template(templates[key], _called(key, name))}

    def source(self, tools: Any = None) -> str:
        """The text of the template that would be used."""
        return self._pick(tools).source

    def _pick(self, tools: Any) -> Template:
        first, second = ("default", "tool_use") if tools is None else ("tool_use", "default")
        return self._templates.get(first) or self._templates[second]

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        **variables: Any,
    ) -> str:
        """Exactly what transformers' apply_chat_template gives as text. Raises BadInput with one sentence."""
        plain = _plain_messages(messages)
        rest = {**self.strings, **{key: _plain(value, key) for key, value in variables.items()}}
        return self._render(plain, _plain_tools(tools), add_generation_prompt, rest)

    def _render(self, messages: Any, tools: Any, add_generation_prompt: bool, rest: dict[str, Any]) -> str:
        known = {"messages": messages, "tools": tools, "add_generation_prompt": add_generation_prompt}
        return self._pick(tools).render({"documents": None, **rest, **known})

    def encode(self, tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        """Ids of the rendered prompt; options as for render. No BOS is added beyond what the template prints."""
        tools, add = options.pop("tools", None), bool(options.pop("add_generation_prompt", False))
        plain, plain_tools = _plain_messages(messages), _plain_tools(tools)
        rest = {key: _plain(value, key) for key, value in options.items()}
        source = self.source(tools)
        breaker = _unused([plain, plain_tools, rest, source, self.strings])

        def outside(text: str) -> str:
            return tokenizer.break_up(text, breaker, also=source)

        def own(text: str) -> str:  # the model wrote it: its <think> and the like stay what they were
            return tokenizer.break_up(text, breaker)

        marked = [_marked(message, outside, own) for message in plain]
        for key in rest:  # documents and the like come from outside too; bos_token and its kin are the template's own
            if not key.endswith("_token"):
                rest[key] = _map(rest[key], outside)
        text = self._render(marked, _map(plain_tools, outside), add, {**self.strings, **rest})
        text = text.replace(f"\\u{ord(breaker):04x}", "")  # a template that asks JSON for ASCII
        return tokenizer.encode(text, parse_special=True, breaker=breaker)


def _called(key: str, name: str) -> str:
    return f"The chat template of {name}" if key == "default" else f"The chat template '{key}' of {name}"


def _plain_messages(messages: Any) -> list[dict[str, Any]]:
    """Plain copies, with a message's reasoning under every name that templates read."""
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise BadInput("messages must be a list of objects, each with a role and a content.")
    out = []
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise BadInput(f"messages[{index}] must be an object with a role and a content, not {_kind(message)}.")
        if not isinstance(message.get("role"), str):
            raise BadInput(f"messages[{index}] has no role: give system, user, assistant or tool.")
        plain = _plain(message, f"messages[{index}]")
        reasoning = next((plain[key] for key in _REASONING if plain.get(key) is not None), None)
        if reasoning is not None:
            plain = {"thinking": reasoning, **plain, "reasoning_content": reasoning}
        out.append(plain)
    return out


def _plain_tools(tools: Any) -> list[Any] | None:
    if tools is None:
        return None
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Sequence):
        raise BadInput("tools must be a list of function descriptions.")
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise BadInput(f"tools[{index}] must be an object that describes a function, not {_kind(tool)}.")
    return [_plain(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def _kind(value: Any) -> str:
    return type(value).__name__


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """A copy made of JSON's own types, so that a template can reach nothing else. Raises BadInput naming the place."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if depth >= _DEPTH:
        raise BadInput(f"{where} nests deeper than {_DEPTH} levels.")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise BadInput(f"{where} has a key that is not a string: {key!r}.")
        return {str.__str__(key): _plain(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_plain(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise BadInput(f"{where} is a {_kind(value)}; only JSON values can be given to a chat template.")


def _marked(message: dict[str, Any], outside: Callable[[str], str], own: Callable[[str], str]) -> dict[str, Any]:
    """The message with every string changed; the roles that templates ask for stay as they are."""
    written = ("content", *_REASONING) if message["role"] == "assistant" else ()
    changed = {outside(key): _map(value, own if key in written else outside) for key, value in message.items()}
    return {**changed, "role": message["role"]} if message["role"] in _ROLES else changed


def _map(value: Any, change: Callable[[str], str]) -> Any:
    """The same data with every string changed, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _map(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_map(item, change) for item in value]
    return value


def _unused(values: Any) -> str:
    """A private-use character that occurs in none of the strings, raw or as a JSON escape."""
    seen: set[str] = set()
    todo = [values]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            if not item.isascii():
                seen.update(char for char in item if "\ue000" <= char <= "\uf8ff")
            if "\\u" in item:
                seen.update(chr(code) for code in range(0xE000, 0xF900) if f"\\u{code:04x}" in item)
        elif isinstance(item, dict):
            todo += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            todo += item
    for code in range(0xE000, 0xF900):
        if chr(code) not in seen:
            return chr(code)
    raise BadInput("These messages use every private-use character of Unicode, which leaves none to protect them with.")


def template_of(header: Header) -> JinjaChatTemplate | None:
    """What a checkpoint carries, or None."""
    if header.dialect == "gguf":
        templates = _gguf_templates(header)
        strings = _gguf_strings(header) if templates else {}
    else:
        templates = chat_templates(header)
        strings = special_strings(tokenizer_config(header)) if templates else {}
    return JinjaChatTemplate(templates, strings, header.name) if templates else None


def _gguf_templates(header: Header) -> dict[str, str]:
    found = {}
    for key, value in header.config.items():
        if key == "tokenizer.chat_template" or key.startswith("tokenizer.chat_template."):
            if not isinstance(value, str):
                raise BadInput(f"{key} must be a string but is {_kind(value)}.")
            found[key.removeprefix("tokenizer.chat_template").lstrip(".") or "default"] = value
    return found


def _gguf_strings(header: Header) -> dict[str, str]:
    from edgewise.text.gguf import Fields

    fields = Fields(header)
    strings = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token = fields.token_id(f"{key}_token_id")
        if token is not None:
            strings[f"{name}_token"] = fields.tokens[token]
    return strings
