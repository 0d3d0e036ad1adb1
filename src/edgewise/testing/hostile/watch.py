"""Sees what a process opens: Python's audit events, and inotify for what native code opens without telling Python."""

import ctypes
import os
import struct
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

IN_OPEN = 0x20
IN_ACCESS = 0x01
IN_CREATE = 0x100
FORBIDDEN = (".py", ".pyc", ".so", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".zip")
EVENTS = frozenset({
    "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "socket.getaddrinfo",
    "pickle.find_class", "os.remove", "os.rename", "os.mkdir", "os.chmod", "ctypes.dlopen", "webbrowser.open",
})  # fmt: skip
_PYTHON = (sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
_LIBRARY = (*map(os.path.realpath, _PYTHON), "/proc", "/sys", "/usr/lib", "/usr/share", "/lib", "/etc/localtime")


class Inotify:
    """Opens and creations in some folders, by any code of any process. Linux only."""

    def __init__(self, folders: Sequence[Path]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders: dict[int, Path] = {}
        for folder in folders:
            watch = libc.inotify_add_watch(self._fd, os.fsencode(folder), IN_OPEN | IN_ACCESS | IN_CREATE)
            if watch < 0:
                raise OSError(ctypes.get_errno(), f"inotify does not watch {folder}")
            self._folders[watch] = folder

    def events(self) -> set[Path]:
        """Files touched since the last call (folders themselves left out)."""
        seen: set[Path] = set()
        while True:
            try:
                data = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return seen
            at = 0
            while at < len(data):
                watch, _, _, length = struct.unpack_from("iIII", data, at)
                name = data[at + 16 : at + 16 + length].rstrip(b"\0")
                if name:
                    seen.add(self._folders[watch] / os.fsdecode(name))
                at += 16 + length

    def close(self) -> None:
        os.close(self._fd)


class Audit:
    """Python's own account of what is opened and run. A hook cannot be removed: install it in a forked process."""

    def __init__(self, allowed: Sequence[Path]) -> None:
        package = Path(__file__).parents[2]
        self._allowed = (*map(os.path.realpath, (*allowed, package)), *_LIBRARY)
        self.on = False
        self.violations: list[str] = []
        sys.addaudithook(self._saw)

    def _saw(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in EVENTS:
            self.violations.append(f"{event} {str(args)[:200]}")
        elif event == "open" and isinstance(args[0], (str, bytes)):
            self.on = False  # realpath must not report itself
            path = os.path.realpath(os.fsdecode(args[0]))
            self.on = True
            if not any(path == root or path.startswith(root + "/") for root in self._allowed):
                self.violations.append(f"opened {path}")
