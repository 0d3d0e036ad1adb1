"""A limit of memory that the system itself enforces, for benches of models larger than it; and what they ask for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup/memory")
PROMPT = "Once upon a time there was a small machine that wanted to"


@contextmanager
def group(limit: int) -> Iterator[Path | None]:
    """A control group with this limit; None where none can be made."""
    folder = GROUPS / f"edgewise-bench-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(limit))
    except OSError:
        if folder.exists():
            folder.rmdir()
        yield None
        return
    try:
        yield folder
    finally:
        folder.rmdir()
