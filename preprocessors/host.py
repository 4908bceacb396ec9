"""What a detector gets from the program that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..core.memory import Memory
from .weights.store import WeightStore


class Host(WeightStore, Protocol):
    """The program that runs a detector: ComfyUI, a script or a test."""

    @property
    def memory(self) -> Memory: ...

    def warn(self, text: str) -> None:
        """Show the user a sentence next to the result."""
        ...


@dataclass
class PlainHost:
    """A host for scripts and tests: it collects the warnings and never stops a run."""

    memory: Memory
    weight_folders: Sequence[Path] = ()
    warnings: list[str] = field(default_factory=list)

    def progress(self, done: int, total: int) -> None:
        pass

    def warn(self, text: str) -> None:
        self.warnings.append(text)
