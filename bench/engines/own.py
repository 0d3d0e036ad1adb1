"""edgewise as a child process of the benchmark (see protocol.py)."""

import argparse
import time

from protocol import PAST, random_ids, serve

from edgewise import LLM, SamplingParams, __version__
from edgewise.base import SeqId
from edgewise.engine.api import Work
from edgewise.serve.measure import Stepper


class Own:
    def __init__(self, options: argparse.Namespace) -> None:
        self.llm = LLM(
            options.model, threads=options.threads, ctx_size=options.context, max_num_seqs=options.batch,
            kv_cache_dtype="f16",
        )  # fmt: skip
        self.llm.settle()
        self.stepper = Stepper(self.llm.parts.engine)
        self.about = {"versions": {"edgewise": __version__}, "system": self.llm.parts.device.info.isa}

    def prefill(self, tokens: int, batch: int, seed: int) -> float:
        return self.stepper.prefill(tokens).seconds

    def decode(self, tokens: int, batch: int, seed: int) -> float:
        return self.stepper.decode(tokens, batch).seconds

    def verify(self, rows: int, repeats: int, seed: int) -> float:
        """Below the engine, as a speculator's drafts are checked: append, look at every row, forget."""
        kv, runner, seq = self.stepper.kv, self.stepper.runner, SeqId(-2)
        ids = random_ids(seed, PAST + rows, self.stepper.vocab)
        kv.open(seq, ())
        try:
            kv.reserve(seq, PAST)
            runner.step([Work(seq, ids[:PAST], 0, 1)])
            seconds = 0.0
            for _ in range(repeats):
                start = time.perf_counter()
                kv.reserve(seq, PAST + rows)
                runner.step([Work(seq, ids[PAST:], PAST, rows)])
                seconds += time.perf_counter() - start
                kv.rewind(seq, PAST)
            return seconds
        finally:
            kv.close(seq)

    def first(self, tokens: int, batch: int, seed: int) -> float:
        start = time.perf_counter()
        ids = random_ids(seed, tokens, self.stepper.vocab)
        self.llm.generate([ids], SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True))
        return time.perf_counter() - start


if __name__ == "__main__":
    serve(Own)
