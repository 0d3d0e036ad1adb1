"""The peers: what each is installed from, how a model is made ready for it, and which program drives it.

Versions are the ones that were measured together; a newer one is a change of one line here.
"""

import os
import shutil
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from race.children import Child, Failed
from race.environments import clean, environment, run
from race.subjects import Subject, Trial, need_room

ENGINES = Path(__file__).resolve().parent.parent / "engines"
BUILD = ENGINES.parent.parent / "build"
MODELS = BUILD / "bench-models"
TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Model:
    """A model as a peer reads it. step_bytes: weight bytes of a step of the test."""

    path: Path
    format: str
    step_bytes: Callable[[Trial], int]


@dataclass(frozen=True)
class Peer:
    """steps: packages, a call of pip each. lacks: architecture → why it is not tried."""

    name: str
    folder: str
    steps: Sequence[Sequence[str]]
    prepare: Callable[[Path, Subject], Model]
    program: Callable[[Path], Sequence[str]]
    flags: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    arithmetic: str = "int8_gops"
    lacks: Mapping[str, str] = field(default_factory=dict)

    def install(self) -> Path:
        """Its interpreter. Raises Failed."""
        python = environment(BUILD / self.folder, self.steps, self.flags, self.env)
        self.program(python)
        return python

    def model(self, python: Path, subject: Subject) -> Model:
        """Raises Failed when this peer cannot have it."""
        if subject.architecture in self.lacks:
            raise Failed(self.lacks[subject.architecture])
        return self.prepare(python, subject)

    def start(self, python: Path, model: Model, arguments: Sequence[str], timeout_s: float) -> Child:
        threads = arguments[arguments.index("--threads") + 1]
        env = clean(os.environ) | {"OMP_NUM_THREADS": threads}
        return Child(self.name, [*self.program(python), str(model.path), *arguments], env, timeout_s)


def own(subject: Subject, arguments: Sequence[str], timeout_s: float) -> Child:
    return Child("edgewise", [sys.executable, str(ENGINES / "own.py"), str(subject.gguf), *arguments], None, timeout_s)


def script(name: str) -> Callable[[Path], Sequence[str]]:
    return lambda python: [str(python), str(ENGINES / name)]


def llamacpp_program(python: Path) -> Sequence[str]:
    """bench/engines/llamacpp.cc, compiled against the library that its environment built."""
    source, program = ENGINES / "llamacpp.cc", python.parent / "bench-engine"
    sites = [path.parent for path in python.parent.parent.glob("lib/python*/site-packages/include") if path.is_dir()]
    if not sites:
        raise Failed("llama-cpp-python was installed without llama.cpp's headers")
    library = sites[0] / "lib"
    newest = max(source.stat().st_mtime, (library / "libllama.so").stat().st_mtime)
    if not program.exists() or program.stat().st_mtime < newest:
        compiler = os.environ.get("CXX", "c++")
        command: list[str | Path] = [
            compiler,
            "-std=c++17",
            "-O2",
            source,
            "-o",
            program,
            f"-I{sites[0] / 'include'}",
            f"-L{library}",
        ]
        run([*command, f"-Wl,-rpath,{library}", "-lllama", "-lggml", "-lggml-base"], f"{compiler} {source.name}")
    return [str(program)]


def as_gguf(python: Path, subject: Subject) -> Model:
    return Model(subject.gguf, subject.format, subject.step_bytes)


def as_folder(python: Path, subject: Subject) -> Model:
    return Model(subject.folder(), "bf16", lambda test: subject.step_bytes(test, hf=True))


def as_ctranslate2(python: Path, subject: Subject) -> Model:
    def make(out: Path) -> None:
        converter = python.parent / "ct2-transformers-converter"
        arguments: list[str | Path] = [
            "--model",
            subject.folder(),
            "--output_dir",
            out,
            "--quantization",
            "int8",
            "--low_cpu_mem_usage",
        ]
        run([converter, *arguments], "CTranslate2's converter")

    out = made(subject, "ct2-int8", make)
    nbytes = (out / "model.bin").stat().st_size
    return Model(out, "int8", lambda test: nbytes)


def as_onnx(python: Path, subject: Subject) -> Model:
    def make(out: Path) -> None:
        builder: list[str | Path] = [
            python,
            "-m",
            "onnxruntime_genai.models.builder",
            "-m",
            "local",
            "-i",
            subject.folder(),
            "-o",
            out,
        ]
        options = ["int4_accuracy_level=4", "prune_lm_head=true"]  # as the others: one row of logits a prompt
        cache = out.with_suffix(".cache")
        command: list[str | Path] = [*builder, "-p", "int4", "-e", "cpu", "-c", cache, "--extra_options", *options]
        run(command, "onnxruntime-genai's model builder")
        shutil.rmtree(cache, ignore_errors=True)

    out = made(subject, "ort-int4", make)
    nbytes = sum(path.stat().st_size for path in out.glob("*.onnx*"))
    return Model(out, "int4", lambda test: nbytes)


def made(subject: Subject, suffix: str, make: Callable[[Path], None]) -> Path:
    """A converted copy, kept beside the fabricated models; written under another name until it is whole."""
    folder = subject.folder()
    name = folder.name.removesuffix("-hf")
    if folder.parent != MODELS:  # other folders may be called the same
        name += f"-{zlib.crc32(str(folder.resolve()).encode()):08x}"
    out = MODELS / f"{name}-{suffix}"
    if out.exists():
        return out
    need_room(MODELS, sum(path.stat().st_size for path in folder.glob("*.safetensors")))
    print(f"converting to {out.name} (minutes, once)", file=sys.stderr)
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        make(unfinished)
    except Failed:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return unfinished.rename(out)


def llamacpp(version: str | None = "0.3.36", folder: str = "bench-llamacpp") -> Peer:
    """version: of llama-cpp-python, whose sdist brings llama.cpp's sources; None: the newest."""
    package = "llama-cpp-python" + (f"=={version}" if version else "")
    return Peer(
        "llama.cpp", folder, [[package]], as_gguf, llamacpp_program,
        flags=["--no-binary", "llama-cpp-python"], env={"CMAKE_ARGS": "-DGGML_NATIVE=ON"},
    )  # fmt: skip


PEERS = {
    peer.name: peer
    for peer in (
        llamacpp(),
        Peer(
            "openvino",
            "bench-openvino",
            [["openvino==2026.4.1", "openvino-genai==2026.4.1.0"]],
            as_gguf,
            script("openvino_gguf.py"),
            lacks={"olmoe": "its GGUF reader knows dense llama and qwen models only"},
        ),
        Peer(
            "onnxruntime-genai",
            "bench-onnxruntime-genai",
            [
                [TORCH],
                ["onnxruntime-genai==0.18.0", "onnxruntime==1.31.1", "transformers==5.23.0", "onnx", "onnx-ir"],
            ],
            as_onnx,
            script("onnxruntime_int4.py"),
            lacks={"olmoe": "its model builder has no case for OlmoeForCausalLM"},
        ),
        Peer(
            "ctranslate2",
            "bench-ctranslate2",
            [[TORCH], ["ctranslate2==4.8.5", "transformers==5.23.0"]],
            as_ctranslate2,
            script("ctranslate2_int8.py"),
            lacks={"olmoe": "its converter has no case for OlmoeForCausalLM"},
        ),
        Peer(
            "transformers",
            "bench-transformers",
            [[TORCH], ["transformers==5.23.0"]],
            as_folder,
            script("transformers_bf16.py"),
            arithmetic="bf16_gflops",
        ),
    )
}
