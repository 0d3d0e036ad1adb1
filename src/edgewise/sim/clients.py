"""Plays a load in real time, from a process of its own, so that a busy engine cannot hold back those who ask."""

import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence

import numpy as np

from edgewise.base import Request, SamplingParams, WallClock
from edgewise.engine.loop import Engine
from edgewise.sim.load import Arrival
from edgewise.sim.play import Record, Watch, prompt_of

# Says when each request is due. CLOCK_MONOTONIC is one for all processes of a machine.
CLIENT = """
import json, os, sys, time
try:
    os.nice(-10)  # or it waits for its share of a busy core; only some may
except OSError:
    pass
times = json.loads(sys.stdin.readline())
begin = time.monotonic()
print(begin, flush=True)
for at in times:
    while (left := begin + at - time.monotonic()) > 0:
        time.sleep(left)
    print(time.monotonic(), flush=True)
"""


def play_live(
    engine: Engine, arrivals: Sequence[Arrival], seed: int = 0, together: bool = False
) -> tuple[list[Record], float]:
    """(records, P99 of how late the client was, in seconds). The engine must be idle."""
    clock = WallClock()
    prompts = [prompt_of(at, arrival, engine.vocab, seed) for at, arrival in enumerate(arrivals)]
    client = subprocess.Popen([sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(json.dumps([arrival.at_s for arrival in arrivals]) + "\n")
    client.stdin.flush()
    output, arrived, woken = client.stdout, deque[float](), threading.Event()
    begin = float(output.readline())

    def listen() -> None:
        for line in output:
            arrived.append(float(line))
            woken.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    watch, late, due = Watch(engine, arrivals, together), [], 0
    try:
        while due < len(arrivals) or engine.has_work():
            while arrived:
                sent = arrived.popleft()
                late.append(sent - begin - arrivals[due].at_s)
                params = SamplingParams(temperature=0.0, max_tokens=arrivals[due].output_tokens, ignore_eos=True)
                watch.enter(due)
                engine.add(Request(prompts[due], params, str(due), begin + arrivals[due].at_s))
                due += 1
            if engine.has_work():
                watch.saw(engine.step(), clock.now() - begin)
            else:
                woken.wait(1.0)
                woken.clear()
    finally:
        client.kill()
        client.wait()
        listener.join()
        output.close()
        client.stdin.close()
    return watch.records, float(np.percentile(late, 99))
