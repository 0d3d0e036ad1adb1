"""Two hundred JSON schemas in the shapes of public test suites, every text and list bounded so that answers end."""

from typing import Any

Schema = dict[str, Any]
SHORT: Schema = {"type": "string", "maxLength": 6}
SMALL: Schema = {"type": "integer", "minimum": 0, "maximum": 99}
FLAG: Schema = {"type": "boolean"}


def obj(properties: Schema, *required: str, **more: Any) -> Schema:
    """All properties are required unless some are named; `_` names none."""
    names = [name for name in required if name != "_"] if required else list(properties)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False, **more}


def arr(items: Any, least: int = 0, most: int = 3, **more: Any) -> Schema:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most, **more}


def _types() -> list[Schema]:
    plain: list[Schema] = [{"type": "null"}, FLAG, SMALL, SHORT, obj({"a": FLAG})]
    several: list[Schema] = [{"type": ["boolean", "null"]}, {"type": ["integer", "null"], "minimum": 1, "maximum": 9},
               {"type": ["string", "boolean"], "maxLength": 3}, {"type": ["string", "null"], "maxLength": 4}]  # fmt: skip
    return [*plain, *several]


def _enums() -> list[Schema]:
    values: list[Any] = [
        ["a"], ["a", "b", "c"], [1, 2, 3], [True, False], [None], [None, "x", 7, False], ["", "a", "aa", "aaa"], [0, -1, 10, 100],
        ["a b", "a  b"], ['"', "\\", "/", "\n"], [[1, 2], [1, 3]], [{"a": 1}, {"a": 2}], [{"a": [None, {}]}, []],
        ["true", True], ["1", 1], [1.5, 2.5], ["\t", " "], ["red", "green", "blue", "redder", "greener"],
    ]  # fmt: skip
    found: list[Schema] = [{"enum": value} for value in values]
    consts: list[Any] = ["x", 5, None, True, "", [], {}, [1, "a", None], {"k": "v", "n": {"m": [0]}}, -3, "multi word value"]
    return found + [{"const": value} for value in consts]


def _numbers() -> list[Schema]:
    bounds = [(0, 0), (0, 1), (1, 9), (-5, 5), (-9, -1), (0, 255), (10, 99), (100, 1000), (-1000, 1000), (7, 12), (95, 105),
              (-100, 3), (1999, 2030), (0, 65535)]  # fmt: skip
    found: list[Schema] = [{"type": "integer", "minimum": low, "maximum": high} for low, high in bounds]
    found += [{"type": "integer", "exclusiveMinimum": low, "exclusiveMaximum": high} for low, high in ((0, 10), (-3, 3), (8, 10))]
    found += [{"type": "integer", "minimum": 0, "maximum": 50, "multipleOf": step} for step in (2, 5, 10)]
    found += [{"type": "number", "multipleOf": 0.5, "minimum": 0, "maximum": 5}, {"type": "number", "enum": [0.1, 1e3, -2.25]}]
    return found


def _strings() -> list[Schema]:
    lengths = [(0, 0), (0, 1), (1, 1), (2, 4), (5, 5), (0, 12), (10, 12)]
    found: list[Schema] = [{"type": "string", "minLength": low, "maxLength": high} for low, high in lengths]
    patterns = [
        "^a$", "^[a-z]{1,5}$", "^[A-Z][a-z]{2,6}$", "^\\d{4}-\\d{2}$", "^[0-9a-f]{8}$", "^(yes|no|maybe)$", "^\\+?[0-9]{3,7}$",
        "^[^aeiou]{2,3}$", "^(ab){1,3}$", "^a?b?c?$", "^[A-Za-z_][A-Za-z0-9_]{0,7}$", "^#[0-9A-F]{6}$", "^\\S{1,4}$", "^.{3}$",
        "^[\\w.]{1,6}@[a-z]{2,5}\\.(com|org)$", "^v[0-9]\\.[0-9]\\.[0-9]$", "^\\(\\d{3}\\) \\d{3}$", "^(a|b(c|d)){2}$", "^[é-ü]{2}$",
        "^[\u4e00-\u4e10]{1,3}$",
    ]  # fmt: skip
    found += [{"type": "string", "pattern": pattern} for pattern in patterns]
    found += [{"type": "string", "format": kind} for kind in ("date", "time", "date-time", "uuid", "ipv4")]
    return [*found, {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 5}]


def _arrays() -> list[Schema]:
    items: list[Any] = [FLAG, SMALL, SHORT, {"type": "null"}, {"enum": ["a", "b"]}, arr(FLAG, 1, 2), obj({"k": FLAG})]
    found = [arr(item) for item in items] + [arr(item, 2, 2) for item in items]
    found += [arr(SMALL, least, most) for least, most in ((0, 0), (1, 1), (0, 5), (3, 6), (5, 5))]
    found += [
        {"type": "array", "prefixItems": [SHORT, SMALL], "items": False, "minItems": 2},
        {"type": "array", "prefixItems": [FLAG], "items": SMALL, "minItems": 1, "maxItems": 3},
        {"type": "array", "prefixItems": [{"const": "v"}, {"const": 1}], "minItems": 2, "maxItems": 2},
        {"type": "array", "items": False}, arr(arr(arr(SMALL, 1, 1), 1, 1), 1, 1), arr({"type": ["boolean", "null"]}, 1, 4),
    ]  # fmt: skip
    return found


