"""What was measured on this machine, kept between runs: one small JSON file for each fingerprint.

A file that is damaged, of another machine or of another version is not used and not fatal: the store is then empty, and
`complaint` says why in one sentence. Files are replaced as a whole, so that no reader ever sees half of one; two
processes that save at the same moment may lose the entries of one of them, never the file.
"""

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgewise.plan.folder import cache_folder
from edgewise.plan.probe import Fingerprint

VERSION = 1
MOST_BYTES = 4 << 20
SECTIONS = ("choices", "kernels")  # each: key → entry, an object


class Store:
    """The entries of one fingerprint. folder: None is `tuning` in edgewise's cache directory."""

    def __init__(self, of: Fingerprint, folder: Path | None = None) -> None:
        self.of = of
        self.folder = cache_folder() / "tuning" if folder is None else folder
        self.path = self.folder / f"{of.name}.json"
        self.complaint = ""  # one sentence about a file that could not be used, or could not be written
        self._sections = self._read()

    def entries(self, section: str) -> dict[str, dict[str, Any]]:
        """A copy."""
        return dict(self._sections[section])

    def get(self, section: str, key: str) -> dict[str, Any] | None:
        return self._sections[section].get(key)

    def put(self, section: str, entries: dict[str, dict[str, Any]]) -> bool:
        """Adds or replaces entries and writes them, beside what others have written since. False: `complaint` says why
        they are only remembered by this object."""
        mine = {name: dict(old) for name, old in self._sections.items()}
        mine[section].update(entries)
        for name, found in self._read().items():
            mine[name] = {**found, **mine[name]}
        self._sections = mine
        return self._write()

    def forget(self) -> None:
        """Empties it, and its file."""
        self._sections = {name: {} for name in SECTIONS}
        self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, dict[str, dict[str, Any]]]:
        try:
            with open(self.path, "rb") as file:
                blob = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return {name: {} for name in SECTIONS}
        except OSError as error:
            return self._refuse(f"cannot be read: {error.strerror}")
        if len(blob) > MOST_BYTES:
            return self._refuse(f"is larger than {MOST_BYTES >> 20} MiB")
        try:
            content = json.loads(blob)
        except (ValueError, RecursionError):
            return self._refuse("is damaged")
        if not isinstance(content, dict) or content.get("version") != VERSION:
            return self._refuse("was not written by this version of edgewise")
        if content.get("machine") != asdict(self.of):
            return self._refuse("belongs to another machine")
        sections = {}
        for name in SECTIONS:
            found = content.get(name)
            if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
                return self._refuse("is damaged")
            sections[name] = found
        return sections

    def _refuse(self, why: str) -> dict[str, dict[str, dict[str, Any]]]:
        self.complaint = f"{self.path} {why}; it is not used. `edgewise tune kernels` writes a new one."
        return {name: {} for name in SECTIONS}

    def _write(self) -> bool:
        content = {"version": VERSION, "machine": asdict(self.of), **self._sections}
        temporary = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=f".{self.of.name}.")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError as error:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
            self.complaint = f"{self.path} cannot be written: {error.strerror}; what was measured is lost at exit."
            return False
        return True
