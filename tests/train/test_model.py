"""Our Llama against transformers' on random weights, and the two file layouts it is saved in."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgewise.base import BadInput
from edgewise.train.export import export_gguf, gguf_name, interleave
from edgewise.train.model import Llama, load_hf, save_hf
from edgewise.train.recipe import Recipe


def random_model(recipe: Recipe, **changes: int) -> Llama:
    torch.manual_seed(1)
    model = Llama(replace(recipe.model, **changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.1 if parameter.ndim == 1 else 0.0, 0.2)
    return model.eval()


@pytest.mark.oracle
@pytest.mark.parametrize("heads", [(32, 4, 2, 8), (36, 3, 1, 16), (40, 5, 5, 4)])
def test_logits_equal_transformers(recipe: Recipe, tmp_path: Path, heads: tuple[int, ...]) -> None:
    from transformers import LlamaForCausalLM

    model = random_model(recipe, dim=heads[0], heads=heads[1], kv_heads=heads[2], head_dim=heads[3])
    save_hf(model.state_dict(), model.shape, tmp_path, bos=0, eos=1, dtype=torch.float32, shard_bytes=20_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = torch.randint(0, model.shape.vocab, (2, 31))
    with torch.no_grad():
        assert torch.allclose(model(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)


def test_saved_and_loaded(recipe: Recipe, tmp_path: Path) -> None:
    model = random_model(recipe)
    save_hf(model.state_dict(), model.shape, tmp_path, bos=0, eos=1, dtype=torch.float32)
    again = load_hf(tmp_path)
    assert again.shape == model.shape
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    with pytest.raises(BadInput, match="no trained model"):
        load_hf(tmp_path / "elsewhere")


def test_a_token_sees_only_what_came_before(recipe: Recipe) -> None:
    model = random_model(recipe)
    ids = torch.randint(0, model.shape.vocab, (1, 12))
    other = ids.clone()
    other[0, 8:] = (other[0, 8:] + 1) % model.shape.vocab
    with torch.no_grad():
        before, after = model(ids)[0], model(other)[0]
    assert torch.allclose(before[:8], after[:8], atol=1e-6)
    assert not torch.allclose(before[8:], after[8:], atol=1e-3)


def test_interleave_deals_the_halves_alternately() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]  # two heads of four rows
    assert interleave(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_gguf_holds_every_tensor_and_the_tokenizer(recipe: Recipe, data_folder: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    model = random_model(recipe)
    save_hf(model.state_dict(), model.shape, tmp_path, bos=0, eos=1, dtype=torch.float32)
    size = export_gguf(tmp_path, data_folder, tmp_path / "tiny.gguf", name="tiny", version="0")
    assert size == (tmp_path / "tiny.gguf").stat().st_size
    reader = gguf.GGUFReader(tmp_path / "tiny.gguf")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert tensors.keys() == {gguf_name(name) for name in model.state_dict()}
    up = tensors["blk.1.ffn_up.weight"]
    values = gguf.quants.dequantize(up.data, up.tensor_type)
    original = model.state_dict()["model.layers.1.mlp.up_proj.weight"].numpy()
    assert np.abs(values - original).max() <= np.abs(original).max() / 127
    assert reader.fields["tokenizer.ggml.pre"].contents() == "qwen2"
    assert len(reader.fields["tokenizer.ggml.tokens"].contents()) == recipe.model.vocab
