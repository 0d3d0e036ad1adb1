"""What a model's server has done, as Prometheus text under vLLM's names (so that existing dashboards work)."""

import bisect
from collections import Counter
from collections.abc import Iterator, Sequence

from edgewise.serve.http.ledger import Ledgers

SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
           160.0, 640.0, 2560.0)  # fmt: skip
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000)


class Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def saw(self, value: float, times: int = 1) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def lines(self, name: str, label: str) -> Iterator[str]:
        total = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            edge = "+Inf" if bound == float("inf") else f"{float(bound):g}"
            yield f'{name}_bucket{{{label},le="{edge}"}} {total}'
        yield f"{name}_sum{{{label}}} {self.sum:.9g}"
        yield f"{name}_count{{{label}}} {total}"


class Tally:
    """Written by the engine's thread, read by the other: numbers that only grow, so a reader is at most a step late."""

    def __init__(self) -> None:
        self.prompt_tokens = self.generation_tokens = 0
        self.passes = self.drafted = self.accepted = 0
        self.finished: Counter[str] = Counter()
        self.ledgers = Ledgers()
        self.histograms = {
            "vllm:time_to_first_token_seconds": ("From arrival to the first token.", Histogram(SECONDS)),
            "vllm:inter_token_latency_seconds": ("Between two tokens of a sequence.", Histogram(SECONDS)),
            "vllm:e2e_request_latency_seconds": ("From arrival to the last token.", Histogram(SECONDS)),
            "vllm:request_prompt_tokens": ("Prompt tokens of finished requests.", Histogram(TOKENS)),
            "vllm:request_generation_tokens": ("Generated tokens of finished requests.", Histogram(TOKENS)),
        }

    def first(self, seconds: float, prompt_tokens: int) -> None:
        self.histograms["vllm:time_to_first_token_seconds"][1].saw(seconds)
        self.prompt_tokens += prompt_tokens

    def more(self, seconds: float, tokens: int, later: bool) -> None:
        self.generation_tokens += tokens
        if later and tokens:
            self.histograms["vllm:inter_token_latency_seconds"][1].saw(seconds / tokens, tokens)

    def drafts(self, drafted: int, accepted: int) -> None:
        """One sample's part of a step that gave it tokens."""
        self.passes += drafted > 0
        self.drafted += drafted
        self.accepted += accepted

    def ended(self, reason: str) -> None:
        self.finished[reason] += 1

    def whole(self, seconds: float, prompt_tokens: int, generated: int) -> None:
        self.histograms["vllm:e2e_request_latency_seconds"][1].saw(seconds)
        self.histograms["vllm:request_prompt_tokens"][1].saw(prompt_tokens)
        self.histograms["vllm:request_generation_tokens"][1].saw(generated)


def gauge(name: str, help_: str, kind: str, rows: Sequence[tuple[str, float]]) -> list[str]:
    """rows: (labels, value)."""
    return [f"# HELP {name} {help_}", f"# TYPE {name} {kind}", *(f"{name}{{{at}}} {value:g}" for at, value in rows)]


def label(model: str, **more: str) -> str:
    def quoted(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return ",".join(f'{key}="{quoted(value)}"' for key, value in {"model_name": model, **more}.items())
