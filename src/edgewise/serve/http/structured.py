"""What an answer has to look like, in the words of each dialect, compiled before any work is done.

OpenAI: response_format. vLLM: structured_outputs, and its older guided_json, guided_regex, guided_choice and
guided_grammar. Ollama: format. Anthropic: output_config.format, and its older output_format.
"""

import asyncio
from typing import Any

from edgewise.base import BadInput, StructuredOutputsParams
from edgewise.base.structured import KINDS
from edgewise.serve.http.errors import bad
from edgewise.serve.http.fields import Fields
from edgewise.serve.http.hosted import Hosted

Found = tuple[StructuredOutputsParams, str]  # and the field that asked for it


async def structured(body: Fields, model: Hosted) -> StructuredOutputsParams | None:
    """OpenAI's and vLLM's fields. Raises ApiError naming the field when the model cannot fulfil it."""
    return await compiled(model, [_response_format(body), _vllm(body), *_guided(body)])


async def ollama_format(body: Fields, model: Hosted) -> StructuredOutputsParams | None:
    value = body.anything("format")
    if value is None or value == "":
        return None
    if value == "json":
        return await compiled(model, [(StructuredOutputsParams(json_object=True), body.name("format"))])
    if not isinstance(value, dict):
        raise body.wrong("format", '"json" or a JSON schema')
    return await compiled(model, [made(body.name("format"), json=value)])


async def anthropic_format(body: Fields, model: Hosted) -> StructuredOutputsParams | None:
    found = [_anthropic(body.anything("output_format"), "output_format")]
    config = body.mapping("output_config")
    if config is not None:
        inner = Fields(config, "output_config.")
        found.append(_anthropic(inner.anything("format"), "output_config.format"))
        inner.done()
    return await compiled(model, found)


async def compiled(model: Hosted, found: list[Found | None]) -> StructuredOutputsParams | None:
    """The only one of them, compiled beside the event loop; it is kept, so that nobody does it again."""
    given = [one for one in found if one is not None]
    if not given:
        return None
    if len(given) > 1:
        raise bad(given[1][1], f"{given[0][1]} and {given[1][1]} exclude each other; give one of them.")
    wanted, field = given[0]
    grammars = model.llm.parts.engine.grammars
    if grammars is None:
        raise bad(field, f"{model.name} carries no tokenizer, so it cannot keep to {field}.", "unsupported")
    try:
        await asyncio.to_thread(grammars.matcher, wanted)
    except BadInput as problem:
        said = str(problem).removeprefix(f"structured_outputs.{wanted.kind}: ")
        raise bad(field, f"{field}: {said}"[:390]) from problem
    return wanted


def made(field: str, **wanted: Any) -> Found:
    try:
        return StructuredOutputsParams(**wanted), field
    except BadInput as problem:
        raise bad(field, f"{field}: {problem}") from problem


def json_schema(value: Any, where: str) -> Found:
    """OpenAI's {name, schema, strict, description}. The schema is kept to whether strict is set or not."""
    inner = Fields(value, f"{where}.")
    schema = inner.anything("schema")
    inner.text("name")
    inner.boolean("strict")
    inner.no_effect("description")
    inner.done()
    if not isinstance(schema, dict | bool):
        raise bad(f"{where}.schema", f"{where}.schema must be a JSON schema: an object.", "missing")
    return made(f"{where}.schema", json=schema)


def _response_format(body: Fields) -> Found | None:
    given = body.mapping("response_format")
    if given is None:
        return None
    inner = Fields(given, "response_format.")
    kind = inner.text("type", choices=("text", "json_object", "json_schema"))
    if kind is None:
        raise bad("response_format.type", "response_format needs a type: text, json_object or json_schema.", "missing")
    found = None
    if kind == "json_schema":
        found = json_schema(inner.mapping("json_schema") or {}, "response_format.json_schema")
    elif kind == "json_object":
        found = made("response_format", json_object=True)
        schema = inner.mapping("schema")  # llama.cpp's
        if schema is not None:
            found = made("response_format.schema", json=schema)
    inner.done()
    return found


def _vllm(body: Fields) -> Found | None:
    given = body.mapping("structured_outputs")
    if given is None:
        return None
    inner = Fields(given, "structured_outputs.")
    wanted = {kind: inner.anything(kind) for kind in KINDS}
    inner.done()
    return made("structured_outputs", **{kind: value for kind, value in wanted.items() if value is not None})


def _guided(body: Fields) -> list[Found | None]:
    kinds = ("json", "regex", "choice", "grammar")
    given = [(f"guided_{kind}", kind, body.anything(f"guided_{kind}")) for kind in kinds]
    return [made(field, **{kind: value}) for field, kind, value in given if value is not None]


def _anthropic(value: Any, where: str) -> Found | None:
    if value is None:
        return None
    inner = Fields(value, f"{where}.")
    kind, schema = inner.text("type", choices=("json_schema",)), inner.anything("schema")
    inner.done()
    if kind is None or not isinstance(schema, dict):
        raise bad(where, f"{where} needs the type json_schema and a schema.", "missing")
    return made(where, json=schema)
