"""OpenVINO GenAI on a GGUF file, through its own reader, as a child process of the benchmark (see protocol.py).

Every call gets a prompt it has not seen: the default (paged attention) backend keeps the prefixes of earlier ones and
would answer from them. It must sample, so its decode begins after a prompt of one token.
"""

import argparse
import itertools
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import openvino
import openvino_genai
from protocol import random_ids, serve


class OpenVino:
    def __init__(self, options: argparse.Namespace) -> None:
        self.vocab = options.vocab
        self.fresh = itertools.count(1)
        self.pipe = openvino_genai.LLMPipeline(options.model, "CPU", INFERENCE_NUM_THREADS=options.threads)
        names = ("openvino", "openvino-genai")
        self.about = {"versions": {name: version(name) for name in names}}

    def prefill(self, tokens: int, batch: int, seed: int) -> float:
        return self._generate(tokens, 1, 1)[0]

    first = prefill

    def decode(self, tokens: int, batch: int, seed: int) -> float:
        whole, metrics = self._generate(1, tokens + 1, batch)
        return whole - float(metrics.get_ttft().mean) / 1e3  # milliseconds

    def _generate(self, prompt: int, new: int, batch: int) -> tuple[float, Any]:
        ids = np.array([random_ids(next(self.fresh), prompt, self.vocab) for _ in range(batch)], np.int64)
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new
        config.ignore_eos, config.do_sample = True, False
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        start = time.perf_counter()
        result = self.pipe.generate(inputs, config)
        seconds = time.perf_counter() - start
        lengths = [len(tokens) for tokens in result.tokens]
        if lengths != [new] * batch:
            raise RuntimeError(f"asked for {batch} x {new} tokens, got {lengths}")
        return seconds, result.perf_metrics


if __name__ == "__main__":
    serve(OpenVino)
