"""`python -m controlstack.preprocessors`: list and fetch the trained files of the detectors.

Inside a ComfyUI the pack goes by the name of its folder: run it in custom_nodes, as `python -m <folder>.preprocessors`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import ControlStackError
from ..core.modality import Modality
from .fetch import megabytes
from .registry import detector_for
from .weight_folders import OWN_FOLDER, folder_of_this_comfyui, folders_of_others
from .weights import Weights, find, obtain


@dataclass
class _TerminalStore:
    """The weight folders of a command, and its progress on one line."""

    weight_folders: Sequence[Path]

    def progress(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done >= total else ""
            sys.stderr.write(f"\r  {megabytes(done)} of {megabytes(total)}{end}")
            sys.stderr.flush()


@dataclass(frozen=True)
class _Need:
    """A trained file and who needs it, e.g. "softedge pidinet"."""

    method: str
    weights: Weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 1 when a file is missing that was to be fetched."""
    options = _parse(arguments)
    store = _TerminalStore(_folders(options.folder))
    modalities = list(Modality) if options.modality == "all" else [Modality(options.modality)]
    needs = [need for modality in modalities for need in _needs(modality)]
    if not needs:
        sys.stdout.write(f"{options.modality} needs no trained file.\n")
    failed = False
    for need in needs:
        try:
            _report(need, options.command == "fetch", store)
        except ControlStackError as error:
            failed = True
            sys.stderr.write(f"{need.method}: {error}\n")
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m controlstack.preprocessors", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|fetch")
    choices = ["all", *(modality.value for modality in Modality)]
    for name, text in (("list", "say what is needed and where it is"), ("fetch", "fetch what is missing")):
        command = commands.add_parser(name, help=text)
        command.add_argument("modality", choices=choices, metavar="MODALITY", help=f"one of {', '.join(choices)}")
        command.add_argument("--folder", type=Path, help=f"instead of ComfyUI's models/{OWN_FOLDER}")
    options = parser.parse_args(arguments)
    options.folder = options.folder or folder_of_this_comfyui()
    if options.folder is None:
        parser.error("the pack does not lie in a ComfyUI's custom_nodes: name the folder with --folder")
    return options


def _folders(own: Path) -> list[Path]:
    comfyui = folder_of_this_comfyui()
    return [own, *folders_of_others([comfyui.parent.parent / "custom_nodes"] if comfyui else [], [])]


def _needs(modality: Modality) -> Iterator[_Need]:
    for method in detector_for(modality).methods:
        for weights in method.weights:
            yield _Need(f"{modality.value} {method.name}".strip(), weights)


def _report(need: _Need, fetch: bool, store: _TerminalStore) -> None:
    weights = need.weights
    found = find(weights, store)
    if found is None and fetch:
        sys.stdout.write(f"{need.method}: fetching {weights.file} ({megabytes(weights.size)}) from {weights.repo}\n")
        sys.stdout.flush()
        found = obtain(weights, store)
    where = found or f"missing; fetch brings it from {weights.url}"
    sys.stdout.write(f"{need.method}: {weights.file} ({megabytes(weights.size)}): {where}\n")


if __name__ == "__main__":
    sys.exit(main())
