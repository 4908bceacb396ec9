"""The house rules that a reader relies on: who imports whom, what importing costs, what the files are made of."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACK = ("core", "preprocessors", "local", "api_clients", "nodes")
MIDDLE = {"preprocessors", "local", "api_clients"}
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "server", "nodes", "execution"}
HEAVY = ("torch", "cv2", "diffusers", "transformers", "controlnet_aux", "PIL", "numpy", "scipy")


def pack_files() -> list[Path]:
    return sorted(path for room in PACK for path in (ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(level, module) of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


@pytest.mark.parametrize("path", pack_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_arrows_point_one_way(path: Path) -> None:
    room = room_of(path)
    allowed = {"core": {"core"}, "nodes": set(PACK)}.get(room, {room, "core"})
    for level, module in imports(path):
        first = module.split(".")[0]
        if level >= 2:
            assert first in allowed, f"{room} may not import {first}"
        if level == 0:
            assert first != "controlstack", "the pack imports itself relatively only"
            if room == "core":
                assert first in {*sys.stdlib_module_names, "torch"}
            if first in COMFYUI:
                assert path == ROOT / "nodes" / "comfy.py", "ComfyUI is known to nodes/comfy.py alone"


@pytest.mark.parametrize("path", pack_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sources_are_ascii_and_short(path: Path) -> None:
    text = path.read_bytes()
    assert text.isascii(), "Windows reads sources in the system's code page"
    assert text.count(b"\n") <= 500


def test_importing_the_pack_without_comfyui_loads_nothing_heavy() -> None:
    # A subclass of a diffusers scheduler needs diffusers; these are imported when such a scheduler is made.
    light = [path for path in pack_files() if room_of(path) != "nodes" and not path.name.startswith("scheduling_")]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in light]
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module("controlstack." + name)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
