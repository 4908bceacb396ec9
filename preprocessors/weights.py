"""Trained files: what they are called, where they are found, and how they are fetched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Weights:
    """A file on the hub, pinned: `file` in `repo` at commit `revision`, of `size` bytes with the checksum `sha256`.

    Other programs keep the same file under other paths; `names` are those it is recognised by.
    """

    repo: str
    revision: str
    file: str
    size: int
    sha256: str
    names: tuple[str, ...] = ()
