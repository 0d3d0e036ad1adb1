"""The ledger adds up, books every request once, and `bench overheads` (measure_overheads) prints it."""

import json

import pytest

from edgewise.serve.asking import Asker
from edgewise.serve.benches.overheads import measure
from edgewise.serve.http.ledger import SPANS, Ledger, Spent
from edgewise.testing.soak.serving import serving, until


def test_a_ledger_adds_up():
    one = Ledger()
    one.arrived, one.tokenise, one.ordered, one.begun, one.streams = 10.0, 0.5, 12.0, 15.0, 1
    one.waited = Spent(1, 10, 1, 1), Spent(1.5, 12, 1, 1)  # others were computed for two of the three seconds it waited
    assert not one.whole
    first = one.told(20.0, Spent(2, 15.5, 1.25, 1.25))
    one.sent(19.0, 19.5)  # bytes of something before: they are not this piece's
    first.delivered = 20.5
    one.sent(20.75, 21.0)
    last = one.told(25.0, Spent(3, 19.5, 1.25, 1.25))
    assert not one.whole
    last.delivered = 25.0
    one.sent(25.0, 26.0)
    assert one.whole
    row, end = one.rows()
    want = dict(zip(SPANS, (1.5, 0.5, 3.0, 0.5, 3.5, 0.25, 0.25, 0.5, 0.25, 0.25), strict=True))
    assert row.spans == want
    assert (row.wall, row.queue_forward, row.besides) == (11.0, 2.0, 5.5)
    assert row.explained == pytest.approx(10.5 / 11)
    assert end.wall == 16.0
    assert end.spans["forward"] == 7.5


@pytest.mark.native
def test_every_request_is_booked_once_and_no_span_is_negative():
    with serving(ctx_size=128) as server, Asker() as asker:
        bodies = [
            {"prompt": "def f(", "max_tokens": at + 1, "stream": at != 2, "ignore_eos": True} for at in range(6)
        ]
        answers = asker.ask(server.port, "/v1/completions", bodies, 2)["answers"]
        assert [answer["status"] for answer in answers] == [200] * 6
        assert [answer["frames"] > 0 for answer in answers] == [at != 2 for at in range(6)]
        server.ask("/v1/completions", {"prompt": ["two", "prompts"], "max_tokens": 2})  # not one request: not booked
        server.ask("/v1/completions", {"prompt": "x", "max_tokens": 2, "n": 3})
        ledgers = server.model.tally.ledgers
        assert until(lambda: ledgers.count == 7)
        for first, end in ledgers.recent:
            assert min(*first.spans.values(), *end.spans.values()) >= -1e-6
            assert 0 < sum(first.spans.values()) <= first.wall + 1e-6
            assert first.wall <= end.wall
            assert 0 <= first.queue_forward <= first.spans["queue"]
        text = server.ask("/metrics").text
        assert all(f'edgewise:request_span_seconds_total{{model_name="base",span="{span}"}}' in text for span in SPANS)


@pytest.mark.native
def test_the_bench_says_shares_and_what_the_server_adds(capsys):
    found = measure(None, [1, 3], 1, 24, 2, 1, 1)
    assert [row["clients"] for row in found["rows"]] == [1, 3]
    assert [row["requests"] for row in found["rows"]] == [1, 3]
    for row in found["rows"]:
        assert set(row["first_token"]["shares"]) == set(SPANS)
        assert 0 < row["end"]["explained"] <= 1.001
    assert json.dumps(found)
    assert found["engine_ttft_ms"] > 0


@pytest.mark.native
def test_requests_become_spans_of_opentelemetry():
    trace = pytest.importorskip("opentelemetry.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    provider = pytest.importorskip("opentelemetry.sdk.trace").TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(memory))
    trace.set_tracer_provider(provider)
    with serving(ctx_size=64) as server:
        server.ask("/v1/completions", {"prompt": "x", "max_tokens": 2})
        assert until(lambda: len(memory.get_finished_spans()) == len(SPANS) + 1)
    *parts, whole = memory.get_finished_spans()
    assert [part.name for part in parts] == list(SPANS)
    assert whole.name == "request"
    assert {part.parent.span_id for part in parts} == {whole.context.span_id}
    assert whole.start_time <= parts[0].start_time
    assert parts[-1].end_time <= whole.end_time + 1000
