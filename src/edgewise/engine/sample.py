"""One sample of one request on its way through the loop. Everything here but the KV follows from its tokens."""

from collections.abc import Sequence

from edgewise.base import Request, SeqId
from edgewise.decode.api import LogitsRule, SeqView
from edgewise.engine.api import Job


class Sample:
    """tokens: prompt and output, growing. cached: how many of them the KV holds. target: how many must be there before
    the next can be drawn. followers: samples of the same prompt that will fork this one's KV when it is complete."""

    __slots__ = (
        "_waiting", "arrival_s", "cached", "followers", "index", "limit", "logprobs", "prompt", "request_id", "rules",
        "running", "seq", "stops", "target", "tokens", "view",
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
        self.view = SeqView(seq, self.tokens, self.prompt, request.params, seed)
        self.rules = rules
        self.stops = stops  # token that ends the text → stop_reason
        self.limit = limit  # tokens in all
        self.logprobs = request.params.logprobs
        self.cached = 0
        self.target = self.prompt
        self.running = False
        self.followers: list[Sample] = []
        self._waiting: Job | None = None

    def job(self) -> Job:
        """What a policy sees. Whoever waits does not change, and thousands may: their jobs are made once."""
        if self._waiting is None or self.running:
            generated = len(self.tokens) - self.prompt
            job = Job(self.seq, self.arrival_s, self.target, self.cached, generated, self.running)
            self._waiting = None if self.running else job
            return job
        return self._waiting
