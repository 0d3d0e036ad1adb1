"""CTranslate2 on what its converter made (int8), as a child process of the benchmark (see protocol.py).

It takes words and samples: words come from the model's own vocabulary, and steps are counted from its first token on.
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import ctranslate2
from protocol import random_ids, serve


class CTranslate2:
    def __init__(self, options: argparse.Namespace) -> None:
        self.words = json.loads((Path(options.model) / "vocabulary.json").read_text(encoding="utf-8"))
        self.generator = ctranslate2.Generator(
            options.model, device="cpu", compute_type="int8", intra_threads=options.threads, inter_threads=1
        )
        about = {"versions": {"ctranslate2": version("ctranslate2")}, "system": self.generator.compute_type}
        self.about = about

    def prefill(self, tokens: int, batch: int, seed: int) -> float:
        return self._generate(tokens, 1, 1, seed)[0]

    first = prefill

    def decode(self, tokens: int, batch: int, seed: int) -> float:
        return self._generate(1, tokens + 1, batch, seed)[1]

    def _generate(self, prompt: int, new: int, batch: int, seed: int) -> tuple[float, float]:
        """Seconds of the whole call, and from the last sequence's first token on."""
        vocab = len(self.words)
        rows = [[self.words[i] for i in random_ids(seed * 64 + row, prompt, vocab)] for row in range(batch)]
        first: list[float] = []

        def watch(step: ctranslate2.GenerationStepResult) -> bool:
            if step.step == 0:
                first.append(time.perf_counter())
            return False

        start = time.perf_counter()
        results = self.generator.generate_batch(
            rows, max_length=new, min_length=new, include_prompt_in_result=False, beam_size=1, sampling_topk=1,
            end_token=[self.words[-1]], callback=watch,
        )  # fmt: skip
        end = time.perf_counter()
        lengths = [len(result.sequences_ids[0]) for result in results]
        if lengths != [new] * batch:
            raise RuntimeError(f"asked for {batch} x {new} tokens, got {lengths}")
        return end - start, end - first[-1]


if __name__ == "__main__":
    serve(CTranslate2)
