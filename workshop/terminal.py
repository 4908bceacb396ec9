"""What the user sees in the terminal: failures as sentences, and progress."""

from __future__ import annotations

import errno
import shutil
import sys
import time


class Failure(Exception):
    """A failure that the user can act on. Its text is one sentence, sometimes followed by lines of a log."""


def say(text: str) -> None:
    print(text, flush=True)


class Progress:
    """Progress as one changing line in a terminal, or as at most one line a second in a file or pipe."""

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
    """One sentence for an error that the user can fix; empty for any other error."""
    where = error.filename or "this machine"
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return f"The disk is full ({where}). Free some space, then run again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"You may not write {where}: {error.strerror}."
    return ""
