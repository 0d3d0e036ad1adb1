"""The bundles. Each is a function of a Place; what it expects stands in its decorator: refused, loads, or either."""

import json
import os
import shutil
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgewise.testing.mutate import gguf, safetensors


@dataclass(frozen=True)
class Place:
    """model: the folder to fill (a valid tiny llama already, or empty for GGUF). outside: must never be touched."""

    model: Path
    outside: Path
    canary: Path  # payloads try to make this file

    def edit(self, name: str, **changes: Any) -> None:
        path = self.model / name
        tree = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({k: v for k, v in (tree | changes).items() if v is not None}))

    def link(self, name: str, target: str | Path) -> None:
        (self.model / name).unlink(missing_ok=True)
        (self.model / name).symlink_to(target)

    def index(self, file: str, **others: str) -> None:
        """An index whose tensors lie in `file`; the real weights go away."""
        whole = safetensors.parse((self.model / "model.safetensors").read_bytes())
        weight_map = {t.name: file for t in whole.tensors} | others
        (self.model / "model.safetensors").rename(self.model / "part.safetensors")
        (self.model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@dataclass(frozen=True)
class Bundle:
    name: str
    expect: str  # "refused" | "loads" | "either"
    base: str  # "hf" | "gguf" | "empty"
    build: Callable[[Place], None]


BUNDLES: list[Bundle] = []


def bundle(name: str, expect: str, base: str = "hf") -> Callable[[Callable[[Place], None]], Callable[[Place], None]]:
    def add(build: Callable[[Place], None]) -> Callable[[Place], None]:
        BUNDLES.append(Bundle(name, expect, base, build))
        return build

    return add


def _many(
    name: str, expect: str, values: Mapping[str, Any], build: Callable[[Place, Any], None], base: str = "hf"
) -> None:
    for label, value in values.items():
        BUNDLES.append(Bundle(f"{name}: {label}", expect, base, partial(_build, build, value)))


def _build(build: Callable[[Place, Any], None], value: Any, place: Place) -> None:
    build(place, value)


# Paths in the index that lead out of the folder, or are no plain names.
_many("index", "refused", {
    "parent": "../outside/secret.safetensors", "far": "../../../../../../etc/passwd", "absolute": "/etc/passwd",
    "detour": "sub/../../outside/secret.safetensors", "subfolder": "sub/part.safetensors", "dot": "./part.safetensors",
    "backslash": "..\\outside\\secret.safetensors", "empty": "", "dots": "..", "nul": "part.safetensors\0.txt",
    "home": "~/secret.safetensors", "url": "file:///etc/passwd", "http": "http://example.org/x.safetensors",
    "percent": "%2e%2e%2foutside%2fsecret.safetensors", "long": "x" * 5000 + ".safetensors",
    "newline": "a\nb.safetensors",
    "pickle": "pytorch_model.bin", "code": "evil.py", "config": "config.json", "missing": "absent.safetensors",
    "device": "/dev/zero", "proc": "/proc/self/mem", "number": 7, "list": ["part.safetensors"], "null": None,
}, lambda place, file: place.index(file))  # fmt: skip


@bundle("index: a tensor that no shard holds", "refused")
def _(place: Place) -> None:
    place.index("part.safetensors", **{"model.ghost.weight": "part.safetensors"})


@bundle("index: the same tensors in two shards", "refused")
def _(place: Place) -> None:
    (place.model / "copy.safetensors").write_bytes((place.model / "model.safetensors").read_bytes())
    place.index("part.safetensors", **{"model.norm.weight": "copy.safetensors"})


@bundle("index: half a million entries", "refused")
def _(place: Place) -> None:
    place.index("part.safetensors", **{f"t{i}": "part.safetensors" for i in range(500000)})


# Links that leave the folder.
_many("link out", "refused", {
    name: name for name in ("config.json", "model.safetensors", "generation_config.json", "tokenizer.json",
                            "tokenizer_config.json", "chat_template.jinja")
}, lambda place, name: place.link(name, place.outside / f"secret{Path(name).suffix}"))  # fmt: skip
_many("link", "refused", {
    "to zero": "/dev/zero", "to stdin": "/dev/stdin", "to a folder": "/", "to nothing": "absent.json",
    "to itself": "config.json",
    "to memory": "/proc/self/mem", "relative out": "../outside/secret.json",
}, lambda place, target: place.link("config.json", target))  # fmt: skip


@bundle("link out: a shard", "refused")
def _(place: Place) -> None:
    place.index("part.safetensors")
    place.link("part.safetensors", place.outside / "secret.safetensors")


@bundle("link out: the folder of blobs", "refused")
def _(place: Place) -> None:
    snapshot = place.model / "models--a--b" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (place.model / "models--a--b" / "blobs").symlink_to(place.outside)
    for name in ("config.json", "model.safetensors"):
        (place.model / name).rename(snapshot / name)
    (snapshot / "generation_config.json").symlink_to("../../blobs/secret.json")
    (place.model / "start").symlink_to("models--a--b/snapshots/0")


@bundle("link out: a folder that looks like a cache", "refused")
def _(place: Place) -> None:
    snapshot = place.model / "models--a--b" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (place.model / "models--a--b" / "blobs").mkdir()
    for name in ("config.json", "model.safetensors"):
        (place.model / name).rename(snapshot / name)
    (snapshot / "generation_config.json").symlink_to("../../blobs/../../../outside/secret.json")
    (place.model / "start").symlink_to("models--a--b/snapshots/0")


# Files that are none.
@bundle("fifo: config.json", "refused")
def _(place: Place) -> None:
    (place.model / "config.json").unlink()
    os.mkfifo(place.model / "config.json")


@bundle("fifo: model.safetensors", "refused")
def _(place: Place) -> None:
    (place.model / "model.safetensors").unlink()
    os.mkfifo(place.model / "model.safetensors")


@bundle("fifo: tokenizer.json", "refused")
def _(place: Place) -> None:
    (place.model / "tokenizer.json").unlink()
    os.mkfifo(place.model / "tokenizer.json")


@bundle("fifo: chat_template.jinja", "refused")
def _(place: Place) -> None:
    os.mkfifo(place.model / "chat_template.jinja")


@bundle("socket: config.json", "refused")
def _(place: Place) -> None:
    (place.model / "config.json").unlink()
    here = Path.cwd()
    os.chdir(place.model)  # a socket's path may only have about 100 bytes
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("config.json")
    os.chdir(here)


@bundle("folder: config.json", "refused")
def _(place: Place) -> None:
    (place.model / "config.json").unlink()
    (place.model / "config.json").mkdir()


@bundle("folder: model.safetensors", "refused")
def _(place: Place) -> None:
    (place.model / "model.safetensors").unlink()
    (place.model / "model.safetensors").mkdir()


# Code beside the weights, and settings that ask for it.
def _settings_and_code(place: Place, settings: dict[str, Any]) -> None:
    place.edit("config.json", **settings)
    _code(place, ["evil.py", "__init__.py"])


def _code(place: Place, files: list[str]) -> None:
    for name in files:
        path = place.model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(place.canary)!r}, 'w').write('ran')\n")


