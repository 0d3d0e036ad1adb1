"""Tools of one request: what the template is given, what the answer is held to, and how calls are read out of it.

Everything is in OpenAI's shapes; other dialects translate.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgewise.base import BadInput, StructuredOutputsParams
from edgewise.decode.grammars import HEAD, Grammars, json_lark, lark_of
from edgewise.serve.outputs import CompletionOutput
from edgewise.text.api import ChatTemplate, Tokenizer
from edgewise.text.tools import Part, Tool, ToolFormat, tool_format

PLAIN = {"type", "properties", "required", "title", "description", "$defs", "definitions", "$schema", "x-guidance"}
MOST = 16  # calls in one answer


@dataclass(frozen=True)
class Asked:
    """tools: as OpenAI has them, names checked. named: the only one that may be called. forced: one has to be.
    parallel: several calls in one answer."""

    tools: tuple[Mapping[str, Any], ...]
    forced: bool = False
    named: str | None = None
    parallel: bool = True


def asked_of(tools: Sequence[Mapping[str, Any]], choice: Any = "auto", parallel: bool = True) -> Asked | None:
    """tools, choice: in OpenAI's shapes, from a program. None where no tool may be called. Raises BadInput."""
    names = []
    for at, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, Mapping) and tool.get("type") == "function" else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not name:
            raise BadInput(f'tools[{at}] must be {{"type": "function", "function": {{"name": …, "parameters": …}}}}.')
        names.append(name)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise BadInput(f"Two of the tools are called '{twice}'.")
    named = None
    if isinstance(choice, Mapping):
        named = (choice.get("function") or {}).get("name")
        if named not in names:
            raise BadInput(f"tool_choice names {named!r}, which is none of the tools.")
    elif choice not in ("none", "auto", "required"):
        raise BadInput("tool_choice must be none, auto, required, or a mapping that names a function.")
    elif choice == "required" and not names:
        raise BadInput("tool_choice is 'required', but there are no tools.")
    if choice == "none" or not names:
        return None
    return Asked(tuple(tools), choice == "required" or named is not None, named, parallel)


@dataclass
class Call:
    """One call in an answer; arguments: JSON text."""

    id: str
    name: str
    arguments: str = ""

    def body(self) -> dict[str, Any]:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass
class Said:
    """An answer taken apart."""

    content: str = ""
    calls: list[Call] = field(default_factory=list)


