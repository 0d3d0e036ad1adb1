"""trace routing, replay, bench memory: a short run of each on a tiny mixture of experts."""

import json

import pytest

from edgewise.serve import capping
from edgewise.serve.benches import memory
from edgewise.serve.cli import main
from edgewise.testing.tiny import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model("olmoe", tmp_path_factory.mktemp("memory") / "olmoe")


def test_a_trace_replays(model, tmp_path, capsys) -> None:
    out, svg = tmp_path / "trace.jsonl", tmp_path / "rates.svg"
    assert main(["trace", "routing", str(model), "-o", str(out), "-n", "8"]) == 0
    head, *tokens = map(json.loads, out.read_text().splitlines())
    assert (head["experts"], head["layers"], head["chosen"]) == (5, 2, 2)
    assert len(tokens) == 15  # the last one written is not read
    assert all(set(token["layers"]) == {"0", "1"} for token in tokens)
    capsys.readouterr()
    assert main(["replay", str(out), "--svg", str(svg), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(row["lru"] <= row["belady"] for row in found["rows"])
    assert 0 < found["entropy_bits"] <= found["most_bits"]
    assert found["guesses"]["chance"] == 0.4
    assert all(0 <= found["guesses"][name] <= 1 for name in ("lookahead", "shuffled", "previous"))
    assert all(len(token["layers"]["0"]) == 4 and len(token["layers"]["1"]) == 3 for token in tokens)
    assert svg.read_text().startswith("<svg")
    assert main(["replay", str(out)]) == 0
    assert "belady" in capsys.readouterr().out
    out.write_text("{}\n")
    assert main(["replay", str(out)]) == 2
    assert "is no trace of routing" in capsys.readouterr().err


def test_the_bench_compares_texts_and_medians(monkeypatch, model, tmp_path, capsys) -> None:
    asked = []

    def run(path, name, budget, tokens, context, threads, source, inside):
        asked.append(name)
        one = {"token_ids": [1, 2], "prompt_tokens": 2, "completion_tokens": 2, "tok_s": 3.0, "ttft_s": 0.5}
        more = {"peak_bytes": 9, "predicted_tok_s": 4.0, "hit_rate": 0.5, "bytes_read": 40, "slots": 7}
        more["io_wait_s"] = 0.4
        return {**one, "peak_rss_bytes": 10, **({} if name == "all" else {"memory": more})}

    monkeypatch.setattr(memory, "run", run)
    monkeypatch.setattr(capping, "GROUPS", tmp_path / "nowhere")
    words = ["bench", "memory", str(model), "--ram-budget", "1GiB", "--pairs", "2", "--members", "all,lru+none"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert asked == ["all", "lru+none"] * 2
    assert found["one_text"]
    assert not found["enforced"]
    assert found["rows"][1]["bytes_token"] == 10
    assert found["rows"][1]["wait_token_s"] == 0.1
    assert main(words) == 0
    assert "the same text in all runs" in capsys.readouterr().out


def test_run_says_what_it_predicts_and_what_it_saw(model, capsys) -> None:
    words = ["run", str(model), "hello", "--raw", "--temp", "0", "-n", "4", "-c", "64", "--ignore-eos"]
    assert main([*words, "--ram-budget", "8GiB"]) == 0
    said = capsys.readouterr().err
    assert "room for 10 of 10 bundles" in said
    assert "predicted" in said
    assert main([*words, "--ram-budget", "8GiB", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["memory"]["peak_bytes"] < 8 << 30
    assert main([*words, "--ram-budget", "1MiB"]) == 2
    assert "The smallest budget that works is" in capsys.readouterr().err


def test_a_trace_of_nothing_is_refused(model, tmp_path, capsys, monkeypatch) -> None:
    def fails(self, batch):
        raise RuntimeError("out of order")

    monkeypatch.setattr("edgewise.serve.commands.trace._Watch.run", fails)
    assert main(["trace", "routing", str(model), "-o", str(tmp_path / "trace.jsonl"), "-n", "8"]) != 0
    assert not (tmp_path / "trace.jsonl").exists()
    assert "no routing to trace" in capsys.readouterr().err


def test_plan_says_where_memory_goes_and_how_fast_budgets_are(model, tmp_path, capsys) -> None:
    trace = tmp_path / "trace.jsonl"
    assert main(["trace", "routing", str(model), "-o", str(trace), "-n", "8"]) == 0
    capsys.readouterr()
    words = ["plan", str(model), "-c", "64", "--ram-budget", "8GiB"]
    assert main([*words, "--json", "--trace", str(trace)]) == 0
    found = json.loads(capsys.readouterr().out)
    rates = [row["tok_s"] for row in found["rows"]]
    assert rates == sorted(rates)
    assert found["rows"][-1]["slots"] == 10
    assert found["memory"]["smallest_bytes"] == found["rows"][0]["budget_bytes"] < 8 << 30
    assert found["entropy_bits"] > 0
    assert main(words) == 0
    assert "tok/s predicted" in capsys.readouterr().out
    trace.write_text(trace.read_text().replace('"experts": 5', '"experts": 6'))
    assert main([*words, "--trace", str(trace)]) == 2
    assert "Trace this model" in capsys.readouterr().err
    assert main([*words[:-1], "1MiB"]) == 2
    assert "The smallest budget that works is" in capsys.readouterr().err


def test_a_ring_of_layers_gives_the_same_logits(tmp_path, capsys) -> None:
    dense = tiny_model("llama", tmp_path / "llama")
    words = ["bench", "layers", str(dense), "--k", "1,2", "--rows", "4", "--pairs", "2"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["equal"]
    assert [row["k"] for row in found["rows"]] == [1, 2]
    assert all(row["slots_bytes"] >= row["share_bytes"] for row in found["rows"])
    assert main(words) == 0
    assert "the same states in all" in capsys.readouterr().out
    assert main([*words[:4], "99"]) == 2
    assert "--k must be between" in capsys.readouterr().err


def test_doctor_says_how_weights_would_be_read(monkeypatch, tmp_path, capsys) -> None:
    from edgewise.serve.commands import doctor

    monkeypatch.setattr(doctor, "PROBE_BYTES", 24 << 20)
    found = doctor._reading(tmp_path)
    assert found["source"] in ("file", "uring", "cached")
    assert "GB/s" in found["source_why"]
    assert not list(tmp_path.iterdir())
    assert doctor._reading(tmp_path / "nowhere")["source"] is None


def test_offloading_gives_the_same_logits_whoever_stays(model, capsys) -> None:
    words = ["bench", "offload", str(model), "--share", "0.5", "-n", "4", "--pairs", "2", "--source", "file"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["equal"]
    assert found["slots"] == 5
    rates = {row["name"]: row["hit_rate"] for row in found["rows"]}
    assert rates["all"] == 1.0
    assert rates["none+none"] < rates["lru+none"] < 1.0
    assert main(words) == 0
    assert "the same logits in all" in capsys.readouterr().out
