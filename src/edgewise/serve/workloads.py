"""What people let a model write, for benches of drafting: six kinds of text, some that repeat and one that never does.

edit: a text copied with changes. code: the model's own, greedily. prose: its own, drawn at temperature 0.7. chat: turns
that repeat phrases around new names and numbers. records: JSON lines, fixed keys around new values. random: tokens that
nothing foretells. Of edit, chat, records and random the answer is dictated by a rule (`watching.Dictation`), since
small models cannot write them; every row is computed all the same.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from edgewise.base import BadInput, Request, SamplingParams
from edgewise.serve.watching import Dictation, questions

Numbers = np.random.Generator
TEMPERATURE = 0.7  # of prose
NAMES = ("Ada", "Bram", "Chen", "Dilan", "Edda", "Femi", "Goran", "Hana", "Ines", "Jonas", "Kira", "Lior")
THINGS = ("lamp", "kettle", "bicycle", "blue chair", "garden hose", "radio", "winter coat", "tea set")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


def workload(llm: Any, name: str, tokens: int, at: int) -> Request:
    """The at-th request of a kind, to be continued by so many tokens."""
    if name in ("edit", "code"):
        return questions(llm, name, tokens, at)
    if name == "prose":
        asked = questions(llm, name, tokens, at)
        return replace(asked, params=replace(asked.params, temperature=TEMPERATURE, seed=at))
    if name not in WRITERS:
        raise BadInput(f"There is no workload '{name}'. Known: {', '.join(WORKLOADS)}.")
    numbers = np.random.default_rng((at, len(name)))
    known = min(llm.context - tokens - 8, max(96, tokens))
    if known < 16:
        raise BadInput(f"The context of {llm.context} tokens is too short for answers of {tokens}. Give a smaller -n.")
    if name == "random":
        ids = numbers.integers(0, llm.parts.spec.vocab, known + tokens).tolist()
    else:
        ids = []
        while len(ids) < known + tokens:
            ids += llm.tokenizer.encode(WRITERS[name](numbers))
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    answer = ids[known : known + tokens + 1]
    return Request(tuple(ids[:known]), params, extra={"rules": (partial(Dictation, answer),)})


def turn(numbers: Numbers) -> str:
    name, thing, day = numbers.choice(NAMES), numbers.choice(THINGS), numbers.choice(DAYS)
    order, price = numbers.integers(1000, 10000), numbers.integers(5, 200)
    return (
        f"User: Where is my order {order}? I have been waiting for the {thing} since {day}.\n"
        f"Assistant: Thank you for your message, {name}. I am sorry that you had to wait. Your order {order}, a "
        f"{thing} for {price} euros, has left our house on {day}. Is there anything else that I can do for you?\n"
    )


def record(numbers: Numbers) -> str:
    return json.dumps({
        "id": int(numbers.integers(1000, 100000)), "name": str(numbers.choice(NAMES)),
        "item": str(numbers.choice(THINGS)), "price": round(float(numbers.uniform(5, 200)), 2),
        "paid": bool(numbers.random() < 0.5), "day": str(numbers.choice(DAYS)),
    }) + "\n"  # fmt: skip


WRITERS: dict[str, Callable[[Numbers], str]] = {"chat": turn, "records": record, "random": lambda numbers: ""}
WORKLOADS = ("edit", "code", "prose", *WRITERS)
