"""Hugging Face to GGUF and back, every architecture and rope kind: the same model, bit for bit."""

import numpy as np
import pytest

from edgewise.base import BadInput, Incompatible, Unsupported
from edgewise.convert.converting import convert
from edgewise.convert.gguf_metadata import gguf_metadata, settled
from edgewise.kernels import formats
from edgewise.models import read_spec
from edgewise.serve.llm import LLM
from edgewise.testing.tiny import ARCHITECTURES, tiny_model, write_safetensors
from edgewise.weights import open_checkpoint
from edgewise.weights.sources import SOURCES

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.native

ROPES = {
    "linear": {"rope_type": "linear", "factor": 2.0},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
}  # fmt: skip


def tensors(path):
    """Every tensor of a model as float32, by stored name."""
    checkpoint = open_checkpoint(path)
    source = SOURCES.build("file", files=checkpoint.header().files)
    found = {}
    for name in checkpoint.names():
        info = checkpoint.info(name)
        raw = source.read(info.extent, 0, info.extent.nbytes)
        found[name] = formats.dequantize(info.format, raw, int(np.prod(info.shape))).reshape(info.shape)
    source.close()
    return found


def logits(path, ids):
    return LLM(path, device="reference").logits(ids)


def check_round_trip(folder, tmp_path, exact=True):
    file, back = tmp_path / "model.gguf", tmp_path / "back"
    convert(folder, file)
    convert(file, back, to="safetensors")
    ids = np.random.default_rng(0).integers(3, 259, 50).tolist()
    first, second, third = (logits(path, ids) for path in (folder, file, back))
    np.testing.assert_array_equal(first, second)
    ours, again = tensors(folder), tensors(back)
    assert sorted(ours) == sorted(again)
    for name, values in ours.items():
        assert values.shape == again[name].shape
        if exact:
            np.testing.assert_array_equal(values, again[name])
        else:  # w + 1 - 1 may lose the last bits of a norm
            np.testing.assert_allclose(values, again[name], atol=1.2e-7)
    if exact:
        np.testing.assert_array_equal(first, third)


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - {"bitnet", "smallthinker"}))  # refused in GGUF
def test_every_architecture_survives_the_round_trip(architecture, tmp_path):
    folder = tiny_model(architecture, tmp_path / "hf")
    check_round_trip(folder, tmp_path, exact=not architecture.startswith("gemma"))


def test_experts_fused_by_newer_versions_are_taken_apart(tmp_path):
    """gate and up of all experts as one parameter: (experts, 2 * ffn, dim)."""
    single = tiny_model("qwen3_moe", tmp_path / "single")
    held = tensors(single)
    fused = {name: values for name, values in held.items() if ".experts." not in name}
    for layer in range(2):
        at = f"model.layers.{layer}.mlp.experts."
        parts = {p: np.stack([held[f"{at}{e}.{p}_proj.weight"] for e in range(5)]) for p in ("gate", "up", "down")}
        fused[f"{at}gate_up_proj"] = np.concatenate([parts["gate"], parts["up"]], axis=1)
        fused[f"{at}down_proj"] = parts["down"]
    folder = tiny_model("qwen3_moe", tmp_path / "fused")
    write_safetensors(folder / "model.safetensors", fused)
    convert(single, tmp_path / "single.gguf")
    convert(folder, tmp_path / "fused.gguf")
    ours, theirs = tensors(tmp_path / "fused.gguf"), tensors(tmp_path / "single.gguf")
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values)


@pytest.mark.parametrize("kind", sorted(ROPES))
def test_every_rope_kind_survives(kind, tmp_path):
    check_round_trip(tiny_model("llama", tmp_path / "hf", rope_scaling=ROPES[kind]), tmp_path)


def test_longrope_survives(tmp_path):
    pairs = np.linspace(1, 4, 8)
    scaling = {"rope_type": "longrope", "short_factor": pairs.tolist(), "long_factor": (pairs * 2).tolist()}
    folder = tiny_model(
        "phi3", tmp_path / "hf", rope_scaling=scaling, original_max_position_embeddings=128, max_position_embeddings=512
    )
    check_round_trip(folder, tmp_path)


