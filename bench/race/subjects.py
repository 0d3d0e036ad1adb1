"""The model that is raced: its files, made when they are not there, and what a pass must read and compute."""

import math
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgewise.serve.measure import CHUNK, main_format, step_bytes
from edgewise.weights import open_checkpoint
from edgewise.weights.api import Checkpoint, TensorInfo
from race.children import Failed, last_line

SPARE = 1 << 30  # bytes of disk that stay free


@dataclass(frozen=True)
class Trial:
    """One measurement. tokens: of the prompt, or decode steps. batch: sequences side by side."""

    op: str  # "prefill" | "decode"
    tokens: int
    batch: int = 1

    @property
    def name(self) -> str:
        kind = "pp" if self.op == "prefill" else "tg"
        return f"{kind}{self.tokens}" + (f"x{self.batch}" if self.batch > 1 else "")

    @property
    def steps(self) -> int:
        return math.ceil(self.tokens / CHUNK) if self.op == "prefill" else self.tokens

    @property
    def rows(self) -> int:
        """Rows of one step."""
        return min(self.tokens, CHUNK) if self.op == "prefill" else self.batch


@dataclass(frozen=True)
class Subject:
    """gguf: what edgewise, llama.cpp and OpenVINO read. hf: what the others are converted from, or None.

    shape: the name to fabricate `hf` by when it does not exist.
    """

    name: str
    gguf: Path
    hf: Path | None
    shape: str | None = None

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return open_checkpoint(self.gguf)

    @cached_property
    def format(self) -> str:
        return main_format(self.checkpoint)

    @property
    def architecture(self) -> str:
        return self.checkpoint.header().architecture

    @cached_property
    def vocab(self) -> int:
        return self.checkpoint.info("token_embd.weight").shape[0]

    @property
    def file_bytes(self) -> int:
        return self.gguf.stat().st_size

    def step_bytes(self, test: Trial, hf: bool = False) -> int:
        """Weight bytes of one step of the test, of the GGUF file or of the Hugging Face folder."""
        return step_bytes(open_checkpoint(self.hf) if hf and self.hf else self.checkpoint, test.rows)

    def operations(self, test: Trial) -> float:
        """Per token: two for each weight of the blocks that it meets, and in decoding for each of the head.

        Attention is not counted, nor a prefill's head, of which one row is wanted.
        """
        infos = [self.checkpoint.info(name) for name in self.checkpoint.names()]
        blocks = sum(self._met(info) for info in infos if info.name.startswith("blk."))
        by_name = {info.name: info for info in infos}
        head = by_name.get("output.weight", by_name["token_embd.weight"])
        return 2.0 * (blocks + (math.prod(head.shape) if test.op == "decode" else 0))

    def _met(self, info: TensorInfo) -> float:
        if len(info.shape) < 2:
            return 0.0
        share = 1.0
        if "_exps." in info.name:
            config = self.checkpoint.header().config
            kind = self.architecture
            share = int(config[f"{kind}.expert_used_count"]) / int(config[f"{kind}.expert_count"])
        return math.prod(info.shape) * share

    def folder(self) -> Path:
        """The Hugging Face folder, fabricated now if need be. Raises Failed."""
        if self.hf is None:
            raise Failed("it needs the model as a Hugging Face folder: give --hf DIR")
        if not self.hf.exists():
            if self.shape is None:
                raise Failed(f"{self.hf} does not exist")
            infos = [self.checkpoint.info(name) for name in self.checkpoint.names()]
            need_room(self.hf.parent, 2 * sum(math.prod(info.shape) for info in infos))
            fabricate(self.shape, self.hf, "bf16")
        return self.hf


def fabricated(shape: str, quant: str, folder: Path) -> Subject:
    """A model of random weights in a real shape, kept in `folder`. Raises Failed."""
    gguf = folder / f"{shape}-{quant}.gguf"
    if not gguf.exists():
        fabricate(shape, gguf, quant)
    return Subject(f"{shape} {quant}", gguf, folder / f"{shape}-hf", shape)


def fabricate(shape: str, out: Path, quant: str) -> None:
    print(f"fabricating {out.name}", file=sys.stderr)
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "edgewise", "fabricate", shape, "-o", str(out), "-q", quant]
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Failed(f"fabricating {out.name}: {last_line(done.stderr)}")


def need_room(folder: Path, nbytes: int) -> None:
    """Raises Failed when the disk has not that much and a spare gigabyte left."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < nbytes + SPARE:
        raise Failed(f"it needs {nbytes / 1e9:.1f} GB of disk in {folder} but {free / 1e9:.1f} GB are free")
