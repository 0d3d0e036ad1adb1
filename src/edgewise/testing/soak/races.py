"""R18: clients of several models where memory holds one."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from edgewise.embedded import embedded_model
from edgewise.testing.soak import Found
from edgewise.testing.soak.serving import Process

NAMES = ("a", "b", "c")
BOUND_S = 30.0  # a load takes a tenth of a second; eight clients are served in turn


def load_races(small: bool, seed: int) -> Found:
    """Everybody asks for a random model until it has been loaded so many times; somebody watches what is loaded."""
    swaps, clients = (6, 4) if small else (500, 8)
    path = str(embedded_model())
    flags = [path] * 3 + [part for name in NAMES for part in ("--alias", name)]
    waits: list[float] = []
    ends: Counter[str] = Counter()
    most = 0
    with Process([*flags, "--max-loaded", "1", "--ctx-size", "64", "--max-num-seqs", "2"]) as server:
        body = {"prompt": [5, 6, 7], "max_tokens": 3, "temperature": 0, "ignore_eos": True}
        want = server.ask("/v1/completions", {**body, "model": "a"}).json()["choices"][0]["text"]
        done = threading.Event()

        def counts() -> tuple[int, int, int]:
            """(loaded now, loads, unloads)"""
            found = {"loaded": 0, "loads_total": 0, "unloads_total": 0}
            for line in server.ask("/metrics").text.splitlines():
                for name in found:
                    if line.startswith(f"edgewise:model_{name}{{"):
                        found[name] += round(float(line.rpartition(" ")[2]))
            return found["loaded"], found["loads_total"], found["unloads_total"]

        def client(number: int) -> None:
            dice = np.random.default_rng((seed, number))
            while not done.is_set():
                name = str(dice.choice(NAMES))
                begin = time.monotonic()
                answer = server.ask("/v1/completions", {**body, "model": name}, timeout=300)
                waits.append(time.monotonic() - begin)
                fine = answer.status == 200 and answer.json()["model"] == name
                ends["right" if fine and answer.json()["choices"][0]["text"] == want else f"{answer.status}"] += 1

        with ThreadPoolExecutor(clients) as pool:
            tasks = [pool.submit(client, number) for number in range(clients)]
            progress, changed = -1, time.monotonic()
            while True:
                loaded, loads, unloads = counts()
                most = max(most, loaded)
                if loads != progress:
                    progress, changed = loads, time.monotonic()
                stuck = time.monotonic() - changed > 2 * BOUND_S
                if loads >= swaps or stuck:
                    break
                time.sleep(0.01)
            done.set()
            for task in tasks:
                task.result()
        loaded, loads, unloads = counts()
    wrong = sum(ends.values()) - ends["right"]
    double = int(most > 1 or 1 + loads - unloads != loaded)  # the first one was there from the start
    fails = wrong + double + stuck
    got = (
        f"{loads} loads for {sum(ends.values())} requests of {clients} clients, {wrong} wrong, "
        f"never more than {most} loaded, longest wait {max(waits):.1f} s, stuck: {stuck}"
    )
    return Found(sum(ends.values()), fails, got, fails == 0 and (small or max(waits) <= BOUND_S))
