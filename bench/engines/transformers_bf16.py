"""transformers in bfloat16, eager, as a child process of the benchmark (see protocol.py)."""

import argparse
import time
from importlib.metadata import version
from typing import Any

import torch
import transformers
from protocol import PAST, random_ids, serve


class Transformers:
    def __init__(self, options: argparse.Namespace) -> None:
        torch.set_num_threads(options.threads)
        torch.set_grad_enabled(False)
        self.vocab = options.vocab
        self.model = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16).eval()
        names = ("torch", "transformers")
        self.about = {
            "versions": {name: version(name) for name in names},
            "system": f"attention {self.model.config._attn_implementation}",
        }

    def prefill(self, tokens: int, batch: int, seed: int) -> float:
        ids = self._ids(tokens, 1, seed)
        start = time.perf_counter()
        self.model(ids, use_cache=True, logits_to_keep=1)
        return time.perf_counter() - start

    def first(self, tokens: int, batch: int, seed: int) -> float:
        start = time.perf_counter()
        out = self.model(self._ids(tokens, 1, seed), use_cache=True, logits_to_keep=1)
        out.logits[:, -1].argmax(-1).tolist()
        return time.perf_counter() - start

    def decode(self, tokens: int, batch: int, seed: int) -> float:
        out = self.model(self._ids(1, batch, seed), use_cache=True, logits_to_keep=1)
        start = time.perf_counter()
        for _ in range(tokens):
            ids = out.logits[:, -1:].argmax(-1)
            out = self.model(ids, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
        return time.perf_counter() - start

    def verify(self, rows: int, repeats: int, seed: int) -> float:
        ids = self._ids(PAST + rows, 1, seed)
        cache = self.model(ids[:, :PAST], use_cache=True, logits_to_keep=1).past_key_values
        seconds = 0.0
        for _ in range(repeats):
            start = time.perf_counter()
            self.model(ids[:, PAST:], past_key_values=cache, use_cache=True)
            seconds += time.perf_counter() - start
            cache.crop(PAST - cache.get_seq_length())  # negative: that many of the newest are dropped
        return seconds

    def _ids(self, tokens: int, batch: int, seed: int) -> Any:
        return torch.tensor([random_ids(seed * 64 + i, tokens, self.vocab) for i in range(batch)])


if __name__ == "__main__":
    serve(Transformers)
