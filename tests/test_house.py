"""The house rules that a reader relies on: who imports whom, what importing costs, what the files are made of."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ARROWS = {
    "core": set(),
    "models": {"core"},
    "preprocessors": {"core"},
    "local": {"models", "core"},
    "api_clients": {"core"},
    "nodes": {"preprocessors", "local", "api_clients", "models", "core"},
}
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "server", "nodes", "execution"}
HEAVY = ("torch", "cv2", "diffusers", "transformers", "controlnet_aux", "PIL", "numpy", "scipy", "boto3", "requests")
MOST_MODULES = 16
MOST_LOCAL_ROOMS = 10
MOST_LOCAL_FLOORS = 6


@cache
def pack_files() -> list[Path]:
    return sorted(path for room in ARROWS for path in (ROOT / room).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(path: Path) -> frozenset[tuple[int, str]]:
    """(level, absolute module) of every import in a file, wherever it stands; level 0 is outside the pack."""
    package = path.parent.relative_to(ROOT).parts
    found: set[tuple[int, str]] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(0, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            target = ".".join((*base, *filter(None, [node.module])))
            submodules = {f"{target}.{alias.name}" for alias in node.names} & pack_modules() if node.level else set()
            found |= {(node.level, name) for name in submodules or {target}}
    return frozenset(found)


@cache
def pack_modules() -> frozenset[str]:
    return frozenset(map(module_of, pack_files()))


def module_graph(room: str = "") -> dict[str, set[str]]:
    """Which modules of the pack (or of one room) each module imports."""
    files = [path for path in pack_files() if not room or path.relative_to(ROOT).parts[0] == room]
    known = set(map(module_of, files))
    return {module_of(path): {name for level, name in imports(path) if level and name in known} for path in files}


def folder_graph(room: str) -> dict[str, set[str]]:
    """Which folders inside a room each folder imports from."""
    graph: dict[str, set[str]] = {}
    for module, targets in module_graph(room).items():
        if module.endswith("__main__"):
            continue  # a command stands above its whole room
        folder = folder_of(module)
        graph.setdefault(folder, set()).update(folder_of(target) for target in targets)
    return {folder: targets - {folder} for folder, targets in graph.items()}


def folder_of(module: str) -> str:
    is_package = (ROOT.joinpath(*module.split(".")) / "__init__.py").is_file()
    return module if is_package else module.rpartition(".")[0]


def floors(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each folder: one above the highest it imports from."""
    height: dict[str, int] = {}
    for folder in TopologicalSorter(graph).static_order():
        height[folder] = 1 + max((height[below] for below in graph[folder]), default=0)
    return height


@pytest.mark.parametrize("path", pack_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_arrows_point_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for level, module in imports(path):
        first = module.split(".")[0]
        if level:
            assert first in {room, *ARROWS[room]}, f"{room} may not import {first}"
        else:
            assert first != "controlstack", "the pack imports itself relatively only"
            if room == "core":
                assert first in {*sys.stdlib_module_names, "torch"}
            if first in COMFYUI:
                assert path == ROOT / "nodes" / "comfy.py", "ComfyUI is known to nodes/comfy.py alone"


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(module_graph()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("room", ARROWS)
def test_folders_inside_a_room_do_not_import_each_other_in_a_circle(room: str) -> None:
    try:
        TopologicalSorter(folder_graph(room)).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_local_engine_has_few_rooms_on_few_floors() -> None:
    graph = folder_graph("local")
    rooms = graph.keys() - {"local"}
    assert len(rooms) <= MOST_LOCAL_ROOMS, sorted(rooms)
    height = floors({room: graph[room] & rooms for room in rooms})
    assert max(height.values()) <= MOST_LOCAL_FLOORS, height


@pytest.mark.parametrize("folder", sorted({path.parent for path in pack_files()}), ids=lambda path: path.name)
def test_a_folder_can_be_held_in_the_head(folder: Path) -> None:
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES, [path.name for path in modules]


@pytest.mark.parametrize("path", pack_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sources_are_ascii_and_short(path: Path) -> None:
    text = path.read_bytes()
    assert text.isascii(), "Windows reads sources in the system's code page"
    assert text.count(b"\n") <= 500


def light_modules() -> Iterator[str]:
    """Every module outside the nodes, without those that define a subclass of a diffusers scheduler.

    These are imported when such a scheduler is made.
    """
    for module in sorted(pack_modules()):
        defines_scheduler = module.startswith("local.schedulers.") and module != "local.schedulers.factory"
        if module.partition(".")[0] != "nodes" and not defines_scheduler:
            yield module


def test_importing_the_pack_without_comfyui_loads_nothing_heavy() -> None:
    code = f"""
import importlib, sys
for name in {list(light_modules())!r}:
    importlib.import_module("controlstack." + name)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
