"""Finds a Chromium-based browser on this machine, for the tests of the editor."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .terminal import Failure

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge")
MAC_APPS = ("Chromium", "Google Chrome", "Microsoft Edge")
WINDOWS_PROGRAMS = ("Google/Chrome/Application/chrome.exe", "Microsoft/Edge/Application/msedge.exe")


def find_chromium() -> Path | None:
    """CHROMIUM_PATH, or the first browser on PATH or in the usual folders of macOS and Windows, or None."""
    chosen = os.environ.get("CHROMIUM_PATH")
    if chosen:
        if not Path(chosen).is_file():
            raise Failure(f"CHROMIUM_PATH is {chosen}, but there is no such file.")
        return Path(chosen)
    on_path = (shutil.which(name) for name in NAMES)
    candidates = [Path(found) for found in on_path if found]
    candidates += [Path(f"/Applications/{name}.app/Contents/MacOS/{name}") for name in MAC_APPS]
    folders = [os.environ[name] for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA") if name in os.environ]
    candidates += [Path(folder, program) for folder in folders for program in WINDOWS_PROGRAMS]
    return next((candidate for candidate in candidates if candidate.is_file()), None)
