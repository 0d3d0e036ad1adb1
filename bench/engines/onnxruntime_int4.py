"""onnxruntime-genai on what its model builder made (int4), as a child process of the benchmark (see protocol.py)."""

import argparse
import json
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import onnxruntime_genai as og
from protocol import random_ids, serve


class OnnxRuntime:
    def __init__(self, options: argparse.Namespace) -> None:
        self.vocab, self.context = options.vocab, options.context + 8
        config = og.Config(options.model)
        session = {"intra_op_num_threads": options.threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
        self.model = og.Model(config)
        names = ("onnxruntime", "onnxruntime-genai")
        self.about = {"versions": {name: version(name) for name in names}}

    def prefill(self, tokens: int, batch: int, seed: int) -> float:
        generator = self._generator(1)
        ids = self._ids(tokens, 1, seed)
        start = time.perf_counter()
        generator.append_tokens(ids)
        generator.get_logits()
        return time.perf_counter() - start

    def first(self, tokens: int, batch: int, seed: int) -> float:
        generator = self._generator(1)
        start = time.perf_counter()
        generator.append_tokens(self._ids(tokens, 1, seed))
        generator.generate_next_token()
        return time.perf_counter() - start

    def decode(self, tokens: int, batch: int, seed: int) -> float:
        generator = self._generator(batch)
        generator.append_tokens(self._ids(1, batch, seed))
        generator.generate_next_token()
        start = time.perf_counter()
        for _ in range(tokens):
            generator.generate_next_token()
        return time.perf_counter() - start

    def _generator(self, batch: int) -> Any:
        params = og.GeneratorParams(self.model)
        params.set_search_options(
            max_length=self.context, min_length=self.context, do_sample=False, batch_size=batch
        )  # fmt: skip
        return og.Generator(self.model, params)

    def _ids(self, tokens: int, batch: int, seed: int) -> Any:
        rows = [random_ids(seed * 64 + i, tokens, self.vocab) for i in range(batch)]
        return np.array(rows, np.int32) if batch > 1 else rows[0]


if __name__ == "__main__":
    serve(OnnxRuntime)
