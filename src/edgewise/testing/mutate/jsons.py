"""JSON files as trees: values, keys and types change, and sometimes the text itself."""

import copy
import json
import random
from typing import Any

from edgewise.testing.mutate import EXTREMES

VALUES: tuple[Any, ...] = (
    None, True, False, "", "x", [], {}, [0], {"a": 1}, -1, -0.5, 0.0, 1e-320, 1e308, 1.5, 10**30, *EXTREMES,
    "\0", "é\U0001f600",
    "A" * 5000, "../../etc/passwd", "/etc/passwd", "{{ 1 }}", [None] * 300, [[[[]]]],
)  # fmt: skip
CODE: tuple[tuple[str, Any], ...] = (
    ("auto_map", {"AutoModelForCausalLM": "evil.Model"}), ("_attn_implementation_internal", "org/evil"),
    ("trust_remote_code", True), ("quantization_config", {"quant_method": "evil"}), ("model_type", "no_such_model"),
    ("rope_scaling", {"type": "linear", "factor": 0}), ("rope_parameters", {"rope_type": "llama3"}),
    ("text_config", {}),
    ("head_dim", 0), ("num_experts", 2**31), ("tie_word_embeddings", "yes"), ("eos_token_id", [1, "x"]),
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of every value below the root, at most some thousands."""
    found: list[tuple[Any, ...]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((*path, key))
        if len(found) < 4000:
            found += _places(inner, (*path, key))
    return found


def _change(tree: Any, rng: random.Random) -> Any:
    """One change to a copy of the tree. Prefers shallow places: a vocabulary would drown everything else."""
    places = _places(tree)
    if not places or rng.random() < 0.1:
        if isinstance(tree, dict):
            key, value = rng.choice(CODE)
            tree[key] = copy.deepcopy(value)
        return tree
    depth = rng.choice([1, 1, 2, 3, 9])
    path = rng.choice([p for p in places if len(p) <= depth] or places)
    holder = tree
    for key in path[:-1]:
        holder = holder[key]
    old = holder[path[-1]]
    match rng.randrange(6):
        case 0:
            del holder[path[-1]]
        case 1 if isinstance(old, (int, float)) and not isinstance(old, bool):
            holder[path[-1]] = rng.choice([-1, 0, 1, old + 1, old - 1, old * 2, 2**31, 2**63, 1e30, -old])
        case 2 if isinstance(old, (list, dict, str)):
            half: Any = {} if isinstance(old, dict) else old[: len(old) // 2]
            holder[path[-1]] = rng.choice([type(old)(), [old], old, half])
        case 3:
            other = rng.choice(places)
            value = tree
            try:
                for key in other:
                    value = value[key]
                holder[path[-1]] = json.loads(json.dumps(value))
            except (KeyError, IndexError, TypeError):
                holder[path[-1]] = None
        case _:
            holder[path[-1]] = copy.deepcopy(rng.choice(VALUES))
    return tree


def _damage(text: str, rng: random.Random) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    match rng.randrange(8):
        case 0:
            return data[: rng.randrange(len(data) + 1)]
        case 1:
            at = rng.randrange(len(data) or 1)
            other = rng.choice([b"\0", b"\xff", b",", b"}", b"]", b'"', b"NaN", b"1e999", b"\\"])
            return data[:at] + other + data[at + 1 :]
        case 2:
            depth = rng.choice([65, 1000, 200000])
            inside = data[:-1] + b',"x":' + b"[" * depth + b"]" * depth + b"}"
            return rng.choice([b"[" * depth, b'{"a":' * depth, inside])
        case 3:
            return data.replace(b"{", b'{"twice":1,"twice":2,', 1)
        case 4:
            return rng.choice([b"", b"null", b"[]", b'"x"', b"\xef\xbb\xbf" + data, data + data, data + b"\0", b"{}"])
        case 5:
            one = rng.choice([b"[],", b"{},", b'"",', b'"ab",', b"1,"])
            return data[:-1] + b',"many":[' + one * rng.choice([1000, 600000]) + b"0]}"
        case 6:
            number = rng.choice([b"1" * 5000, b"-", b"1.", b"0x1", b"Infinity", b"-NaN", b"1e-9999"])
            return data[:-1] + b',"n":' + number + b"}"
        case _:
            return data + b" " * rng.choice([10, 3_000_000])


def mutant(text: bytes, rng: random.Random) -> bytes:
    """The JSON text with one to three changes."""
    tree = json.loads(text)
    for _ in range(rng.randrange(1, 4)):
        tree = _change(tree, rng)
    changed = json.dumps(tree)
    return _damage(changed, rng) if rng.random() < 0.25 else changed.encode("utf-8", "surrogatepass")
