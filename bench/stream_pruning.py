"""How many nodes of a streaming draft an early exit would prune, and how many accepted tokens that would cost.

python bench/stream_pruning.py [MODEL] [--streams FILE] [--tokens 256] [--nodes 24]

The adapter reads the state below the top layers of every row of the verifying pass and says how likely each child is; a
child below the threshold goes, with all below it. Counted beside the real passes, with the real states: the pass
itself still computes all nodes, so these are nodes and tokens, not seconds.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.decode.api import Accepted, Draft, SeqView, Spent, Target
from edgewise.decode.drafting_weights import beside, read_tensors
from edgewise.decode.speculators.streaming import StreamingSpeculator
from edgewise.decode.verifiers import build_verifier
from edgewise.serve.benches.speculation import decode, questions
from edgewise.serve.llm import LLM

THRESHOLDS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.3)


class Pruning(StreamingSpeculator):
    """Counts, for each threshold, nodes that are left and accepted tokens that are left."""

    def count_for(self, down: Any, up: Any) -> None:
        self.down, self.up_ = down, up
        self.nodes_left, self.hits_left = np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
        self.passes = 0
        self.last: dict[int, Draft] = {}

    def propose(self, seqs: Sequence[SeqView], budget: int) -> Sequence[Draft]:
        drafts = super().propose(seqs, budget)
        self.last = {view.seq: draft for view, draft in zip(seqs, drafts, strict=True) if draft.tokens}
        return drafts

    def accepted(self, outcomes: Sequence[Accepted], spent: Spent) -> None:
        for outcome in outcomes:
            draft = self.last.pop(outcome.seq, None)
            if draft is not None and spent.states is not None:
                first = outcome.state - outcome.logits_rows[-1]
                x = self._device.download(spent.states)[first : first + 1 + len(draft.tokens)]
                if len(x) != 1 + len(draft.tokens):  # the end of a text, or no room: the tree was cut
                    continue
                early = self._model.states(self._device.upload(x + x @ self.down.T @ self.up_.T))
                logits = self._device.download(self._model.logits(early))
                odds = np.exp(logits - logits.max(1, keepdims=True))
                odds /= odds.sum(1, keepdims=True)
                self.passes += 1
                for at, least in enumerate(THRESHOLDS):
                    kept = np.zeros(len(draft.tokens), bool)
                    for node, (token, parent) in enumerate(zip(draft.tokens, draft.parents, strict=True)):
                        kept[node] = (parent < 0 or kept[parent]) and odds[parent + 1, token] >= least
                    self.nodes_left[at] += kept.sum()
                    self.hits_left[at] += sum(kept[node] for node in outcome.nodes)
        super().accepted(outcomes, spent)


def main() -> None:
    it = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    it.add_argument("model", nargs="?")
    it.add_argument("--streams", default="")
    it.add_argument("--tokens", type=int, default=256)
    it.add_argument("--nodes", type=int, default=24)
    it.add_argument("--threads", type=int)
    args = it.parse_args()
    with LLM(args.model, threads=args.threads) as llm:
        parts = llm.parts
        member = Pruning(streams=args.streams, nodes=args.nodes)
        member.prepare(Target(parts.header, parts.spec, parts.device, parts.context, 1, False, lambda header: None))
        tensors = read_tensors(Path(args.streams) if args.streams else beside(parts.header, "streaming"))[1]
        member.count_for(tensors["early_down"], tensors["early_up"])
        parts.engine.draft_with(member, build_verifier("auto", "some", parts.engine.verifier.sampler))
        for task in ("code", "prose"):
            for at in range(4):
                decode(parts.engine, [questions(llm, task, args.tokens, at)])
    print(f"{member.passes} passes of {args.nodes} nodes: {1 + member.hits_left[0] / member.passes:.3f} tokens a pass")
    print("threshold  nodes pruned  accepted tokens lost")
    for at, least in enumerate(THRESHOLDS):
        nodes, hits = member.nodes_left[at] / member.nodes_left[0], member.hits_left[at] / member.hits_left[0]
        print(f"{least:9.4f}  {1 - nodes:12.1%}  {1 - hits:20.2%}")


if __name__ == "__main__":
    main()
