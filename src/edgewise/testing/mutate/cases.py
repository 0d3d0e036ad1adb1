"""From (kind, seed, number) to a model on disk with one mutated file."""

import functools
import json
import random
from pathlib import Path

from edgewise.testing.mutate import gguf, jsons, safetensors
from edgewise.testing.tiny import ARCHITECTURES, tiny_model

KINDS = {"gguf": "R01", "st": "R02", "config": "R02", "tokenizer": "R02"}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.json", "tokenizer.json", "tokenizer_config.json")
_SIMPLE = {
    "tokenizer_config.json": json.dumps({
        "bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}, "add_bos_token": True,
        "model_max_length": 512, "chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    }),
    "special_tokens_map.json": json.dumps({"bos_token": "<s>", "unk_token": {"content": "<unk>"}}),
}  # fmt: skip


def _shards(data: bytes) -> dict[str, bytes]:
    """One safetensors file as two and their index."""
    whole = safetensors.parse(data)
    out: dict[str, bytes] = {}
    weight_map = {}
    half = len(whole.tensors) // 2
    for part, tensors in enumerate((whole.tensors[:half], whole.tensors[half:]), 1):
        name, body, records = f"model-{part:05d}-of-00002.safetensors", b"", []
        for t in tensors:
            piece = whole.data[t.offsets[0] : t.offsets[1]]
            records.append(safetensors.Tensor(t.name, t.dtype, t.shape, [len(body), len(body) + len(piece)]))
            body += piece
            weight_map[t.name] = name
        out[name] = safetensors.File(records, body).encode()
    out["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    return out


class Cases:
    """`write(i)` puts case i on disk and gives (path to open, name of the mutated file, its size in bytes).

    Case -1 is the control: nothing is changed, and it must load.
    """

    def __init__(self, kind: str, seed: int, work: Path) -> None:
        self.kind = kind
        self.seed = seed
        self.work = work
        if kind != "gguf":
            for name in ARCHITECTURES if kind == "config" else ["llama"]:
                folder = tiny_model(name, work / name)
                for file, text in _SIMPLE.items():
                    (folder / file).write_text(text)
                if kind == "config":
                    sharded = tiny_model(name, work / f"{name}-sharded")
                    for file, data in _shards((sharded / "model.safetensors").read_bytes()).items():
                        (sharded / file).write_bytes(data)
                    (sharded / "model.safetensors").unlink()

    @functools.cache  # noqa: B019  the originals are few and small
    def _original(self, path: Path) -> bytes:
        return path.read_bytes()

    @functools.cache  # noqa: B019
    def _records(self, path: Path) -> safetensors.File:
        return safetensors.parse(self._original(path))

    def _target(self, rng: random.Random) -> Path:
        if self.kind == "st":
            return self.work / "llama" / "model.safetensors"
        if self.kind == "tokenizer":
            return self.work / "llama" / rng.choice(_TOKENIZER_FILES)
        name = rng.choice(sorted(ARCHITECTURES))
        if rng.random() < 0.15:
            return self.work / f"{name}-sharded" / "model.safetensors.index.json"
        return self.work / name / rng.choice(["config.json"] * 5 + ["generation_config.json"])

    def write(self, number: int) -> tuple[Path, Path, int]:
        """(path to open, mutated file, bytes of the whole model). Restores the file that the case before changed."""
        rng = random.Random(f"{self.kind}:{self.seed}:{number}")
        if self.kind == "gguf":
            data = gguf.tiny().encode() if number < 0 else gguf.mutant(rng)
            path = self.work / "model.gguf"
            path.write_bytes(data)
            return path, path, len(data)
        target = self._target(rng)
        original = self._original(target)
        if number < 0:
            data = original
        elif self.kind == "st":
            data = safetensors.mutant(self._records(target), rng)
        else:
            data = jsons.mutant(original, rng)
        target.write_bytes(data)
        return target.parent, target, sum(f.stat().st_size for f in target.parent.iterdir())

    def restore(self, target: Path) -> None:
        if self.kind != "gguf":
            target.write_bytes(self._original(target))


def corpus(folder: Path) -> None:
    """Seeds for the fuzz targets of csrc/fuzz, a folder for each: small, because luck thins out with size."""
    for name in ("gguf", "safetensors", "json"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for kind in ("llama", "gpt2"):
        file = gguf.tiny(kind)
        for entry in file.entries:
            if isinstance(entry.value, list):
                entry.value = entry.value[:4]
        file.tensors = [gguf.Tensor(b"a", [32, 2], 8, bytes(68)), gguf.Tensor(b"b.weight", [3], 0, bytes(12))]
        # the target takes two bytes of its own first: how much larger the file is than what it is shown
        (folder / "gguf" / kind).write_bytes(bytes(2) + file.encode())
        file.tensors = []
        (folder / "gguf" / f"{kind}-vocabulary").write_bytes(bytes(2) + file.encode())
    records = [safetensors.Tensor("a", "F32", [2, 3], [0, 24]), safetensors.Tensor("b.\u00e9", "BF16", [], [24, 26])]
    (folder / "safetensors" / "two").write_bytes(safetensors.File(records, bytes(26)).encode())
    (folder / "safetensors" / "none").write_bytes(safetensors.File([], b"", None).encode())
    (folder / "json" / "all").write_text(
        '{"a": [1, -2.5e-3, 0, null, true, false, "\\u00e9\\ud83d\\ude00\\n"], "b": {"c": {}, "d": [[]]}}'
    )
    (folder / "json" / "settings").write_text(json.dumps(dict(jsons.CODE)))
