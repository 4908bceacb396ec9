"""What a detector gets from the program it runs in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..core.memory import Memory


class WeightStore(Protocol):
    """Where trained files are kept.

    `weight_folders` are where they are looked for, in this order; a missing one is fetched into the first.
    """

    @property
    def weight_folders(self) -> Sequence[Path]: ...

    def progress(self, done: int, total: int) -> None:
        """Say how far the work is, in frames, tiles or bytes; raises when the user has stopped the run."""
        ...


class Host(WeightStore, Protocol):
    """The surroundings of a run: ComfyUI, a script or a test."""

    @property
    def memory(self) -> Memory: ...

    def warn(self, text: str) -> None:
        """Show the user a sentence beside the result."""
        ...


@dataclass
class PlainHost:
    """A host for scripts and tests: it keeps the warnings and stops nothing."""

    memory: Memory
    weight_folders: Sequence[Path] = ()
    warnings: list[str] = field(default_factory=list)

    def progress(self, done: int, total: int) -> None:
        pass

    def warn(self, text: str) -> None:
        self.warnings.append(text)
