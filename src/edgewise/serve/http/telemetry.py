"""Finished requests as OpenTelemetry spans, where its API is installed (`pip install edgewise[telemetry]`).

Who exports them, and where to, is set up from outside, as for every program: `opentelemetry-instrument edgewise serve`,
or a TracerProvider of one's own. A request's span has one child for each entry of its ledger, laid end to end: those of
the engine's thread are sums over the steps it took part in.
"""

import time
from collections.abc import Callable

from edgewise.serve.http.ledger import Ledger


def exporter() -> Callable[[Ledger], None] | None:
    """Takes whole ledgers; None when there is no OpenTelemetry."""
    try:
        from opentelemetry import trace
    except ModuleNotFoundError:
        return None
    tracer = trace.get_tracer("edgewise")

    def export(ledger: Ledger) -> None:
        epoch = time.time() - time.perf_counter()

        def ns(at: float) -> int:
            return int((epoch + at) * 1e9)

        first, end = ledger.rows()
        facts = {"gen_ai.operation.name": "text_completion", "gen_ai.server.time_to_first_token": first.wall}
        whole = tracer.start_span("request", start_time=ns(ledger.arrived), attributes=facts)
        inside, at = trace.set_span_in_context(whole), ledger.arrived
        for name, seconds in end.spans.items():
            part = tracer.start_span(name, context=inside, start_time=ns(at))
            at += seconds
            part.end(end_time=ns(at))
        whole.end(end_time=ns(ledger.arrived + end.wall))

    return export
