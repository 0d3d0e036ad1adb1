"""Generated tasks with checkable answers, in levels of difficulty: arithmetic, retrieval, copying, JSON, logs, CSV.

An example is a function of (task, level, number): no file, no network. It is held out when a hash of its question says
so, whatever seed made it, so no held-out question is ever trained on.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HELD_OUT = 1 / 16  # of all questions
LEVELS = 4

NAMES = ("Ada", "Alan", "Barbara", "Dennis", "Edith", "Grace", "Guido", "Hedy", "Ken", "Linus", "Mary", "Niklaus",
         "Radia", "Sophie", "Tim", "Vint")  # fmt: skip
CITIES = ("Athens", "Basel", "Cairo", "Delhi", "Geneva", "Lagos", "Lima", "London", "Oslo", "Paris", "Quito", "Riga",
          "Rome", "Seoul", "Tokyo", "Turin")  # fmt: skip
WORDS = ("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "harbor", "inlet", "jetty", "kite", "lantern",
         "meadow", "north", "orchard", "pebble", "quarry", "river", "stone", "timber", "umber", "valley", "willow",
         "yarrow")  # fmt: skip
SERVICES = ("auth", "cache", "db", "http", "mail", "queue", "sched", "store")
EVENTS = ("started", "stopped", "timeout", "retry", "connected", "refused", "flushed", "full")
FILLER = ("The grass is green and the sky is blue.", "Here we go, there and back again.", "Rain fell on the old town.",
          "A train left the station at noon.", "The library closes early today.", "Nobody counted the chairs.",
          "Tea was served in the garden.", "The road bends to the left.")  # fmt: skip


@dataclass(frozen=True)
class Example:
    task: str
    level: int  # 1 is the easiest
    question: str
    thinking: str  # "" where the task needs none
    answer: str

    @property
    def held_out(self) -> bool:
        digest = hashlib.sha256(f"{self.task}\0{self.question}".encode()).digest()
        return int.from_bytes(digest[:4], "big") < HELD_OUT * 2**32

    def right(self, answer: str) -> bool:
        """Whether another text says the same: equal, or, for JSON, equal once parsed."""
        if answer.strip() == self.answer:
            return True
        if self.task != "json":
            return False
        try:
            return bool(json.loads(answer) == json.loads(self.answer))
        except ValueError:
            return False


def addition(rng: random.Random, level: int) -> tuple[str, str, str]:
    """Two numbers of 1 to 7 digits; the thinking adds column by column from the right."""
    digits = 2 * level - 1
    a, b = (rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits) for _ in "ab")
    carry, columns = 0, []
    for x, y in zip(str(a)[::-1], str(b)[::-1], strict=True):
        total = int(x) + int(y) + carry
        columns.append(f"{x}+{y}+{carry}={total}")
        carry = total // 10
    return f"{a} + {b} = ?", "\n".join(columns), str(a + b)


def chain(rng: random.Random, level: int) -> tuple[str, str, str]:
    """Steps on a number modulo 100, two per level; the thinking gives every intermediate number."""
    value = rng.randrange(100)
    steps, lines = [], []
    for _ in range(2 * level):
        sign, operand = rng.choice("+-*"), rng.randrange(2, 10)
        steps.append(f"{sign} {operand}")
        new = (value + operand if sign == "+" else value - operand if sign == "-" else value * operand) % 100
        lines.append(f"{value} {sign} {operand} = {new}")
        value = new
    first = lines[0].partition(" ")[0]
    return f"Start with {first}, then {', '.join(steps)}, modulo 100.", "\n".join(lines), str(value)


def retrieval(rng: random.Random, level: int) -> tuple[str, str, str]:
    """One of 2, 4, 8 or 16 facts, with a sentence of filler between any two."""
    count = 2**level
    keys = rng.sample([f"{a}-{b}" for a in WORDS for b in CITIES], count)
    facts = {key: str(rng.randrange(100, 1000)) for key in keys}
    lines = [f"{rng.choice(FILLER)} {key} is {value}." for key, value in facts.items()]
    wanted = rng.choice(keys)
    return "\n".join([*lines, f"What is {wanted}?"]), "", facts[wanted]


def copying(rng: random.Random, level: int) -> tuple[str, str, str]:
    """A list of words, one of them to be replaced wherever it stands."""
    words = [rng.choice(WORDS) for _ in range(4 * level)]
    old, new = rng.choice(words), rng.choice(CITIES)
    said = " ".join(words)
    return f"Copy, with {new} for {old}: {said}", "", " ".join(new if word == old else word for word in words)


def as_json(rng: random.Random, level: int) -> tuple[str, str, str]:
    """One to four people as an array of objects, under a schema that says the order of the keys."""
    keys = rng.sample(["name", "age", "city", "ok"], min(4, level + 1))
    kinds = {"name": "string", "age": "integer", "city": "string", "ok": "boolean"}
    people = [
        {"name": rng.choice(NAMES), "age": rng.randrange(18, 100), "city": rng.choice(CITIES), "ok": rng.random() < 0.5}
        for _ in range(1 + level // 2)
    ]
    facts = [f"{p['name']} is {p['age']}, lives in {p['city']}, {'is' if p['ok'] else 'is not'} ok." for p in people]
    schema = json.dumps({key: kinds[key] for key in keys})
    answer = json.dumps([{key: person[key] for key in keys} for person in people])
    return f"JSON, each object {schema}. {' '.join(facts)}", "", answer


def logs(rng: random.Random, level: int) -> tuple[str, str, str]:
    """Lines of a log; how many errors has a service? The thinking copies them out."""
    lines, hour, minute = [], rng.randrange(24), rng.randrange(30)
    services = rng.sample(SERVICES, 3)
    for _ in range(3 * level):
        minute += rng.randrange(2)
        kind = rng.choice(("INFO", "WARN", "ERROR", "ERROR"))
        lines.append(f"{hour:02}:{minute:02} {kind} {rng.choice(services)} {rng.choice(EVENTS)}")
    wanted = rng.choice(services)
    found = [line for line in lines if f" ERROR {wanted} " in line]
    return "\n".join([*lines, f"How many ERROR of {wanted}?"]), "\n".join(found), str(len(found))


def table(rng: random.Random, level: int) -> tuple[str, str, str]:
    """A CSV table of 2 to 8 rows; the value of a column in a named row."""
    columns = rng.sample(["age", "city", "score", "word"], min(4, 1 + level))
    people = rng.sample(NAMES, 2 * level)
    values = {"age": lambda: str(rng.randrange(18, 100)), "city": lambda: rng.choice(CITIES),
              "score": lambda: str(rng.randrange(1000)), "word": lambda: rng.choice(WORDS)}  # fmt: skip
    rows = {name: [values[column]() for column in columns] for name in people}
    wanted, column = rng.choice(people), rng.choice(columns)
    text = "\n".join(",".join(row) for row in [["name", *columns], *([name, *row] for name, row in rows.items())])
    return f"{text}\n{column} of {wanted}?", "", rows[wanted][columns.index(column)]


Maker = Callable[[random.Random, int], tuple[str, str, str]]
TASKS: dict[str, Maker] = {
    "addition": addition, "chain": chain, "retrieval": retrieval, "copy": copying, "json": as_json, "logs": logs,
    "csv": table,
}  # fmt: skip


def example(task: str, level: int, number: int) -> Example:
    """The one example of this name: the same on every machine and Python."""
    return Example(task, level, *TASKS[task](random.Random(f"{task} {level} {number}"), level))


def training(count: int) -> Iterator[Example]:
    """`count` examples that are not held out, tasks and levels in turn, none twice in a row of a thousand."""
    places = [(task, level) for level in range(1, LEVELS + 1) for task in TASKS]
    made = number = 0
    while made < count:
        task, level = places[number % len(places)]
        found = example(task, level, number // len(places))
        number += 1
        if not found.held_out:
            made += 1
            yield found


def held_out(task: str, level: int, count: int) -> list[Example]:
    """Up to `count` different held-out examples of one task and level (a small level has few questions)."""
    found: dict[str, Example] = {}
    for number in range(64 * count):
        one = example(task, level, number)
        if one.held_out:
            found.setdefault(one.question, one)
        if len(found) == count:
            break
    return list(found.values())
