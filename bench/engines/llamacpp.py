"""llama.cpp as a child process: one JSON command a line on stdin, one JSON answer a line on stdout.

Runs inside bench/vs_llamacpp.py's own environment; imports nothing of edgewise. Counts as llama-bench does: random
tokens, an empty cache, llama_decode and llama_synchronize, no sampling, n_batch = n_ubatch = 512.
"""

import argparse
import ctypes
import json
import os
import resource
import sys
import time

import llama_cpp as ll


class Session:
    def __init__(self, options: argparse.Namespace) -> None:
        ll.llama_backend_init()
        model_params = ll.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self.model = ll.llama_model_load_from_file(os.fsencode(options.model), model_params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {options.model}")
        params = ll.llama_context_default_params()
        params.n_ctx = options.context
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = options.threads
        params.n_seq_max = options.batch
        if hasattr(params, "kv_unified"):
            params.kv_unified = True
        self.context = ll.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit("llama.cpp cannot make a context")
        self.vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.model))
        self.batch = ll.llama_batch_init(512, 0, options.batch)

    def prefill(self, tokens: int, batch: int) -> float:
        self._clear()
        return self._single(random_ids(0, tokens, self.vocab), 512)

    def decode(self, tokens: int, batch: int) -> float:
        self._clear()
        ids = [random_ids(seq, tokens, self.vocab) for seq in range(batch)]
        if batch == 1:
            return self._single(ids[0], 1)
        start = time.perf_counter()
        for past in range(tokens):
            self._step([(ids[seq][past], past, seq, True) for seq in range(batch)])
        return time.perf_counter() - start

    def _single(self, ids: list[int], size: int) -> float:
        """One sequence, `size` tokens a call: llama.cpp's own shortest way, with the arrays made beforehand."""
        chunks = [ids[at : at + size] for at in range(0, len(ids), size)]
        arrays = [(ll.llama_token * len(chunk))(*chunk) for chunk in chunks]  # a batch only points at its array
        batches = [ll.llama_batch_get_one(array, len(array)) for array in arrays]
        start = time.perf_counter()
        for batch in batches:
            self._check(ll.llama_decode(self.context, batch))
            ll.llama_synchronize(self.context)
        return time.perf_counter() - start

    def _clear(self) -> None:
        ll.llama_memory_clear(ll.llama_get_memory(self.context), True)

    def _step(self, rows: list[tuple[int, int, int, bool]]) -> None:
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = wanted
        self._check(ll.llama_decode(self.context, batch))
        ll.llama_synchronize(self.context)

    @staticmethod
    def _check(code: int) -> None:
        if code:
            raise SystemExit(f"llama_decode failed with {code}")


def random_ids(seed: int, count: int, vocab: int) -> list[int]:
    """A linear congruential generator: reproducible, and the same everywhere without numpy."""
    state, ids = seed * 7919 + 1, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append((state >> 33) % vocab)
    return ids


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    options = parser.parse_args()
    out = os.fdopen(os.dup(1), "w")  # ours alone: the library may print to file descriptor 1
    os.dup2(2, 1)
    silent = ll.llama_log_callback(lambda *_: None) if not os.environ.get("EDGEWISE_DEBUG") else None
    if silent:
        ll.llama_log_set(silent, ctypes.c_void_p(0))
    session = Session(options)
    system = ll.llama_print_system_info().decode().strip()
    print(json.dumps({"ready": True, "version": ll.__version__, "system": system}), file=out, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        seconds = getattr(session, order["op"])(order["tokens"], order["batch"])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "peak_rss_bytes": peak}), file=out, flush=True)


if __name__ == "__main__":
    main()
