"""One sample of one request on its way through the loop. Everything here but the KV follows from its tokens."""

from collections.abc import Sequence

from edgewise.base import Request, SeqId
from edgewise.decode.api import LogitsRule, SeqView
from edgewise.engine.api import Job


class Sample:
    """tokens: prompt and output, growing. cached: how many of them the KV holds. target: how many must be there before
    the next can be drawn. followers: samples of the same prompt that will fork this one's KV when it is complete."""

    __slots__ = (
        "_job",
        "arrival_s",
        "begun",
        "cached",
        "deadline_s",
        "followers",
        "index",
        "key",
        "limit",
        "logprobs",
        "priority",
        "promotions",
        "prompt",
        "request_id",
        "reused",
        "rules",
        "running",
        "seq",
        "served_s",
        "since_s",
        "stops",
        "swapped",
        "target",
        "tokens",
        "view",
    )  # fmt: skip

    def __init__(
        self,
        seq: SeqId,
        request: Request,
        request_id: str,
        index: int,
        seed: int,
        arrival_s: float,
        rules: Sequence[LogitsRule],
        stops: dict[int, int | None],
        limit: int,
    ) -> None:
        self.seq = seq
        self.request_id = request_id
        self.index = index
        self.arrival_s = arrival_s
        self.tokens = list(request.tokens)
        self.prompt = len(self.tokens)
        self.view = SeqView(seq, self.tokens, self.prompt, request.params, seed, stops.keys())
        self.rules = rules
        self.stops = stops  # token that ends the text → stop_reason
        self.limit = limit  # tokens in all
        self.logprobs = request.params.logprobs
        self.begun = False  # some of it was computed
        self.cached = 0
        self.target = self.prompt
        self.running = False
        self.followers: list[Sample] = []
        self.priority = int(request.extra.get("priority", 0))
        self.key = str(request.extra.get("key", ""))
        timeout = request.extra.get("timeout_s")
        self.deadline_s = None if timeout is None else arrival_s + float(timeout)
        self.served_s = 0.0  # since it arrived or was promoted
        self.since_s = arrival_s
        self.promotions = 0
        self.reused = 0  # tokens of the prompt that were in the cache when it was first admitted
        self.swapped = 0  # tokens in the swap file
        self._job: Job | None = None

    def job(self) -> Job:
        """What a policy sees. Most do not change from step to step, and thousands may wait: made when they do."""
        job = self._job
        if (
            job is None
            or job.prefilled != self.cached
            or job.since_s != self.since_s
            or job.running is not self.running
            or job.promotions != self.promotions
            or job.swapped != self.swapped
            or job.prompt_tokens != self.target
        ):
            generated = len(self.tokens) - self.prompt
            self._job = job = Job(
                self.seq, self.arrival_s, self.target, self.cached, generated, self.running, self.priority, self.key,
                self.limit - len(self.tokens), self.served_s, self.since_s, self.promotions, self.swapped,
            )
        return job