_many("code", "loads", {
    "auto_map": {"auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}},
    "attention": {"_attn_implementation_internal": "evil/kernel", "_attn_implementation": "evil/kernel"},
    "trust": {"trust_remote_code": True, "custom_pipelines": {"text-generation": {"impl": "evil.P"}}},
    "architectures": {"architectures": ["evil.Model", "os.system"]},
    "name": {"_name_or_path": "../outside", "torch_dtype": "__import__('os').system('true')"},
}, _settings_and_code)  # fmt: skip
_many("code beside", "loads", {
    "shadows": ["json.py", "numpy.py", "tokenizers.py", "jinja2.py", "edgewise.py"],
    "start": ["sitecustomize.py", "usercustomize.py"],
    "setup": ["setup.py", "conftest.py", "__main__.py"], "generate": ["custom_generate/generate.py"],
    "paths": ["evil.pth", "lib.so"],
}, _code)  # fmt: skip


@bundle("code: a quantisation that is a module", "either")
def _(place: Place) -> None:
    place.edit("config.json", quantization_config={"quant_method": "evil", "modules": ["evil.py"]})
    _code(place, ["evil.py"])


@bundle("code: tokenizer with auto_map", "loads")
def _(place: Place) -> None:
    place.edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}, tokenizer_class="evil.T")
    _code(place, ["evil.py", "tokenization_evil.py"])


@bundle("code: an architecture that is a module", "refused")
def _(place: Place) -> None:
    place.edit("config.json", model_type="os.path:join")


@bundle("code: an architecture that is a path", "refused")
def _(place: Place) -> None:
    place.edit("config.json", model_type="../../outside/secret")


