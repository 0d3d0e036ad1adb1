"""`edgewise doctor`: what this machine offers, what was chosen, and why."""

import json
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import edgewise
from edgewise.base import EdgewiseError
from edgewise.serve import machine
from edgewise.serve.options import Json, Threads, human

PROBE_BYTES = 48 << 20  # written to measure reading

# what each kernel table is after; the names are the kernel's own in /proc/cpuinfo
FEATURES = (
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_vbmi", "avx512_bf16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


def command(threads: Threads = None, as_json: Json = False) -> None:
    """Prints CPU features, the kernels chosen, threads and why, memory and its limits, disk, caches."""
    facts = diagnose(threads)
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for section, values in facts.items():
        if not isinstance(values, dict):
            continue
        print(section)
        for name, value in values.items():
            print(f"  {name.removesuffix('_bytes'):<18} {_say(name, value)}")
    for note in facts["notes"]:
        print(f"note: {note}")


def diagnose(threads: int | None = None) -> dict[str, Any]:
    from huggingface_hub import constants

    flags, memory = machine.cpu_flags(), machine.meminfo()
    allowed, quota = machine.cpus(), machine.cpu_quota()
    kernels = _kernels(threads)
    cache = Path(constants.HF_HUB_CACHE)
    facts: dict[str, Any] = {
        "edgewise": {
            "version": edgewise.__version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}",
        },
        "cpu": {
            "model": machine.cpu_model(),
            "machine": platform.machine(),
            "features": [name for name in FEATURES if name in flags],
            "caches": machine.caches(),
            "cpus_total": os.cpu_count(),
            "cpus_allowed": allowed,
            "cpu_quota": quota,
        },
        "kernels": kernels,
        "memory": {
            "total_bytes": memory.get("MemTotal"),
            "available_bytes": memory.get("MemAvailable"),
            "limit_bytes": machine.memory_limit_bytes(),
            "swap_bytes": memory.get("SwapTotal"),
            "huge_pages": machine.huge_pages(),
        },
        "disk": {
            "folder": str(Path.cwd()),
            "free_bytes": shutil.disk_usage(Path.cwd()).free,
            "model_cache": str(cache),
            "model_cache_exists": cache.is_dir(),
            "model_cache_free_bytes": shutil.disk_usage(_existing(cache)).free,
        },
        "reading": _reading(Path.cwd()),
        "tuning": _tuning(kernels),
        "environment": {name: value for name, value in sorted(os.environ.items()) if _ours(name)},
    }
    facts["notes"] = _notes(facts)
    return facts


def _kernels(threads: int | None) -> dict[str, Any]:
    """The device a model would run on, and how many threads it takes and why."""
    from edgewise.kernels.devices import DEVICES

    try:
        info = DEVICES.build("cpu", threads=threads).info
    except (EdgewiseError, ImportError) as error:
        return {"device": None, "why": f"{type(error).__name__}: {error}"}
    forced = os.environ.get("EDGEWISE_ISA")
    quota, allowed = machine.cpu_quota(), len(machine.cpus())
    if threads is not None:
        why = "--threads or EDGEWISE_THREADS"
    elif quota is not None and quota < allowed:
        why = f"the control group allows {quota:g} CPUs of time on {allowed}"
    elif info.threads < allowed:
        why = f"one for each core; the {allowed} CPUs this process may use are {info.threads} cores"
    else:
        why = f"this process may use {allowed} CPUs"
    return {
        "device": info.name,
        "table": info.isa,
        "table_why": f"EDGEWISE_ISA={forced}" if forced else "the best this CPU has",
        "threads": info.threads,
        "threads_why": why,
    }


def _reading(folder: Path) -> dict[str, Any]:
    """How weights under a memory budget would be read here, and why: measured on a file that is written and removed."""
    from edgewise.kernels.rings import why_not
    from edgewise.weights.probing import PIECE_BYTES, probe

    facts: dict[str, Any] = {"io_uring": why_not() or "yes"}
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".edgewise-doctor-", suffix=".gguf") as file:
            block = os.urandom(PIECE_BYTES)
            for _ in range(PROBE_BYTES // PIECE_BYTES):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            found = probe(Path(file.name))
    except OSError as error:
        return {**facts, "source": None, "source_why": f"{folder} cannot be written to: {error.strerror}"}
    return {**facts, "source": found.chosen, "source_why": found.why}


def _tuning(kernels: dict[str, Any]) -> dict[str, Any]:
    """What was measured on this machine before; `edgewise tune kernels` writes it."""
    from edgewise.plan.probe import fingerprint
    from edgewise.plan.store import Store

    if kernels["device"] is None:
        return {"store": None}
    store = Store(fingerprint(kernels["threads"], kernels["table"]))
    found = store.entries("kernels")
    return {
        "store": str(store.path),
        "matmuls_measured": len(found),
        "matmuls_changed": sum(bool(entry.get("knobs")) for entry in found.values()),
        "choices": len(store.entries("choices")),
        "complaint": store.complaint or None,
    }


def _notes(facts: dict[str, Any]) -> list[str]:
    notes = []
    memory, cpu, kernels = facts["memory"], facts["cpu"], facts["kernels"]
    if kernels["device"] is None:
        notes.append("the compiled extension does not load; scripts/build builds it.")
    if memory["limit_bytes"] and memory["total_bytes"]:
        notes.append(f"the control group limits memory to {human(memory['limit_bytes'])}; models must fit in that.")
    if cpu["cpu_quota"] is not None and cpu["cpu_quota"] < len(cpu["cpus_allowed"]):
        notes.append("more threads than the quota allows are stopped for part of each period, which hurts decoding.")
    if facts["disk"]["model_cache_free_bytes"] < 2**30:
        notes.append("less than 1 GiB is free where models are downloaded; HF_HOME moves the cache.")
    if facts["tuning"].get("complaint"):
        notes.append(facts["tuning"].pop("complaint"))
    facts["tuning"].pop("complaint", None)
    return notes


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _ours(name: str) -> bool:
    return name.startswith("EDGEWISE_") or (name.startswith("HF_") and "TOKEN" not in name)


def _say(name: str, value: Any) -> str:
    if value is None:
        return "none" if name in ("limit_bytes", "cpu_quota") else "unknown"
    if name.endswith("_bytes"):
        return human(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
