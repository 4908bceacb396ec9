"""What the ComfyUI registry publishes: the tracked files that .comfyignore does not exclude."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from controlstack.workshop.places import ROOT
from PIL import Image

# Everything at the top of the published folder. A new entry here is a decision: does it run in ComfyUI?
TOP = {
    "LICENSE",
    "README.md",
    "__init__.py",
    "api_clients",
    "assets",
    "core",
    "credentials.py",
    "local",
    "locales",
    "models",
    "nodes",
    "preprocessors",
    "pyproject.toml",
    "requirements.txt",
    "web",
    "workflows",
}
ROOMS = ("core", "models", "preprocessors", "local", "api_clients", "nodes")
# The modules that ComfyUI or a user starts: the extension, and the commands run with `python -m`.
ENTRY_POINTS = ("__init__.py", "credentials.py", "preprocessors/__main__.py")
SERVED_OR_READ = ("web/", "locales/", "workflows/", "assets/demo_model/", "assets/samples/", "requirements.txt")
DEVELOPMENT = ("tests/", "tools/", "benchmarks/", "docs/", "workshop/", ".", "dev.py", "requirements-dev.txt")


def git_files(*arguments: str) -> set[str]:
    command = ["git", "ls-files", "-z", "--cached", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8")
    return set(result.stdout.split("\0")) - {""}


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    return {name for name in git_files() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def published(tracked: set[str]) -> set[str]:
    return tracked - git_files("--ignored", f"--exclude-from={ROOT / '.comfyignore'}")


@cache
def imported_files(file: str) -> frozenset[str]:
    """The pack's own files that `file` imports, wherever in the file, with the packages around them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = (ROOT / file).parents[node.level - 1].joinpath(*(node.module or "").split("."))
        for path in (base, *(base / alias.name for alias in node.names)):
            for candidate in (path.with_name(path.name + ".py"), path / "__init__.py"):
                if candidate.is_file():
                    found.add(candidate.relative_to(ROOT).as_posix())
    return frozenset(found)


def reachable_files() -> Iterator[str]:
    """Every file of the pack that an entry point imports, directly or not."""
    waiting, seen = list(ENTRY_POINTS), set[str]()
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += imported_files(file)
            yield file


def test_every_module_the_pack_imports_is_published(published: set[str]) -> None:
    reached = set(reachable_files())
    assert len(reached) > 80, "the imports were not followed"
    assert reached <= published


def test_everything_in_the_rooms_of_the_pack_is_published(tracked: set[str], published: set[str]) -> None:
    assert {name for name in tracked if name.startswith(tuple(f"{room}/" for room in ROOMS))} <= published


def test_everything_served_or_read_at_run_time_is_published(tracked: set[str], published: set[str]) -> None:
    for start in SERVED_OR_READ:
        files = {name for name in tracked if name.startswith(start)}
        assert files, f"there is no {start}"
        assert files <= published


def test_nothing_for_development_is_published(published: set[str]) -> None:
    assert not [name for name in published if name.startswith(DEVELOPMENT)]


def test_the_top_of_the_published_folder_is_what_was_decided(published: set[str]) -> None:
    assert {Path(name).parts[0] for name in published} == TOP


def test_the_registry_s_icon_and_banner_have_the_sizes_it_asks_for() -> None:
    with Image.open(ROOT / "assets" / "icon.png") as icon, Image.open(ROOT / "assets" / "banner.png") as banner:
        assert icon.width == icon.height <= 400
        assert banner.width * 9 == banner.height * 21