class Tools:
    """asked, for one model. Raises Unsupported for a template whose way of calling is not known."""

    def __init__(self, asked: Asked, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self.asked, self._tokenizer = asked, tokenizer
        self.format: ToolFormat = tool_format(template.source(asked.tools))

    def conversation(
        self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Messages, and options for the template: those given and its own."""
        plain = [_with_objects(message) for message in messages]
        own = self.format.messages(plain, self.asked.tools)
        if own is None:
            return plain, {**options, "tools": list(self.asked.tools)}
        return own, dict(options)

    def structured(self, grammars: Grammars, content: StructuredOutputsParams | None) -> StructuredOutputsParams:
        """What the whole answer is held to. content: what it is where it is no call. Raises BadInput naming a tool."""
        tools = []
        for at, tool in enumerate(self.asked.tools):
            function = tool["function"]
            if self.asked.named in (None, function["name"]):
                try:
                    tools.append(Tool(function["name"], _arguments(function)))
                except BadInput as problem:
                    raise BadInput(f"tools[{at}].function.parameters: {problem}") from None
        wanted = self._grammar(tools, content)
        try:
            grammars.matcher(wanted)
        except BadInput as problem:
            self._blame(grammars, tools)
            raise BadInput(f"tools: {problem}") from None
        return wanted

    def _grammar(self, tools: Sequence[Tool], content: StructuredOutputsParams | None) -> StructuredOutputsParams:
        most = MOST if self.asked.parallel and self.asked.named is None else 1
        free = None
        if content is not None and not self.asked.forced:
            if content.kind not in ("json", "json_object"):
                raise BadInput(f"structured_outputs.{content.kind} cannot be combined with tools; a JSON schema can.")
            free = lark_of(content).partition("start: ")[2]
        made = self.format.grammar(tools, self._spelling, forced=self.asked.forced, most=most, content=free)
        return StructuredOutputsParams(grammar=HEAD + made)

    def _blame(self, grammars: Grammars, tools: Sequence[Tool]) -> None:
        for tool in tools:
            try:
                grammars.matcher(StructuredOutputsParams(grammar=f"{HEAD}start: {tool.arguments}"))
            except BadInput as problem:
                names = [one["function"]["name"] for one in self.asked.tools]
                said = str(problem).partition(": ")[2]
                raise BadInput(f"tools[{names.index(tool.name)}].function.parameters: {said}") from None

    def _spelling(self, marker: str) -> str:
        """A control token cannot come as text: it is named by its number."""
        ids = self._tokenizer.encode(marker, parse_special=True)
        if len(ids) == 1 and ids[0] in self._tokenizer.special:
            return f"<[{ids[0]}]>"
        return json.dumps(marker)

    def reader(self) -> "Reader":
        return Reader(self.format)

    def read(self, text: str) -> Said:
        reader = self.reader()
        reader.push(text)
        reader.flush()
        return reader.said


class Reader:
    """Takes one answer apart as it comes."""

    def __init__(self, format_: ToolFormat) -> None:
        self._format, self._parser, self.said = format_, format_.parser(), Said()

    def push(self, text: str) -> list[Part]:
        return self._take(self._parser.push(text))

    def flush(self) -> list[Part]:
        return self._take(self._parser.flush())

    def _take(self, parts: list[Part]) -> list[Part]:
        for part in parts:
            self.said.content += part.text
            if part.name:
                self.said.calls.append(Call(self._format.call_id(), part.name))
            if part.arguments:
                self.said.calls[part.call].arguments += part.arguments
        return parts

    def reason(self, finish: str | None) -> str | None:
        """The finish_reason: a call that is whole ends the answer as one."""
        return "tool_calls" if finish == "stop" and self.said.calls else finish


def message_of(output: CompletionOutput, tools: Tools | None) -> tuple[dict[str, Any], str | None]:
    """OpenAI's message of a finished sample, and its finish_reason."""
    message: dict[str, Any] = {"role": "assistant", "content": output.text, "refusal": None}
    if tools is None:
        return message, output.finish_reason
    reader = tools.reader()
    reader.push(output.text)
    reader.flush()
    message["content"] = reader.said.content or None
    if reader.said.calls:
        message["tool_calls"] = [call.body() for call in reader.said.calls]
    return message, reader.reason(output.finish_reason)


def whole_calls(said: Said, finish: str | None) -> list[Call]:
    """Those whose arguments are complete: what max_tokens cut is left out, and `length` says so."""
    if finish == "stop":
        return said.calls
    found = []
    for call in said.calls:
        with contextlib.suppress(ValueError):
            json.loads(call.arguments)
            found.append(call)
    return found


def deltas_of(parts: Sequence[Part], reader: Reader) -> list[dict[str, Any]]:
    """OpenAI's deltas: the first of a call has its id, type and name; later ones only a piece of its arguments."""
    found: list[dict[str, Any]] = []
    for part in parts:
        if part.text:
            found.append({"content": part.text})
        elif part.name:
            call = reader.said.calls[part.call]
            head = {"index": part.call, **Call(call.id, call.name).body()}
            found.append({"tool_calls": [head]})
        elif part.arguments:
            found.append({"tool_calls": [{"index": part.call, "function": {"arguments": part.arguments}}]})
    return found


def _arguments(function: Mapping[str, Any]) -> str:
    """A function's parameters as a Lark expression: an object of those that are named, unless the schema says more."""
    schema = {"type": "object", **(function.get("parameters") or {})}
    if schema.keys() <= PLAIN:
        schema["additionalProperties"] = False
    return json_lark(json.dumps(schema, ensure_ascii=False), lenient=not function.get("strict"))


def _with_objects(message: Mapping[str, Any]) -> dict[str, Any]:
    """Templates write arguments as objects; OpenAI's are JSON text."""
    if not message.get("tool_calls"):
        return dict(message)
    calls = []
    for call in message["tool_calls"]:
        arguments = call["function"]["arguments"]
        if isinstance(arguments, str):
            with contextlib.suppress(ValueError):  # what a model wrote, and wrong: the template shows it as it was
                arguments = json.loads(arguments) if arguments.strip() else {}
        calls.append({**call, "function": {**call["function"], "arguments": arguments}})
    return {**message, "tool_calls": calls}
