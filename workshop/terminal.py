"""What the person at the keyboard sees: failures as sentences, and progress."""

from __future__ import annotations

import errno
import shutil
import sys
import time


class Failure(Exception):
    """Something the person at the keyboard can act on; its text is one sentence, perhaps with log lines below."""


def say(text: str) -> None:
    print(text, flush=True)


class Progress:
    """One line that keeps changing on a terminal; at most a line a second elsewhere."""

    def __init__(self) -> None:
        self._shown_at = 0.0

    def show(self, text: str) -> None:
        if sys.stdout.isatty():
            width = (shutil.get_terminal_size().columns or 80) - 1
            print("\r" + text[:width].ljust(width), end="", flush=True)
        elif time.monotonic() - self._shown_at >= 1:
            say(text)
        else:
            return
        self._shown_at = time.monotonic()

    def end(self) -> None:
        if self._shown_at and sys.stdout.isatty():
            say("")


def explain_os_error(error: OSError) -> str:
    """A sentence for what the person can put right; empty for what only a traceback explains."""
    where = error.filename or "this machine"
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return f"The disk is full ({where}): make room, then run again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"This user may not write {where}: {error.strerror}."
    return ""
