"""The other verbs: show, ls, rm, pull, bench, score, doctor, systems, members."""

import json
import math

import numpy as np
import pytest

from edgewise import LLM
from edgewise.decode.scoring import log_softmax, windows
from edgewise.serve import hub

BENCH_KEYS = [
    "test", "model", "format", "threads", "batch", "runs", "tok_s", "tok_s_min", "tok_s_max", "gb_s", "roof_share",
    "peak_rss_bytes", "logits_hash",
]  # fmt: skip


def as_json(ran):
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_show(cli, chatty, plain):
    facts = as_json(cli("show", chatty, "--json"))
    assert facts["architecture"] == "llama"
    assert facts["layers"] == 2
    assert facts["runs"] is True
    assert facts["chat_template"] is True
    assert as_json(cli("show", plain, "--json"))["chat_template"] is False
    assert sum(row["bytes"] for row in facts["formats"].values()) == facts["bytes"]
    assert facts["memory"]["total_bytes"] > facts["bytes"]
    short = as_json(cli("show", plain, "--json", "-c", 64))
    assert short["memory"]["kv_bytes"] * 8 == facts["memory"]["kv_bytes"]
    assert "llama" in cli("show", plain).out


@pytest.fixture
def bandwidth(monkeypatch):
    """A machine that reads 10 GB/s, so that the probe costs no time."""
    from edgewise.serve.benches import speed

    monkeypatch.setattr(speed, "read_bandwidth", lambda threads: 10.0)


@pytest.mark.usefixtures("bandwidth")
def test_bench_prints_the_promised_list(cli, plain):
    rows = as_json(cli("bench", plain, "-p", 12, "-n", 6, "-r", 2, "-t", 1, "-b", 2, "--json"))
    assert [row["test"] for row in rows] == ["pp12", "tg6"]
    for row in rows:
        assert list(row) == BENCH_KEYS
        assert row["tok_s_min"] <= row["tok_s"] <= row["tok_s_max"]
        assert row["roof_share"] == pytest.approx(row["gb_s"] / 10.0)
        assert row["runs"] == 2
        assert row["format"] == "F32"
    assert (rows[0]["batch"], rows[1]["batch"]) == (1, 2)


@pytest.mark.usefixtures("bandwidth")
def test_bench_skips_and_tables(cli, plain):
    assert [row["test"] for row in as_json(cli("bench", plain, "-p", 0, "-n", 4, "-r", 1, "--json"))] == ["tg4"]
    assert [row["test"] for row in as_json(cli("bench", plain, "-p", 4, "-n", 0, "-r", 1, "--json"))] == ["pp4"]
    out = cli("bench", plain, "-p", 4, "-n", 4, "-r", 1).out
    assert "tok/s" in out
    assert "pp4" in out
    assert cli("bench", plain, "-p", 0, "-n", 0).code == 2


@pytest.mark.usefixtures("bandwidth")
def test_bench_bits_do_not_depend_on_the_batch(cli, plain):
    hashes = {
        row["logits_hash"]
        for batch in (1, 3)
        for row in as_json(cli("bench", plain, "-p", 0, "-n", 5, "-r", 1, "-b", batch, "--json"))
    }
    assert len(hashes) == 1


@pytest.mark.usefixtures("bandwidth")
def test_bench_takes_the_name_of_a_bench_before_its_arguments(cli, plain):
    """Without a name it is the first of BENCHES."""
    named = as_json(cli("bench", "speed", plain, "-p", 0, "-n", 4, "-r", 1, "--json"))
    unnamed = as_json(cli("bench", plain, "-p", 0, "-n", 4, "-r", 1, "--json"))
    assert named[0]["logits_hash"] == unnamed[0]["logits_hash"]
    assert "edgewise bench speed" in cli("bench", "--help").out
    assert cli("bench", "spede", "-r", 1).code == 2


def test_score_is_the_mean_of_what_the_logits_say(cli, plain, tmp_path):
    text = "The quick brown fox jumps over the lazy dog. " * 3
    file = tmp_path / "text.txt"
    file.write_text(text)
    facts = as_json(cli("score", plain, "--text", file, "-c", 200, "--json"))
    with LLM(plain, device="reference") as llm:
        tokens = llm.tokenize(text)
        logits = llm.logits([1, *tokens])
    logp = log_softmax(logits)
    nats = [-logp[1 + i, token] for i, token in enumerate(tokens[1:])]  # the first token is not predicted
    assert facts["tokens"] == len(nats)
    assert facts["perplexity"] == pytest.approx(math.exp(np.mean(nats)), rel=1e-6)
    assert facts["bits_per_byte"] == pytest.approx(np.sum(nats) / math.log(2) / len(text[1:]), rel=1e-6)


def test_score_windows_count_every_token_once():
    for tokens in (2, 5, 64, 65, 200):
        counted = []
        for begin, end, first in windows(tokens, 16, 5):
            assert 0 <= begin < first <= end <= min(tokens, begin + 16) or first == 1
            counted += range(first, end)
        assert counted == list(range(1, tokens))


