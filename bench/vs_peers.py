"""edgewise beside llama.cpp, OpenVINO GenAI, onnxruntime-genai, CTranslate2 and transformers, interleaved in one run.

    python bench/vs_peers.py llama-3.2-1b -q q4_0                     # a fabricated shape, every peer
    python bench/vs_peers.py --gguf MODEL.gguf --hf FOLDER --peers llama.cpp,ctranslate2
    python bench/vs_peers.py --install                                # only prepares the environments
    python bench/vs_peers.py --render RUN.json --markdown --picture RUN.svg

Each peer lives in an environment of its own under build/, made once: llama.cpp compiled for this CPU (and driven by a
program in its own language), the others from wheels. Models are made once as well, under build/bench-models.

Runs go A B, B A, A B, ... with loading not timed and the one that waits stopped. Around every pair the machine is
probed: what two threads read (it changes by itself on shared machines), peak rates, the way from core to core. tok/s
are medians; a ratio is the median of the pairs' ratios, above 1 where edgewise is faster (for seconds: below 1).

What is counted: pp prefill of random tokens into an empty cache; tg decode from an empty cache, total of all sequences.
Engines that must sample decode greedily after a prompt of one token. GB/s: weight bytes of a step (a peer's own file,
where it has one) per second; OpenVINO converts at load time, so its are nominal. GOPS: two for each weight of the
blocks met by a token, in decoding also of the head; attention is not counted. Roof: read bandwidth around the pair, or
the peak rate of int8 (transformers: bfloat16), whichever is nearer; a model that fits the
caches can pass the former. Peak memory: of a process with one short prompt.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from edgewise.base.catalog import nearest
from edgewise.serve.machine import cpu_model
from race.children import Child, Failed
from race.peers import BUILD, MODELS, PEERS, Model, Peer, own
from race.picture import draw
from race.results import finish, speed_result, start_result
from race.roofs import Prober
from race.rounds import DEPTHS, curve, say, speeds, starts, times
from race.subjects import Subject, Trial, fabricated
from race.tables import text

PAST = 128  # cached tokens before a verify step: engines/protocol.py
KINDS = ("pp", "tg", "batch", "verify", "first")


class Race:
    """One model at one number of threads, edgewise against each peer in turn."""

    def __init__(self, subject: Subject, threads: int, options: argparse.Namespace) -> None:
        self.subject, self.threads, self.options = subject, threads, options
        self.probe = Prober(threads, BUILD / "bench-probe")
        self.model = Model(subject.gguf, subject.format, subject.step_bytes)
        self.tests = [
            test
            for kind, test in (
                ("pp", Trial("prefill", options.prompt)),
                ("tg", Trial("decode", options.decode)),
                ("batch", Trial("decode", options.decode, options.batch)),
            )
            if kind in options.tests and test.tokens
        ]
        self.title = f"{subject.name}, {threads} thread{'s' if threads > 1 else ''}"
        self.report: dict[str, Any] = {
            "title": self.title,
            "subject": subject.name,
            "architecture": subject.architecture,
            "format": subject.format,
            "file_bytes": subject.file_bytes,
            "threads": threads,
            "versions": {},
            "results": [],
            "verify": None,
            "failed": [],
        }

    def run(self, peers: Sequence[Peer], keep: Callable[[], None]) -> None:
        """keep: called after every peer, so that an interrupted run loses little."""
        try:
            ours = own(self.subject, self.arguments(self.options.batch), self.options.timeout)
        except Failed as error:
            self.fail("edgewise", error)
            keep()
            return
        with ours:
            self.report["versions"]["edgewise"] = ours.about["versions"]
            for peer in peers:
                print(f"{self.title}, {peer.name}", file=sys.stderr)
                try:
                    self.against(peer, ours)
                except Failed as error:
                    self.fail(peer.name, error)
                keep()
                if not ours.alive:
                    return
            if "verify" in self.options.tests and not self.report["verify"]:
                self.verify([ours])
                keep()

    def against(self, peer: Peer, ours: Child) -> None:
        python = peer.install()
        model = peer.model(python, self.subject)
        with peer.start(python, model, self.arguments(self.options.batch), self.options.timeout) as theirs:
            self.report["versions"][peer.name] = theirs.about["versions"]
            for test in self.tests:
                try:
                    pairs = speeds(ours, theirs, test, self.options.pairs, self.probe)
                    row = speed_result(self.subject, test, (self.model, model), peer.arithmetic, pairs)
                    self.report["results"].append({**row, "peer": peer.name})
                except Failed as error:
                    self.fail(f"{peer.name} {test.name}", error)
                    if not (ours.alive and theirs.alive):
                        return
            if "verify" in self.options.tests and peer.name == "llama.cpp":
                self.verify([ours, theirs])
        if "first" in self.options.tests:
            self.first(peer, python, model)

    def verify(self, children: list[Child]) -> None:
        try:
            rounds = curve(children, self.options.pairs, self.options.repeats, self.probe)
        except Failed as error:
            self.fail("verify", error)
            return
        engines = {child.name: times(rounds, child.name) for child in children}
        self.report["verify"] = {"past": PAST, "engines": engines, "rounds": rounds}

    def first(self, peer: Peer, python: Path, model: Model) -> None:
        tokens, timeout = self.options.first, self.options.timeout
        arguments = self.arguments(1)
        sides = partial(own, self.subject, arguments, timeout), partial(peer.start, python, model, arguments, timeout)
        try:
            pairs = starts(*sides, tokens, self.options.pairs, self.probe)
        except Failed as error:
            self.fail(f"{peer.name} first token", error)
            return
        self.report["results"].append({**start_result(tokens, (self.model, model), pairs), "peer": peer.name})

    def arguments(self, batch: int) -> list[str]:
        context = max(self.options.prompt, self.options.decode + 1, PAST + DEPTHS[-1])
        numbers = {"threads": self.threads, "context": context, "batch": batch, "vocab": self.subject.vocab}
        return [word for name, number in numbers.items() for word in (f"--{name}", str(number))]

    def fail(self, what: str, error: Failed) -> None:
        say(f"{what}: {error}")
        self.report["failed"].append({"what": what, "why": str(error)})


def main() -> None:
    options = read_options()
    run: dict[str, Any]
    if options.render:
        run = json.loads(options.render.read_text(encoding="utf-8"))
        finish(run, options.split)
    else:
        peers = [PEERS[name] for name in options.peers]
        if options.install:
            raise SystemExit(install(peers, options))
        run = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{cpu_model()}, {len(os.sched_getaffinity(0))} CPUs, {platform.system()} {platform.release()}",
            "pairs": options.pairs,
            "races": [],
        }
        for subject in subjects(options):
            for threads in options.threads:
                race = Race(subject, threads, options)
                run["races"].append(race.report)
                race.run(peers, partial(keep, run, options))
    if not run["races"]:
        raise SystemExit("Nothing was measured; the reasons are above.")
    if options.picture:
        try:
            draw(run, options.picture)
        except Failed as error:
            print(f"vs_peers: no picture: {error}", file=sys.stderr)
    print(json.dumps(run, indent=1) if options.json else text(run, options.markdown))


def keep(run: dict[str, Any], options: argparse.Namespace) -> None:
    finish(run, options.split)
    if options.save:
        options.save.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")


def install(peers: Sequence[Peer], options: argparse.Namespace) -> int:
    """Environments, and for the models that were named what each peer reads. Returns the exit code."""
    code = 0
    named = list(subjects(options))
    for peer in peers:
        try:
            python = peer.install()
            print(f"{peer.name}: installed")
            for subject in named:
                print(f"{peer.name}: {peer.model(python, subject).path.name} is ready")
        except Failed as error:
            print(f"{peer.name}: {error}")
            code = 1
    return code


def subjects(options: argparse.Namespace) -> list[Subject]:
    found = []
    if options.gguf:
        found.append(Subject(options.gguf.stem, options.gguf, options.hf))
    for shape in options.shapes:
        for quant in options.quant:
            try:
                found.append(fabricated(shape, quant, MODELS))
            except Failed as error:
                print(f"vs_peers: {error}", file=sys.stderr)
    return found


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cpus = len(os.sched_getaffinity(0))
    add = parser.add_argument
    add("shapes", nargs="*", metavar="SHAPE", help="to fabricate: llama-3.2-1b, qwen2.5-0.5b, olmoe-1b-7b, stories-15m")
    add("-q", "--quant", type=listed(), default=["q4_0"], help="formats of the fabricated GGUF files [q4_0]")
    add("--gguf", type=Path, help="a GGUF file instead")
    add("--hf", type=Path, help="the same model as a Hugging Face folder, for peers that convert from it")
    add("--peers", type=listed(tuple(PEERS)), default=list(PEERS), help=f"some of {','.join(PEERS)} [all]")
    add("--tests", type=listed(KINDS), default=list(KINDS), help=f"some of {','.join(KINDS)} [all]")
    add("-t", "--threads", type=listed(kind=int), default=[cpus], help="numbers of threads, one race each [all CPUs]")
    add("-p", "--prompt", type=int, default=512, help="tokens of the prefill [512]")
    add("-n", "--decode", type=int, default=128, help="steps of the decodes [128]")
    add("-b", "--batch", type=int, default=8, help="sequences of the batched decode [8]")
    add("--first", type=int, default=16, help="prompt of the time to the first token [16]")
    add("--repeats", type=int, default=4, help="steps of each point of the verify curve in a round [4]")
    add("--pairs", type=int, default=7, help="interleaved pairs of each test [7]")
    add("--split", type=float, metavar="GB/S", help="between slow and fast bandwidth state [found in the probes]")
    add("--quick", action="store_true", help="one pair of short runs: a check that everything works, no measurement")
    add("--timeout", type=float, default=600, help="seconds for one run or one load [600]")
    add("--install", action="store_true", help="only prepare environments, and the models that are named")
    add("--json", action="store_true", help="print the whole run as JSON")
    add("--markdown", action="store_true", help="print tables for a document")
    add("--picture", type=Path, metavar="FILE", help="bars as .svg, or with matplotlib .png")
    add("--save", type=Path, metavar="FILE", help="keep the run as JSON, written after every peer")
    add("--render", type=Path, metavar="FILE", help="measure nothing, show a run that was kept")
    options = parser.parse_args()
    if not (options.shapes or options.gguf or options.install or options.render):
        parser.error("name a SHAPE, or give --gguf FILE")
    if options.quick:
        options.pairs, options.repeats = 1, 1
        options.prompt, options.decode = min(options.prompt, 64), min(options.decode, 8)
    return options


def listed(known: Sequence[str] = (), kind: type = str) -> Any:
    """A parser of a,b,c that names the nearest known word."""

    def parse(words: str) -> list[Any]:
        found = [kind(word.strip()) for word in words.split(",") if word.strip()]
        for word in found:
            if known and word not in known:
                raise argparse.ArgumentTypeError(f"there is no '{word}'.{nearest(word, list(known))}")
        return found

    return parse


if __name__ == "__main__":
    main()
