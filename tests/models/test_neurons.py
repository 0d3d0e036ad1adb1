"""A model laid out by neurons: all rows give the dense bits, and so do those that fire, whatever stays."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgewise.base import BadInput, OutOfRoom, SamplingParams, Unsupported
from edgewise.convert.neuron_layout import convert_neurons
from edgewise.kernels.devices import DEVICES
from edgewise.kernels.devices.cpu import tables
from edgewise.kernels.neurons import add_neurons
from edgewise.models import neuron_stream
from edgewise.models.neurons.predictor import FILE
from edgewise.serve.llm import LLM
from edgewise.testing.tiny import tiny_model
from edgewise.weights import open_checkpoint

PROMPTS = [[5, 6, 7, 8, 9, 10, 200, 31] * 5, [9, 8, 7]]
GREEDY = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)


def texts(llm: LLM) -> list[tuple[int, ...]]:
    results = llm.generate(PROMPTS, GREEDY)
    assert not any(result.outputs[0].error for result in results), [result.outputs[0].error for result in results]
    return [tuple(result.outputs[0].token_ids) for result in results]


def weight(device, values, fmt):
    from edgewise.kernels import formats

    stored = formats.quantize(fmt, values).reshape(-1).view(np.uint8)
    return device.load(values.shape, fmt, lambda offset, nbytes: stored[offset : offset + nbytes]), stored


@pytest.mark.parametrize("isa", tables())
@pytest.mark.parametrize("fmt", ["F32", "BF16"])
def test_the_verb_gives_the_bits_of_the_dense_one(isa, fmt) -> None:
    device, rng = DEVICES.build("cpu", threads=2, isa=isa), np.random.default_rng(3)
    dim, count, tokens = 72, 53, 5
    gate, up = (rng.standard_normal((count, dim)).astype(np.float32) for _ in range(2))
    down = rng.standard_normal((dim, count)).astype(np.float32)
    (g, gs), (u, us), (d, ds) = (weight(device, one, fmt) for one in (gate, up, down))
    item = 4 if fmt == "F32" else 2
    row = dim * item
    slots = device.slots(count, 3 * row)
    places = rng.permutation(count).astype(np.int32)
    columns = np.ascontiguousarray(ds.view(np.uint32 if item == 4 else np.uint16).reshape(dim, count).T).view(np.uint8)
    for neuron, place in enumerate(places):
        view = slots.view(place)
        view[:row] = gs.reshape(count, row)[neuron]
        view[row : 2 * row] = us.reshape(count, row)[neuron]
        view[2 * row : 3 * row] = columns[neuron]
    x, add = (device.upload(rng.standard_normal((tokens, dim)).astype(np.float32)) for _ in range(2))
    everyone = np.arange(count, dtype=np.int32)
    for act in ("relu", "silu"):
        wanted = np.array(device.download(device.ffn(x, g, u, d, act, add=add)))

        def run(ids, **more):
            return device.download(add_neurons(device, x, slots, places[ids], ids, row, fmt, act, **more))  # noqa: B023

        assert np.array_equal(wanted, run(everyone, add=add))
        first = add_neurons(device, x, slots, places[:20], everyone[:20], row, fmt, act)
        assert np.array_equal(wanted, run(everyone[20:], add=add, sums=first))
        gates = device.linear(x, g)
        assert np.array_equal(wanted, run(everyone, add=add, gates=gates))
        if act == "relu":  # one row: those that fire; five rows: those of any
            fires = np.flatnonzero((device.download(gates) > 0).any(axis=0)).astype(np.int32)
            fires = fires[fires != 7]
            keep = np.ascontiguousarray(device.download(gates)[:, fires] > 0).view(np.uint8)
            some = run(fires, add=add, keep=keep)
            without = gate.copy()
            without[7] = 0
            without = weight(device, without, fmt)[0]
            assert np.array_equal(some, device.download(device.ffn(x, without, u, d, act, add=add)))
    assert np.array_equal(device.download(add), run(everyone[:0], add=add))


def test_the_verb_refuses_what_does_not_fit() -> None:
    device = DEVICES.build("cpu", threads=1)
    slots, x = device.slots(4, 4096), device.upload(np.ones((1, 8), np.float32))
    two = np.array([0, 1], np.int32)
    for places, ids, row, words in (
        (two + 3, two, 32, "slot 4"), (two, two[::-1].copy(), 32, "ascend"), (two[:1], two, 32, "as many places"),
        (two, two, 4090, "outside its slot"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=words):
            add_neurons(device, x, slots, places, ids, row, "F32", "relu")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("neurons"), {}

    def make(act: str, fmt: str):
        if (act, fmt) not in made:
            more = {"hidden_size": 1024, "head_dim": 32} if fmt == "F32" else {}  # then a row is a page
            plain = tiny_model("llama", folder / f"{act}-{fmt}", hidden_act=act, dtype=fmt, num_hidden_layers=3, **more)
            convert_neurons(plain, folder / f"{act}-{fmt}-laid")
            made[act, fmt] = folder / f"{act}-{fmt}-laid", texts(LLM(plain, threads=2, ctx_size=128))
        return made[act, fmt]

    return make


@pytest.mark.parametrize("settings", [
    {}, {"residency": "none"}, {"residency": "neuron-window:window=2"}, {"neurons": "all"},
    {"neurons": "all", "residency": "none"},
])  # fmt: skip
@pytest.mark.parametrize("slots", [0, 24, 60])
@pytest.mark.parametrize("fmt", ["F32", "BF16"])
def test_the_text_is_the_dense_one(models, monkeypatch, settings, slots, fmt) -> None:
    path, wanted = models("relu", fmt)
    if slots:
        monkeypatch.setattr(neuron_stream.NeuronStream, "_room", lambda self, process, resident: slots)
    llm = LLM(path, threads=2, ctx_size=128, **settings)
    assert texts(llm) == wanted
    store = llm.parts.neurons.running
    counts = store.counts
    assert counts.read > 0
    assert store.held() <= store.slots.count
    if settings.get("neurons") != "all" and not slots and "residency" not in settings:
        assert counts.read <= store.total < counts.asked  # every neuron came once
    if settings.get("residency") == "none":
        assert counts.read == counts.asked
        assert store.held() == 0
    llm.close()


def test_a_silu_model_computes_all_of_them(models) -> None:
    path, wanted = models("silu", "BF16")
    assert texts(LLM(path, threads=1, ctx_size=128)) == wanted
    with pytest.raises(Unsupported, match="needs a relu gate"):
        LLM(path, threads=1, ctx_size=128, neurons="gate")


def test_whoever_expects_everybody_is_exact_and_nobody_else_is(models, tmp_path) -> None:
    path, wanted = models("relu", "BF16")
    folder = shutil.copytree(path, tmp_path / "laid")
    rng = np.random.default_rng(0)
    heads = {f"layers.{layer}.{name}": rng.standard_normal(shape).astype(np.float32)
             for layer in range(3) for name, shape in (("in", (4, 48)), ("out", (80, 4)), ("bias", (80,)))}  # fmt: skip
    save_file(heads, folder / FILE)
    assert texts(LLM(folder, threads=1, ctx_size=128, neurons="predictor:margin=1e9")) == wanted
    assert texts(LLM(folder, threads=1, ctx_size=128, neurons="predictor:margin=-1e9")) != wanted
    save_file(heads | {"layers.2.in": np.ones((4, 44), np.float32)}, folder / FILE)
    with pytest.raises(BadInput, match="Train the predictor again"):
        LLM(folder, threads=1, ctx_size=128, neurons="predictor")


@pytest.mark.parametrize("source", ["faulty:kind=eio,at=20", "faulty:kind=flip,at=20", "faulty:kind=end,at=20"])
def test_a_failing_read_fails_the_request_with_a_sentence(models, source) -> None:
    path, wanted = models("relu", "F32")
    llm = LLM(path, threads=1, ctx_size=128, source=source, neurons="all")
    said = llm.generate(PROMPTS[:1], GREEDY)[0].outputs[0]
    assert "failed" in str(said.error) or "checksum" in str(said.error) or "cut short" in str(said.error)
    assert texts(llm) == wanted  # the next one is read again


def test_a_wrong_bit_is_noticed(models, tmp_path) -> None:
    folder = shutil.copytree(models("relu", "BF16")[0], tmp_path / "laid")
    path = folder / "streamed.safetensors"
    data = bytearray(path.read_bytes())
    extents = [laid.extent for laid in open_checkpoint(folder).neurons]
    for extent in extents:
        for at in range(extent.offset, extent.offset + extent.nbytes, 4096):
            data[at + 100] ^= 4  # of every up row
    path.write_bytes(data)
    said = LLM(folder, threads=1, ctx_size=64).generate(PROMPTS[:1], GREEDY)[0].outputs[0].error
    assert "do not have their checksum" in str(said)
    data[extents[1].offset] ^= 4  # a gate row
    path.write_bytes(data)
    with pytest.raises(BadInput, match="do not have their checksums"):
        LLM(folder, threads=1, ctx_size=64)


def test_what_cannot_be_laid_out_is_refused(models, tmp_path) -> None:
    path, _ = models("relu", "BF16")
    with pytest.raises(BadInput, match="laid out for streaming already"):
        convert_neurons(path, tmp_path / "again")
    with pytest.raises(Unsupported, match="Only dense models"):
        convert_neurons(tiny_model("olmoe", tmp_path / "moe"), tmp_path / "out")
    with pytest.raises(Unsupported, match="-q bf16"):
        convert_neurons(tiny_model("llama", tmp_path / "half", dtype="F16"), tmp_path / "out")
    with pytest.raises(OutOfRoom, match="smallest budget that works is"):
        LLM(path, threads=1, ctx_size=64, ram_budget="8MiB")
    with pytest.raises(BadInput, match="convert --layout neurons"):
        LLM(tiny_model("llama", tmp_path / "plain"), ctx_size=64, neurons="gate", ram_budget="8GiB")
    assert not (tmp_path / "out").exists()
