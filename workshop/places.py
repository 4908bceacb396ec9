"""Folders: the clone, and the cache shared by all clones; links between folders, and locks."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .terminal import Failure, say

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / ".comfyui"


def cache_root() -> Path:
    """The folder shared by all clones: CONTROLSTACK_CACHE, or `controlstack` in the user's cache folder."""
    chosen = os.environ.get("CONTROLSTACK_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    if sys.platform == "win32":
        parent = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        parent = Path.home() / "Library" / "Caches"
    else:
        parent = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(parent) / "controlstack"


@contextlib.contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold the lock file `lock` against other processes. The system releases it even if this process is killed."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("ab")
    except OSError as error:
        raise Failure(f"Nothing can be written into {lock.parent}: {error.strerror}.") from error
    with file:
        waiting = False
        while not _try_lock(file):
            if not waiting:
                say(f"Another dev.py holds {lock}: waiting until it is done.")
            waiting = True
            time.sleep(0.5)
        yield


def _try_lock(file: BinaryIO) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def link_folder(link: Path, target: Path) -> None:
    """Make `link` point to `target`: a symbolic link or, on Windows, a junction, which needs no privilege."""
    if os.path.lexists(link):
        if link.resolve() == target.resolve():
            return
        try:
            link.rmdir() if sys.platform == "win32" else link.unlink()  # never removes a folder with files
        except OSError as error:
            raise Failure(f"{link} is in the way of a link to {target}. Move it elsewhere.") from error
    link.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(target), str(link))
    else:
        link.symlink_to(target, target_is_directory=True)