PICKLE = b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00cposix\nsystem\n(X\x04\x00\x00\x00truetR."


@bundle("pickle: alone", "refused")
def _(place: Place) -> None:
    (place.model / "model.safetensors").rename(place.model / "pytorch_model.bin")
    (place.model / "pytorch_model.bin").write_bytes(PICKLE)


@bundle("pickle: with its index", "refused")
def _(place: Place) -> None:
    (place.model / "model.safetensors").unlink()
    (place.model / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-1.bin"}}')
    (place.model / "pytorch_model-1.bin").write_bytes(PICKLE)


@bundle("pickle: beside safetensors", "loads")
def _(place: Place) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pkl", "model.ckpt"):
        (place.model / name).write_bytes(PICKLE)


@bundle("pickle: named model.safetensors", "refused")
def _(place: Place) -> None:
    (place.model / "model.safetensors").write_bytes(PICKLE)


@bundle("polyglot: a zip behind the weights", "refused")
def _(place: Place) -> None:
    with (place.model / "model.safetensors").open("ab") as file:
        file.write(b"PK\3\4" + bytes(18) + b"PK\5\6" + bytes(18))


# Templates that want out of their sandbox. Loading may refuse them or render them; the canary must not appear.
PAYLOADS = {
    "popen": "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "subclasses": "{% for c in ''.__class__.__mro__[1].__subclasses__() %}{% if c.__name__ == 'Popen' %}"
    "{{ c('touch CANARY', shell=1) }}{% endif %}{% endfor %}",
    "builtins": "{{ lipsum.__globals__['__builtins__'].open('CANARY', 'w').write('x') }}",
    "attr": "{{ (''|attr('__class__')|attr('__mro__'))[1]|attr('__subclasses__')() }}",
    "format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "format by reference": "{% set f = '{0.__class__}'.format %}{{ [messages]|map(f)|list }}",
    "include": "{% include 'secret.txt' %}{% import '/etc/passwd' as x %}",
    "extends": "{% extends '../outside/secret.txt' %}",
    "namespace": "{{ namespace.__init__.__globals__['sys'].modules['os'].system('touch CANARY') }}",
    "self": "{{ self.__init__.__globals__.__builtins__.__import__('os').system('touch CANARY') }}",
    "loop": "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
    "power": "{{ 'a' * 10000000000 }}",
    "big number": "{{ 10 ** 10 ** 10 }}",
}


def _template_file(place: Place, text: str) -> None:
    (place.model / "chat_template.jinja").write_text(text.replace("CANARY", str(place.canary)))


def _template_config(place: Place, text: str) -> None:
    place.edit("tokenizer_config.json", chat_template=text.replace("CANARY", str(place.canary)))


def _template_gguf(place: Place, text: str) -> None:
    file = gguf.tiny()
    entry = file.get("tokenizer.chat_template")
    assert entry is not None
    entry.value = text.replace("CANARY", str(place.canary)).encode()
    (place.model / "model.gguf").write_bytes(file.encode())


_many("template file", "either", PAYLOADS, _template_file)
_many("template in settings", "either", dict(list(PAYLOADS.items())[:3]), _template_config)
_many("template in gguf", "either", dict(list(PAYLOADS.items())[:3]), _template_gguf, "empty")


# Sizes that lie.
def _gguf(place: Place, change: Callable[[gguf.File], None]) -> None:
    file = gguf.tiny()
    change(file)
    (place.model / "model.gguf").write_bytes(file.encode())


def _set(key: str, **fields: Any) -> Callable[[gguf.File], None]:
    def change(file: gguf.File) -> None:
        entry = file.get(key)
        assert entry is not None
        for name, value in fields.items():
            setattr(entry, name, value)

    return change


def _dims(*dims: int) -> Callable[[gguf.File], None]:
    return lambda file: setattr(file.tensors[0], "dims", list(dims))


_many("giant gguf", "refused", {
    "strings": _set("tokenizer.ggml.tokens", count=2**40), "terabyte": _set("general.name", length=2**40),
    "keys": lambda f: setattr(f, "entry_count", 2**63), "tensors": lambda f: setattr(f, "tensor_count", 2**62),
    "rows": _dims(32, 2**42 + 1), "wrap": _dims(2**32, 2**32), "zero": _dims(32, 0),
    "alignment": _set("general.alignment", value=2**31),
    "offset": lambda f: setattr(f.tensors[0], "offset", 2**64 - 32), "layers": _set("llama.block_count", value=2**31),
    "vocabulary": _set("llama.vocab_size", value=2**31 - 1), "heads": _set("llama.attention.head_count", value=0),
    "scores of bytes": _set("tokenizer.ggml.scores", element=gguf.U8, value=[0] * 268),
}, _gguf, "empty")  # fmt: skip
_many("giant settings", "refused", {
    "layers": {"num_hidden_layers": 2**31}, "vocabulary": {"vocab_size": 2**40}, "no heads": {"num_attention_heads": 0},
    "negative": {"hidden_size": -48}, "experts": {"model_type": "mixtral", "num_local_experts": 2**31},
    "text": {"hidden_size": "48"}, "fraction": {"hidden_size": 48.5},
}, lambda place, settings: place.edit("config.json", **settings))  # fmt: skip


def _sparse(place: Place, name: str, nbytes: int, head: bytes = b"") -> None:
    with (place.model / name).open("wb") as file:
        file.write(head)
        file.truncate(nbytes)


@bundle("giant: config.json of 10 GB", "refused")
def _(place: Place) -> None:
    _sparse(place, "config.json", 10 << 30)


@bundle("giant: tokenizer.json of 10 GB", "refused")
def _(place: Place) -> None:
    _sparse(place, "tokenizer.json", 10 << 30)


@bundle("giant: chat_template.jinja of 10 GB", "refused")
def _(place: Place) -> None:
    _sparse(place, "chat_template.jinja", 10 << 30)


@bundle("giant: safetensors header of 2^63 bytes", "refused")
def _(place: Place) -> None:
    _sparse(place, "model.safetensors", 1 << 40, struct.pack("<Q", 2**63))


@bundle("giant: safetensors header of 99 MB", "refused")
def _(place: Place) -> None:
    _sparse(place, "model.safetensors", 1 << 30, struct.pack("<Q", 99_000_000))


@bundle("giant: a terabyte of nothing", "refused", "empty")
def _(place: Place) -> None:
    _sparse(place, "model.gguf", 1 << 40, b"GGUF" + struct.pack("<IQQ", 3, 1, 1))


@bundle("deep: config.json", "refused")
def _(place: Place) -> None:
    (place.model / "config.json").write_text('{"a":' * 100000)


@bundle("deep: tokenizer.json", "refused")
def _(place: Place) -> None:
    (place.model / "tokenizer.json").write_text('{"a":' * 100000)


# Split sets.
@bundle("split: 99999 parts", "refused", "empty")
def _(place: Place) -> None:
    (place.model / "m-00001-of-99999.gguf").write_bytes(gguf.tiny().encode())


@bundle("split: a part that is a link out", "refused", "empty")
def _(place: Place) -> None:
    file = gguf.tiny()
    file.entries += [gguf.Entry(b"split.no", gguf.U16, 0), gguf.Entry(b"split.count", gguf.U16, 2)]
    (place.model / "m-00001-of-00002.gguf").write_bytes(file.encode())
    (place.model / "m-00002-of-00002.gguf").symlink_to(place.outside / "secret.gguf")


@bundle("split: a single file that says it is one of three", "refused", "empty")
def _(place: Place) -> None:
    file = gguf.tiny()
    file.entries += [gguf.Entry(b"split.no", gguf.U16, 0), gguf.Entry(b"split.count", gguf.U16, 3)]
    (place.model / "model.gguf").write_bytes(file.encode())


@bundle("link out: the only GGUF file of a folder", "refused", "empty")
def _(place: Place) -> None:
    (place.model / "model.gguf").symlink_to(place.outside / "secret.gguf")


def prepare(bundle: Bundle, folder: Path, inner: Path) -> Place:
    """Builds a bundle below `folder` from the valid model `inner`: model/, and outside/ with secrets."""
    place = Place(folder / "model", folder / "outside", folder / "outside" / "canary")
    place.outside.mkdir(parents=True)
    for suffix, text in {".json": (inner / "config.json").read_bytes(), ".gguf": gguf.tiny().encode(),
                         ".safetensors": (inner / "model.safetensors").read_bytes(), ".jinja": b"x",
                         ".txt": b"x"}.items():  # fmt: skip
        (place.outside / f"secret{suffix}").write_bytes(text)
    if bundle.base == "hf":
        shutil.copytree(inner, place.model)
    else:
        place.model.mkdir()
    bundle.build(place)
    return place