def _objects() -> list[Schema]:
    return [
        obj({}), obj({"a": SHORT}), obj({"a": SHORT, "b": SMALL}), obj({"a": SHORT, "b": SMALL}, "a"), obj({"a": FLAG, "b": FLAG}, "_"),
        obj({"z": FLAG, "a": FLAG, "m": FLAG}), obj({"a": obj({"b": obj({"c": obj({"d": SMALL})})})}), obj({"a": arr(SHORT, 1, 2)}),
        obj({"type": {"const": "x"}, "properties": SHORT}), obj({"a b": FLAG, "c\"d": FLAG, "e\\f": FLAG}), obj({"": SMALL}),
        obj({"a": {"type": "null"}, "b": {"enum": [1, 2]}}), obj({str(at): FLAG for at in range(12)}),
        obj({"name": SHORT, "age": SMALL, "tags": arr(SHORT, 0, 2)}), obj({"x": SMALL, "y": SMALL}, "x", "y"), obj({"a": {}}, "_"),
        {"type": "object", "patternProperties": {"^[a-z]{1,4}$": FLAG}, "additionalProperties": False, "maxProperties": 2},
        {"type": "object", "properties": {"id": SMALL}, "required": ["id"], "additionalProperties": SHORT, "maxProperties": 1},
        {"type": "object", "patternProperties": {"^[ab]$": SMALL}, "additionalProperties": False, "maxProperties": 2},
        {"type": "object", "minProperties": 1, "maxProperties": 1, "patternProperties": {"^k[0-9]$": SHORT}, "additionalProperties": False},
        obj({"a": SHORT}, title="T", description="words that mean nothing", **{"$schema": "https://json-schema.org/draft/2020-12/schema"}),
        obj({"a": {**SHORT, "default": "x", "examples": ["y"]}}), obj({f"k{at}": {"enum": [at, str(at)]} for at in range(6)}),
        obj({"on": FLAG, "level": {"type": "integer", "minimum": 1, "maximum": 5}, "note": {"type": ["string", "null"], "maxLength": 5}}),
    ]  # fmt: skip


def _unions() -> list[Schema]:
    return [
        {"anyOf": [SMALL, FLAG]}, {"anyOf": [{"type": "null"}, SHORT]}, {"anyOf": [{"const": "a"}, {"const": "b"}]},
        {"anyOf": [obj({"a": FLAG}), obj({"b": FLAG})]}, {"anyOf": [arr(FLAG, 1, 1), obj({"c": SMALL})]},
        {"anyOf": [obj({"kind": {"const": "cat"}, "lives": SMALL}), obj({"kind": {"const": "dog"}, "good": FLAG})]},
        {"oneOf": [SMALL, FLAG]}, {"oneOf": [{"type": "null"}, SHORT, arr(FLAG)]}, {"oneOf": [{"const": "x"}, FLAG]},
        {"oneOf": [obj({"t": {"const": 1}, "v": SHORT}), obj({"t": {"const": 2}, "v": SMALL})]},
        {"allOf": [{"type": "integer", "minimum": 3}, {"type": "integer", "maximum": 8}]},
        {"allOf": [{"type": "string", "minLength": 2}, {"type": "string", "maxLength": 4}]},
        {"allOf": [{"enum": ["a", "b", "c"]}, {"enum": ["b", "c", "d"]}]},
        obj({"v": {"anyOf": [SMALL, {"type": "null"}]}}), {"allOf": [{"$ref": "#/$defs/s"}], "$defs": {"s": SHORT}},
        obj({"v": {"allOf": [{"type": "string"}, {"maxLength": 3}]}}),
        obj({"v": {"anyOf": [SHORT, arr(SHORT, 1, 2)]}}), arr({"anyOf": [SMALL, SHORT, {"type": "null"}]}, 1, 4),
        {"anyOf": [False, {"const": "only"}]}, {"anyOf": [{"type": "string", "pattern": "^a+$", "maxLength": 4}, {"type": "null"}]},
        obj({"a": {"oneOf": [{"enum": ["x"]}, {"enum": ["y"]}]}, "b": {"anyOf": [FLAG, {"const": 0}]}}), {"type": "integer", "anyOf": [{"minimum": 5, "maximum": 9}]},
    ]  # fmt: skip


