"""Row R03: a valid file cut after every byte of its header, and at points spread over its data, never opens."""

import tempfile
from pathlib import Path

from edgewise.testing.mutate import gguf, safetensors
from edgewise.testing.mutate.forks import bound95, run_cases
from edgewise.testing.mutate.loading import stages, use
from edgewise.testing.tiny import tiny_model


def truncations(points: int, wanted: str = "all", *, every: int = 1, rss: bool = True) -> dict[str, object]:
    """Cuts a GGUF and a safetensors file at each `every`-th header byte and at `points` places of the data.

    A cut that still opens counts as a failure too: nothing in these files can be missed.
    """
    names = stages(wanted)
    with tempfile.TemporaryDirectory() as folder:
        hf = tiny_model("llama", Path(folder) / "hf")
        whole = {
            "gguf": (Path(folder) / "model.gguf", gguf.tiny().encode(), len(gguf.tiny().header())),
            "st": (hf / "model.safetensors", b"", 0),
        }
        data = (hf / "model.safetensors").read_bytes()
        whole["st"] = (hf / "model.safetensors", data, len(safetensors.parse(data).header()) + 8)
        cuts: list[tuple[str, int]] = []
        for kind, (_, content, header) in whole.items():
            step = max(1, (len(content) - header) // max(1, points))
            last = len(content) - (len(content) % 32 if kind == "gguf" else 0)
            places = {*range(0, header, every), *range(header, last, step), last - 1}
            cuts += [(kind, at) for at in sorted(places)]

        def run(number: int) -> tuple[int, str]:
            kind, at = cuts[number] if number >= 0 else ("gguf", None)
            path, content, _ = whole[kind]
            path.write_bytes(content[:at])
            outcome = use(path if kind == "gguf" else path.parent, names)
            if number >= 0 and outcome != "open":
                raise AssertionError(f"{kind} cut at byte {at} of {len(content)} opened")
            return len(content), outcome

        failures, outcomes = run_cases(range(len(cuts)), run, control=-1, rss=rss)
    return {
        "row": "R03", "n": len(cuts), "fail": len(failures), "bound95": bound95(len(failures), len(cuts)),
        "outcomes": dict(outcomes), "failures": [[*cuts[f.case], f.what] for f in failures[:5]],
    }  # fmt: skip