@pytest.mark.parametrize("settings", [{"tie_word_embeddings": True}, {"attention_bias": True}, {"head_dim": 32}])
def test_options_of_llama_survive(settings, tmp_path):
    check_round_trip(tiny_model("llama", tmp_path / "hf", **settings), tmp_path)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_stored_formats_are_kept(dtype, tmp_path):
    folder = tiny_model("llama", tmp_path / "hf", dtype=dtype)
    written = convert(folder, tmp_path / "model.gguf")
    assert set(written.formats) == {dtype, "F32"}  # vectors are always F32
    ours, theirs = tensors(folder), tensors(tmp_path / "model.gguf")
    np.testing.assert_array_equal(ours["model.embed_tokens.weight"], theirs["token_embd.weight"])


def test_gguf_package_reads_what_we_write(tmp_path):
    folder = tiny_model("mixtral", tmp_path / "hf")
    convert(folder, tmp_path / "model.gguf", quant="q8_0")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert reader.get_field("general.architecture").contents() == "llama"
    assert reader.get_field("llama.expert_count").contents() == 4
    assert reader.get_field("general.file_type").contents() == gguf.LlamaFileType.MOSTLY_Q8_0
    assert reader.get_field("tokenizer.ggml.model").contents() == "gpt2"
    assert len(reader.get_field("tokenizer.ggml.tokens").contents()) == 259
    ours = tensors(folder)
    for tensor in reader.tensors:
        if tensor.name == "blk.1.ffn_down_exps.weight":
            experts = [ours[f"model.layers.1.block_sparse_moe.experts.{e}.w2.weight"] for e in range(4)]
            # 80 columns are no whole blocks of 32, so this one falls back
            assert tensor.tensor_type == gguf.GGMLQuantizationType.F16
            np.testing.assert_array_equal(tensor.data, np.stack(experts).astype(np.float16))
        if tensor.name == "blk.0.attn_v.weight":
            assert tensor.tensor_type == gguf.GGMLQuantizationType.F16  # 48 columns
        if tensor.name == "blk.0.ffn_gate_inp.weight":
            assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
    assert all(tensor.data_offset % 32 == 0 for tensor in reader.tensors)


def test_rows_are_permuted_for_interleaved_rope(tmp_path):
    folder = tiny_model("llama", tmp_path / "hf")
    convert(folder, tmp_path / "model.gguf")
    q = tensors(folder)["model.layers.0.self_attn.q_proj.weight"]  # (3 heads of 16, 48)
    expected = q.reshape(3, 2, 8, 48).swapaxes(1, 2).reshape(48, 48)
    np.testing.assert_array_equal(tensors(tmp_path / "model.gguf")["blk.0.attn_q.weight"], expected)


def test_requantising_keeps_names_and_metadata(tmp_path):
    folder = tiny_model("qwen3", tmp_path / "hf", hidden_size=64, intermediate_size=96)
    convert(folder, tmp_path / "f32.gguf")
    written = convert(tmp_path / "f32.gguf", tmp_path / "q8.gguf", quant="q8_0")
    before, after = open_checkpoint(tmp_path / "f32.gguf"), open_checkpoint(tmp_path / "q8.gguf")
    assert list(before.names()) == list(after.names())
    changed = {"general.file_type", "general.quantization_version"}
    for key, value in before.header().config.items():
        if key not in changed:
            assert np.array_equal(value, after.header().config[key]), key
    x = tensors(tmp_path / "f32.gguf")["blk.0.ffn_up.weight"]
    kind = gguf.GGMLQuantizationType.Q8_0
    oracle = gguf.quants.dequantize(gguf.quants.quantize(x, kind), kind)
    np.testing.assert_array_equal(tensors(tmp_path / "q8.gguf")["blk.0.ffn_up.weight"], oracle)
    assert not written.notices
    again = convert(tmp_path / "q8.gguf", tmp_path / "q4.gguf", quant="q4_0")
    assert any("already quantised" in notice for notice in again.notices)
    # unchanged formats are copied, not decoded and encoded again
    convert(tmp_path / "q8.gguf", tmp_path / "copy.gguf")
    for name in after.names():
        assert tensors(tmp_path / "copy.gguf")[name].tobytes() == tensors(tmp_path / "q8.gguf")[name].tobytes()