def test_score_against_itself_and_another(cli, plain, chatty, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("some text to score, long enough for a few windows of context")
    same = as_json(cli("score", plain, "--text", file, "--against", plain, "-c", 32, "--json"))
    assert same["mean_kl"] == 0
    assert same["top1_agreement"] == 1
    other = as_json(cli("score", plain, "--text", file, "--against", chatty, "-c", 32, "--json"))
    assert other["mean_kl"] > 0
    assert other["perplexity"] == same["perplexity"]


def test_score_refuses(cli, plain, tmp_path):
    file = tmp_path / "text.txt"
    file.write_bytes(b"\xff\xfe")
    assert "UTF-8" in cli("score", plain, "--text", file).err
    file.write_text("a")
    assert "at least two" in cli("score", plain, "--text", file).err
    file.write_text("abcdefgh")
    assert "stride" in cli("score", plain, "--text", file, "-c", 4, "--stride", 9).err
    assert cli("score", plain, "--text", tmp_path / "nosuch.txt").code == 2


def test_ls_here(cli, plain):
    rows = as_json(cli("ls", plain.parent, "--json"))
    assert [(row["name"], row["kind"], row["where"]) for row in rows] == [("plain", "safetensors", "folder")]
    assert "plain" in cli("ls", plain.parent).out
    assert cli("ls", plain / "nosuch").code == 2


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A Hugging Face cache with one GGUF repository."""
    from huggingface_hub import constants

    repo = tmp_path / "hub" / "models--someone--tiny-GGUF"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    (repo / "blobs").mkdir()
    for name in ("tiny-Q8_0.gguf", "tiny-Q4_K_M.gguf"):
        blob = repo / "blobs" / name
        blob.write_bytes(b"GGUF" + bytes(96))
        (snapshot / name).symlink_to(blob)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return repo


def test_the_cache_is_read_in_place(cli, cache, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache.parent))
    names = [found.name for found in hub.cached()]
    assert names == ["someone/tiny-GGUF:tiny-Q4_K_M.gguf", "someone/tiny-GGUF:tiny-Q8_0.gguf"]
    assert hub.locate("someone/tiny-GGUF").name == "tiny-Q4_K_M.gguf"
    assert hub.locate("someone/tiny-GGUF:Q8_0").name == "tiny-Q8_0.gguf"
    assert hub.locate("hf.co/someone/tiny-GGUF:tiny-Q8_0.gguf").name == "tiny-Q8_0.gguf"
    assert as_json(cli("rm", "someone/tiny-GGUF", "--json"))["freed_bytes"] == 200
    assert not hub.cached()


def test_rm_touches_only_the_cache(cli, plain):
    assert cli("rm", plain).code == 2
    assert cli("rm", "someone/nothing").code == 2
    assert plain.is_dir()


def test_pull_offline_is_one_sentence(cli, monkeypatch):
    ran = cli("pull", "someone/something")
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert "someone/something" in ran.err
    assert cli("pull", "not-a-repository").code == 2


def test_pull_fetches_only_what_an_engine_reads():
    names = [
        "README.md", "config.json", "tokenizer.json", "model-00001-of-00002.safetensors", "pytorch_model.bin",
        "model-00002-of-00002.safetensors", "model.safetensors.index.json", "original/consolidated.00.pth",
        "modeling_custom.py", "generation_config.json",
    ]  # fmt: skip
    assert hub.wanted_files("a/b", names, "") == [
        "config.json", "tokenizer.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        "model.safetensors.index.json", "generation_config.json",
    ]  # fmt: skip
    ggufs = ["m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf", "x.txt"]
    assert hub.wanted_files("a/b", ggufs, "") == ["m-Q4_K_M.gguf"]
    assert hub.wanted_files("a/b", ggufs, "q2_k") == ["m-Q2_K.gguf"]
    assert hub.wanted_files("a/b", ggufs, "Q8_0") == ggufs[2:4]
    assert hub.wanted_files("a/b", ggufs, "m-Q8_0-00001-of-00002.gguf") == ggufs[2:4]
    with pytest.raises(ValueError, match="m-Q4_K_M"):
        hub.wanted_files("a/b", ggufs, "m-Q4_K_N.gguf")
    with pytest.raises(ValueError, match="neither"):
        hub.wanted_files("a/b", ["README.md"], "")


def test_doctor(cli):
    facts = as_json(cli("doctor", "--json"))
    assert facts["cpu"]["cpus_allowed"]
    assert facts["memory"]["total_bytes"] > 2**20
    assert facts["disk"]["free_bytes"] >= 0
    assert {"edgewise", "cpu", "kernels", "memory", "disk", "tuning", "environment", "notes", "reading"} == set(facts)
    assert "kernels" in cli("doctor").out


def test_systems(cli):
    rows = as_json(cli("systems", "--json"))
    assert len(rows) == 62
    assert [row["system"] for row in as_json(cli("systems", "orca", "--json"))] == ["Orca"]
    assert "MEDUSA" in cli("systems", "medusa").out
    assert "No system" in cli("systems", "qqq").out


def test_members(cli):
    rows = as_json(cli("members", "--json"))
    assert {"device", "kv", "speculator", "sampler", "checkpoint"} <= {row["slot"] for row in rows}
    assert all(row["what"] for row in rows)
    assert "paged" in cli("members", "kv").out


def test_train_without_the_extra(cli, monkeypatch):
    from edgewise.serve.commands import train

    monkeypatch.setattr(train, "find_spec", lambda name: None)
    assert "extra" in cli("train").err


def test_bench_shadow_tells_plain_w8a8_from_shadowed(cli, tmp_path):
    text = tmp_path / "words.txt"
    text.write_text("def area(width, height):\n    return width * height\n" * 9)
    ran = cli("bench", "shadow", "--text", str(text), "--calibrate", str(text), "--limit", "60", "--json")
    rows = {(row["model"], row["shadow"]): row for row in as_json(ran)}
    assert len(rows) == 8
    assert rows["plain", 1.0]["perplexity_f32"] == rows["outliers", 1.0]["perplexity_f32"]
    loud, quiet = rows["outliers", 0.0], rows["outliers", 1.0]
    assert abs(quiet["loss"]) < abs(loud["loss"]) / 2
    assert quiet["overflow"] > loud["overflow"] == 0
