"""What pruning the drafts of `streaming` in the middle of a pass leaves of nodes, accepted tokens and time.

python bench/stream_pruning.py [MODEL] [--streams FILE] [--tokens 96] [--nodes 24] [--rounds 5] [--tasks code,prose]

An adapter reads the state below the top layers of the rows of a verifying pass and says how likely each child is; one
below the threshold goes, with all below it, and the top layers and the head compute the others only. Each round decodes
the same texts plainly, unpruned and with each threshold, by turns; every text must be the plain one.
"""

import argparse
import statistics

from edgewise.decode.speculators import SPECULATORS
from edgewise.decode.speculators.streaming import StreamingSpeculator
from edgewise.decode.verifiers import build_verifier
from edgewise.serve.llm import LLM
from edgewise.serve.watching import Watched, decode, interval, questions, targeted


def main() -> None:
    it = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    it.add_argument("model", nargs="?")
    it.add_argument("--streams", default="")
    it.add_argument("--tasks", default="code,prose")
    it.add_argument("--tokens", type=int, default=96)
    it.add_argument("--nodes", type=int, default=24)
    it.add_argument("--texts", type=int, default=2, help="of each task, one after the other")
    it.add_argument("--rounds", type=int, default=5)
    it.add_argument("--least", default="0.001,0.003,0.01,0.03,0.1", help="chances that nodes need")
    it.add_argument("--threads", type=int)
    args = it.parse_args()
    thresholds = [0.0, *map(float, args.least.split(","))]
    with LLM(args.model, threads=args.threads) as llm:
        engine, target = llm.parts.engine, targeted(llm, 1)
        pruning = [StreamingSpeculator(streams=args.streams, nodes=args.nodes, prune=least) for least in thresholds]
        members = [Watched(SPECULATORS.build("none")), *map(Watched, pruning)]
        verifier = build_verifier("auto", "some", engine.verifier.sampler)
        asked = [questions(llm, task, args.tokens, at) for task in args.tasks.split(",") for at in range(args.texts)]
        seconds: list[list[float]] = [[] for _ in members]
        want: list[list[list[int]]] = []
        for round_ in range(args.rounds + 1):  # the first is not counted: prompts are cached by it
            for member, took in zip(members, seconds, strict=True):
                member.ready(target)
                engine.draft_with(member, verifier)
                runs = [decode(engine, [one]) for one in asked]
                want = want or [got for got, _ in runs]
                assert want == [got for got, _ in runs], "a text differs from the plain one"
                if round_:
                    took.append(sum(spent for _, spent in runs))
    whole = members[1].hits
    print(f"{args.nodes} nodes, {args.tokens} tokens each of {len(asked)} texts, median of {args.rounds} rounds")
    print("threshold  tokens/pass  nodes pruned  accepted lost  beside unpruned (95 %)    beside plain")
    for least, one, member, took in zip(thresholds, pruning, members[1:], seconds[1:], strict=True):
        ratios = [slow / fast for slow, fast in zip(seconds[1], took, strict=True)]
        low, high = interval(ratios)
        plain = statistics.median(slow / fast for slow, fast in zip(seconds[0], took, strict=True))
        print(
            f"{least:9.4f}  {member.tokens_per_pass:11.3f}  {one.nodes_pruned / max(1, one.nodes_seen):12.1%}"
            f"  {1 - member.hits / whole:13.2%}  {statistics.median(ratios):8.3f}x ({low:.3f}-{high:.3f})"
            f"  {plain:9.3f}x"
        )


if __name__ == "__main__":
    main()
