"""edgewise as a child process of bench/vs_llamacpp.py: a JSON command a line on stdin, an answer a line on stdout."""

import argparse
import json
import os
import sys

from edgewise import LLM, __version__
from edgewise.serve.measure import Stepper
from edgewise.serve.options import peak_rss_bytes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    options = parser.parse_args()
    out = os.fdopen(os.dup(1), "w")  # ours alone, as in the other child
    os.dup2(2, 1)
    llm = LLM(
        options.model, threads=options.threads, ctx_size=options.context, max_num_seqs=options.batch,
        kv_cache_dtype="f16",
    )  # fmt: skip
    stepper = Stepper(llm.parts.engine)
    about = {"ready": True, "version": __version__, "system": llm.parts.device.info.isa}
    print(json.dumps(about), file=out, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order["op"] == "prefill":
            timed = stepper.prefill(order["tokens"])
        else:
            timed = stepper.decode(order["tokens"], order["batch"])
        answer = {"seconds": timed.seconds, "peak_rss_bytes": peak_rss_bytes(), "logits_hash": timed.logits_hash}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