def _references() -> list[Schema]:
    name = {"$defs": {"name": SHORT, "size": {"enum": ["s", "m", "l"]}}}
    leaf = obj({"v": SMALL})
    return [
        obj({"a": {"$ref": "#/$defs/name"}}, **name), obj({"a": {"$ref": "#/$defs/name"}, "b": {"$ref": "#/$defs/name"}}, **name),
        arr({"$ref": "#/$defs/size"}, 1, 3, **name), {"$ref": "#/$defs/size", **name}, {"anyOf": [{"$ref": "#/$defs/size"}, SMALL], **name},
        obj({"a": {"$ref": "#/definitions/n"}}, definitions={"n": SMALL}), obj({"a": FLAG, "b": {"$ref": "#/properties/a"}}),
        obj({"a": {"$ref": "#/$defs/a"}}, **{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": FLAG}}),
        obj({"a": {"$ref": "#/$defs/x~1y"}}, **{"$defs": {"x/y": FLAG}}), obj({"a": {"$ref": "#/$defs/%C3%A9"}}, **{"$defs": {"é": FLAG}}),
        {"$ref": "#/$defs/tree", "$defs": {"tree": obj({"v": FLAG, "kids": arr({"$ref": "#/$defs/leaf"}, 0, 2)}), "leaf": leaf}},
        {"$ref": "#/$defs/list", "$defs": {"list": {"anyOf": [{"type": "null"}, arr(leaf, 1, 1)]}}},
    ]  # fmt: skip


def _unicode() -> list[Schema]:
    return [
        {"enum": ["é", "ü", "ß"]}, {"enum": ["你好", "世界", "你们"]}, {"const": "🦙🚀"}, {"enum": ["👨\u200d👩\u200d👧", "👨"]},
        obj({"naïve": SHORT, "größe": SMALL}), obj({"名前": SHORT, "年": SMALL}), {"type": "string", "pattern": "^[а-я]{2,4}$"},
        {"type": "string", "pattern": "^(🦙|🚀){1,2}$"}, arr({"enum": ["α", "β", "\u0301"]}, 1, 3), obj({"🦙": {"const": "\ud7ff"}}),
    ]  # fmt: skip


def _real() -> list[Schema]:
    point = obj({"lat": {"type": "integer", "minimum": -90, "maximum": 90}, "lon": {"type": "integer", "minimum": -180, "maximum": 180}})
    money = obj({"amount": SMALL, "currency": {"enum": ["EUR", "USD", "CNY"]}})
    return [
        obj({"place": SHORT, "at": point}), obj({"items": arr(obj({"sku": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{2}$"}, "price": money}), 1, 2)}),
        obj({"method": {"enum": ["GET", "POST"]}, "path": {"type": "string", "pattern": "^/[a-z]{0,6}$"}, "status": {"enum": [200, 404, 500]}}),
        obj({"sentiment": {"enum": ["positive", "neutral", "negative"]}, "score": SMALL, "why": SHORT}),
        obj({"steps": arr(obj({"do": SHORT, "done": FLAG}), 1, 2), "answer": SMALL}), obj({"entities": arr(obj({"text": SHORT, "label": {"enum": ["PER", "ORG"]}}), 0, 2)}),
        obj({"user": obj({"id": {"type": "string", "format": "uuid"}, "mail": {"type": ["string", "null"], "maxLength": 8}}), "roles": arr({"enum": ["admin", "user"]}, 1, 2)}),
        obj({"from": {"type": "string", "format": "date"}, "to": {"type": "string", "format": "date"}, "people": {"type": "integer", "minimum": 1, "maximum": 8}}),
        obj({"city": SHORT, "unit": {"enum": ["C", "F"]}}, "city"),
        obj({"command": {"enum": ["ls", "cd"]}, "arguments": arr({"type": "string", "pattern": "^-?[a-z]{1,4}$"}, 0, 2)}),
        obj({"question": SHORT, "choices": arr(SHORT, 2, 2), "right": {"type": "integer", "minimum": 0, "maximum": 1}}),
        obj({"matrix": arr(arr(SMALL, 2, 2), 2, 2)}),
        obj({"op": {"enum": ["add", "remove"]}, "path": {"type": "string", "pattern": "^(/[a-z]{1,3}){1,2}$"}, "value": {"anyOf": [SMALL, SHORT, {"type": "null"}]}}),
        obj({"title": SHORT, "authors": arr(SHORT, 1, 2), "year": {"type": "integer", "minimum": 1900, "maximum": 2030}, "isbn": {"type": "string", "pattern": "^[0-9]{9}[0-9X]$"}}),
    ]  # fmt: skip


GROUPS = {
    "types": _types(), "enums": _enums(), "numbers": _numbers(), "strings": _strings(), "arrays": _arrays(),
    "objects": _objects(), "unions": _unions(), "references": _references(), "unicode": _unicode(), "real": _real(),
}  # fmt: skip
SCHEMAS: list[tuple[str, Schema]] = [(group, schema) for group, found in GROUPS.items() for schema in found]