def test_safetensors_in_another_float_format(tmp_path):
    folder = tiny_model("qwen2", tmp_path / "hf")
    convert(folder, tmp_path / "bf16", quant="bf16")
    checkpoint = open_checkpoint(tmp_path / "bf16")
    assert {checkpoint.info(name).format for name in checkpoint.names()} == {"BF16"}
    first, second = (LLM(path, device="reference").tokenize("Hi there") for path in (folder, tmp_path / "bf16"))
    assert first == second


def test_what_gguf_cannot_say_is_refused_before_writing(tmp_path):
    folder = tiny_model("smollm3", tmp_path / "hf", no_rope_layers=[1, 0, 1, 0])
    with pytest.raises(Unsupported, match="rotates"):
        convert(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_metadata_that_reads_back_differently_is_caught(tmp_path):
    spec = read_spec(open_checkpoint(tiny_model("llama", tmp_path / "hf")).header())
    metadata = gguf_metadata(spec, "x", None)
    settled(spec, metadata)
    with pytest.raises(Unsupported, match="'layers' is 2"):
        settled(spec, {**metadata, "llama.block_count": 3})


def test_refusals(tmp_path):
    folder = tiny_model("llama", tmp_path / "hf")
    with pytest.raises(Unsupported, match="Did you mean 'q4_k_m'"):
        convert(folder, tmp_path / "x.gguf", quant="q4_km")
    with pytest.raises(Unsupported, match="only f32, f16, bf16, fp8"):
        convert(folder, tmp_path / "x", to="safetensors", quant="q4_0")
    with pytest.raises(Unsupported, match="no target"):
        convert(folder, tmp_path / "x", to="onnx")
    with pytest.raises(BadInput, match="being read"):
        convert(folder, folder, to="safetensors", force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf"]


def test_quantiser_none_refuses_to_lose_bits(tmp_path):
    folder = tiny_model("llama", tmp_path / "hf")
    with pytest.raises(Incompatible, match="keeps every number"):
        convert(folder, tmp_path / "x.gguf", quant="f16", quantiser="none")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf"]  # and no half-written file is left
    bf16 = tiny_model("llama", tmp_path / "bf16", dtype="BF16")
    convert(bf16, tmp_path / "x.gguf", quant="f32", quantiser="none")


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    folder = tiny_model("llama", tmp_path / "hf")
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    with pytest.raises(BadInput, match="not finite"):
        convert(folder, tmp_path / "x.gguf", quant="q8_0")
    assert not (tmp_path / "x.gguf").exists()


def test_the_sample_model(stories, tmp_path):
    """Our GGUF says what the published GGUF says: the same tokens for a text, the same logits."""
    convert(stories, tmp_path / "ours.gguf")
    text = "Once upon a time, Lily saw 12 birds. Ünï\n\n日本"
    llms = [LLM(p, device="reference") for p in (stories, stories / "stories260K-F32.gguf", tmp_path / "ours.gguf")]
    ids = [llm.tokenize(text) for llm in llms]
    assert ids[0] == ids[1] == ids[2]
    rows = [llm.logits(ids[0]) for llm in llms]
    np.testing.assert_array_equal(rows[0], rows[2])
    np.testing.assert_array_equal(rows[1], rows[2])


@pytest.mark.oracle
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "qwen2_moe"])
def test_transformers_reads_the_directory_we_write(architecture, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = tiny_model(architecture, tmp_path / "hf")
    convert(folder, tmp_path / "m.gguf")
    convert(tmp_path / "m.gguf", tmp_path / "back", to="safetensors")
    ids = torch.tensor([np.random.default_rng(0).integers(3, 259, 40).tolist()])
    rows = []
    for path in (folder, tmp_path / "back"):
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        with torch.no_grad():
            rows.append(model(ids).logits.numpy())
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)
