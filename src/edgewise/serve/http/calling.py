"""Tools in the fields of a request: `tools`, `tool_choice`, `parallel_tool_calls`, and past calls."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgewise.base import BadInput, StructuredOutputsParams, Unsupported
from edgewise.serve.http.errors import bad
from edgewise.serve.http.fields import Fields
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.tools import Asked, Tools

MAX_TOOLS = 128
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


def read_tools(body: Fields) -> Asked | None:
    """None where no tool may be called."""
    return chosen(body.name("tool_choice"), *_listed(body, _tool))


def read_response_tools(body: Fields) -> Asked | None:
    """The same in the shape of OpenAI's responses, which has one level less."""
    tools, choice, parallel = _listed(body, _flat)
    if isinstance(choice, dict):
        inner = Fields(choice, f"{body.name('tool_choice')}.")
        kind, name = inner.text("type", choices=("function",)), inner.text("name")
        inner.done()
        choice = {"type": kind, "function": {"name": name}}
    return chosen(body.name("tool_choice"), tools, choice, parallel)


def _listed(
    body: Fields, read: Callable[[Any, str], dict[str, Any]]
) -> tuple[tuple[dict[str, Any], ...], Any, bool]:
    """The tools, what was chosen of them, and whether several may be called."""
    listed = body.array("tools", MAX_TOOLS) or []
    tools = tuple(read(entry, f"{body.name('tools')}[{at}]") for at, entry in enumerate(listed))
    unique(tools, body.name("tools"))
    parallel = body.boolean("parallel_tool_calls", True)
    return tools, body.anything("tool_choice", "auto"), parallel


def chosen(field: str, tools: Sequence[Mapping[str, Any]], choice: Any, parallel: bool) -> Asked | None:
    """choice: OpenAI's."""
    named = None
    if isinstance(choice, dict):
        inner = Fields(choice, f"{field}.")
        if inner.text("type", choices=("function",)) is None:
            raise bad(f"{field}.type", f"{field} needs a type: function.", "missing")
        named = Fields(inner.mapping("function") or {}, f"{field}.function.").text("name")
        inner.done()
        if named not in [tool["function"]["name"] for tool in tools]:
            raise bad(field, f"{field} names {named!r}, which is none of the tools.")
    elif choice not in ("none", "auto", "required"):
        raise bad(field, f"{field} must be none, auto, required, or an object that names a function.")
    if choice == "required" and not tools:
        raise bad(field, f"{field} is 'required', but there are no tools.")
    if choice == "none" or not tools:
        return None
    return Asked(tuple(tools), choice == "required" or named is not None, named, parallel)


async def held(
    model: Hosted, asked: Asked | None, content: StructuredOutputsParams | None, field: str = "tools"
) -> tuple[Tools | None, StructuredOutputsParams | None]:
    """The tools as this model calls them, and what its answer is held to; compiled beside the event loop."""
    grammars = model.llm.parts.engine.grammars
    if asked is None or model.template is None:  # without a template there is no chat, which is said elsewhere
        return None, content
    try:
        tools = Tools(asked, model.template, model.tokenizer)
        assert grammars is not None
        return tools, await asyncio.to_thread(tools.structured, grammars, content)
    except Unsupported as problem:
        raise bad(field, str(problem), "unsupported") from problem
    except BadInput as problem:
        where = str(problem).partition(": ")[0]
        raise bad(where if where.startswith("tools") else field, f"{problem}"[:390]) from problem


def read_calls(message: Fields, where: str) -> list[dict[str, Any]]:
    """Past calls of an assistant's message; arguments as text (OpenAI) or as an object (Ollama)."""
    found = []
    for at, entry in enumerate(message.array("tool_calls", MAX_TOOLS) or []):
        call = Fields(entry, f"{where}.tool_calls[{at}].")
        call.text("type", choices=("function",))
        call.no_effect("index")
        function = Fields(call.mapping("function") or {}, f"{where}.tool_calls[{at}].function.")
        name, arguments = function.text("name"), function.anything("arguments", "")
        function.no_effect("index", "description")
        identity = call.text("id", "")
        call.done()
        function.done()
        if name is None:
            raise bad(function.name("name"), f"{where}.tool_calls[{at}] calls no function: it has no name.", "missing")
        if not isinstance(arguments, str | dict):
            raise function.wrong("arguments", "JSON text or an object")
        found.append({"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}})
    return found


def _tool(entry: Any, where: str) -> dict[str, Any]:
    tool = Fields(entry, f"{where}.")
    kind = tool.text("type", "function")
    if kind != "function":
        raise bad(f"{where}.type", f"{where}.type is '{kind}'; tools here are functions.", "unsupported")
    function = Fields(tool.mapping("function") or {}, f"{where}.function.")
    tool.done()
    made = function_of(
        f"{where}.function", function.text("name"), function.text("description"), function.mapping("parameters")
    )
    if function.boolean("strict"):
        made["strict"] = True
    function.done()
    return {"type": "function", "function": made}


def _flat(entry: Any, where: str) -> dict[str, Any]:
    tool = Fields(entry, f"{where}.")
    kind = tool.text("type")
    if kind != "function":
        said = "is missing" if kind is None else f"is '{kind[:40]}'"
        raise bad(f"{where}.type", f"{where}.type {said}; tools here are functions.", "unsupported")
    made = function_of(where, tool.text("name"), tool.text("description"), tool.mapping("parameters"))
    if tool.boolean("strict"):
        made["strict"] = True
    tool.done()
    return {"type": "function", "function": made}


def function_of(where: str, name: str | None, description: str | None, parameters: Any) -> dict[str, Any]:
    if name is None:
        raise bad(f"{where}.name", f"{where} has no name.", "missing")
    if not NAME.fullmatch(name):
        raise bad(f"{where}.name", f"{where}.name may have letters, digits, _ and -, at most 128; it is {name[:60]!r}.")
    found: dict[str, Any] = {"name": name}
    if description is not None:
        found["description"] = description
    found["parameters"] = dict(NOTHING) if parameters is None else parameters
    return found


def unique(tools: Sequence[Mapping[str, Any]], field: str) -> None:
    names = [tool["function"]["name"] for tool in tools]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise bad(field, f"Two of the {field} are called '{twice}'.")
