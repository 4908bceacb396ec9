"""`python -m controlstack.preprocessors`: list and fetch the trained files of the detectors.

In a ComfyUI the package has the name of its folder: run `python -m <folder>.preprocessors` in custom_nodes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import ControlStackError
from ..core.modality import Modality
from .detectors.registry import detector_for
from .weights.declarations import Weights
from .weights.fetch import megabytes
from .weights.folders import OWN_FOLDER, folder_of_this_comfyui, folders_of_others
from .weights.store import find, obtain


@dataclass
class _TerminalStore:
    """The weight folders of the command. Progress is shown in one line of the terminal."""

    weight_folders: Sequence[Path]

    def progress(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done >= total else ""
            sys.stderr.write(f"\r  {megabytes(done)} of {megabytes(total)}{end}")
            sys.stderr.flush()


@dataclass(frozen=True)
class _RequiredFile:
    """A trained file and the method that needs it, e.g. "softedge pidinet"."""

    method: str
    weights: Weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns 1 when a file could not be fetched."""
    options = _parse(arguments)
    store = _TerminalStore(_folders(options.folder))
    modalities = list(Modality) if options.modality == "all" else [Modality(options.modality)]
    required = [file for modality in modalities for file in _required_files(modality)]
    if not required:
        sys.stdout.write(f"{options.modality} needs no trained file.\n")
    failed = False
    for file in required:
        try:
            _report(file, options.command == "fetch", store)
        except ControlStackError as error:
            failed = True
            sys.stderr.write(f"{file.method}: {error}\n")
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m controlstack.preprocessors", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|fetch")
    choices = ["all", *(modality.value for modality in Modality)]
    for name, text in (
        ("list", "list the trained files and where they are"),
        ("fetch", "fetch the files that are missing"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("modality", choices=choices, metavar="MODALITY", help=f"one of {', '.join(choices)}")
        command.add_argument(
            "--folder", type=Path, help=f"folder for the files; default: models/{OWN_FOLDER} of ComfyUI"
        )
    options = parser.parse_args(arguments)
    options.folder = options.folder or folder_of_this_comfyui()
    if options.folder is None:
        parser.error("The pack is not installed in the custom_nodes of a ComfyUI. Name the folder with --folder.")
    return options


def _folders(own: Path) -> list[Path]:
    comfyui = folder_of_this_comfyui()
    return [own, *folders_of_others([comfyui.parent.parent / "custom_nodes"] if comfyui else [], [])]


def _required_files(modality: Modality) -> Iterator[_RequiredFile]:
    for method in detector_for(modality).methods:
        for weights in method.weights:
            yield _RequiredFile(f"{modality.value} {method.name}".strip(), weights)


def _report(required: _RequiredFile, fetch: bool, store: _TerminalStore) -> None:
    weights = required.weights
    found = find(weights, store)
    if found is None and fetch:
        sys.stdout.write(
            f"{required.method}: fetching {weights.file} ({megabytes(weights.size)}) from {weights.repo}\n"
        )
        sys.stdout.flush()
        found = obtain(weights, store)
    where = found or f"missing; fetch downloads it from {weights.url}"
    sys.stdout.write(f"{required.method}: {weights.file} ({megabytes(weights.size)}): {where}\n")


if __name__ == "__main__":
    sys.exit(main())
