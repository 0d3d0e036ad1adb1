"""Whether a JSON schema has any finite instance: one that contains itself for ever compiles well and never ends."""

from collections.abc import Iterator
from typing import Any

from edgewise.base import BadInput

MANY = 500  # references; beyond that the question is left open
PROPERTIES = 1000  # of one object: a parser holds some items for each in every state, and compiling is quadratic


def check_schema(schema: Any) -> None:
    """Raises BadInput for what is no schema, or what only an infinite value could fulfil."""
    if not isinstance(schema, dict | bool):
        raise BadInput("A JSON schema is an object, or true or false.")
    if not isinstance(schema, bool) and not isinstance(schema.get("x-guidance", {}), dict):
        raise BadInput("x-guidance must be an object.")
    if schema is False:
        raise BadInput("Unsatisfiable schema: it is false.")
    widest = max(map(len, _objects(schema)), default=0)
    if widest > PROPERTIES:
        raise BadInput(f"An object has {widest} properties; at most {PROPERTIES} can be followed.")
    targets = {ref for ref in _references(schema) if ref == "#" or ref.startswith("#/")}
    if not targets or len(targets) > MANY:
        return
    ends: dict[str, bool] = dict.fromkeys(targets, False)
    parts = {ref: _resolve(schema, ref) for ref in targets}
    grown = True
    while grown:  # the least fixed point: an end that follows from ends found before
        grown = False
        for ref, part in parts.items():
            if not ends[ref] and _ends(part, ends):
                ends[ref] = grown = True
    if not _ends(schema, ends):
        raise BadInput("Unsatisfiable schema: it requires itself inside itself, so no value is ever complete.")


def _references(node: Any) -> Iterator[str]:
    return (item["$ref"] for item in _parts(node) if isinstance(item.get("$ref"), str))


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    return (item["properties"] for item in _parts(node) if isinstance(item.get("properties"), dict))


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    todo = [node]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            yield item
            todo += item.values()
        elif isinstance(item, list):
            todo += item


def _resolve(schema: Any, ref: str) -> Any:
    """The part that a local reference names; True (anything) where there is none, which the compiler will say."""
    at = schema
    for step in ref[1:].split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(at, dict) and step in at:
            at = at[step]
        elif isinstance(at, list) and step.isdigit() and int(step) < len(at):
            at = at[int(step)]
        else:
            return True
    return at


def _ends(node: Any, ends: dict[str, bool]) -> bool:
    """Whether some finite value fits, as far as references and required parts say."""
    if not isinstance(node, dict):
        return node is not False
    if not ends.get(_text(node.get("$ref")), True):
        return False
    for key in ("anyOf", "oneOf"):
        options = node.get(key)
        if isinstance(options, list) and options and not any(_ends(option, ends) for option in options):
            return False
    if not all(_ends(part, ends) for part in _list(node.get("allOf"))):
        return False
    if node.get("type") == "object":
        properties = node.get("properties")
        known = properties if isinstance(properties, dict) else {}
        return all(_ends(known[name], ends) for name in _list(node.get("required")) if _text(name) in known)
    least = node.get("minItems")
    if node.get("type") == "array" and isinstance(least, int) and least > 0:
        first = _list(node.get("prefixItems"))
        rest = [node.get("items", True)] if least > len(first) else []
        return all(_ends(part, ends) for part in [*first[:least], *rest])
    return True


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
