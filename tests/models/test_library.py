"""ComfyUI's model folders are searched again only if something was added or removed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from controlstack.models import library as module
from controlstack.models.library import Library

LONG_AGO = 10**9


class Walks:
    """Counts the folders that are searched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        walk = os.walk

        def counted(*values: object, **more: object) -> object:
            self.count += 1
            return walk(*values, **more)  # pyright: ignore[reportCallIssue, reportArgumentType]

        monkeypatch.setattr(module.os, "walk", counted)


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> Walks:
    return Walks(monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a file, a file below, and a diffusers folder."""
    root = tmp_path / "models"
    (root / "below" / "deeper").mkdir(parents=True)
    (root / "a.safetensors").touch()
    (root / "below" / "deeper" / "b.sft").touch()
    (root / "folder").mkdir()
    (root / "folder" / "config.json").touch()
    (root / "folder" / "diffusion_pytorch_model.safetensors").touch()
    (root / "notes.txt").touch()
    grown_old(root)
    return root


def grown_old(root: Path) -> None:
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        os.utime(folder, ns=(LONG_AGO, LONG_AGO))


def names(*roots: Path) -> list[str]:
    return [file.name for file in Library({"vae": roots}).files("vae")]


ALL = ["a.safetensors", "below/deeper/b.sft", "folder"]


def test_an_unchanged_folder_is_searched_once(root: Path, walks: Walks) -> None:
    assert [names(root) for _ in range(5)] == [ALL] * 5
    assert walks.count == 1


@pytest.mark.parametrize("place", ["", "below", "below/deeper"])
def test_an_added_or_removed_file_is_noticed_at_any_depth(root: Path, walks: Walks, place: str) -> None:
    names(root)
    added = root / place / "new.safetensors"
    added.touch()
    assert added.relative_to(root).as_posix() in names(root)
    grown_old(root)
    names(root)
    added.unlink()
    assert names(root) == ALL
    assert walks.count == 4


def test_a_diffusers_folder_that_loses_its_configuration_is_a_folder_of_files(root: Path) -> None:
    names(root)
    (root / "folder" / "config.json").unlink()
    assert names(root) == [*ALL[:2], "folder/diffusion_pytorch_model.safetensors"]


def test_the_listing_of_a_folder_that_changed_just_now_is_not_cached(root: Path, walks: Walks) -> None:
    """Two changes within the resolution of timestamps have one time."""
    (root / "new.safetensors").touch()
    just_now = (root.stat().st_atime_ns, root.stat().st_mtime_ns)
    names(root)
    (root / "newer.safetensors").touch()
    os.utime(root, ns=just_now)
    assert "newer.safetensors" in names(root)
    assert walks.count == 2


def test_a_missing_folder_is_empty_until_it_exists(tmp_path: Path, walks: Walks) -> None:
    root = tmp_path / "later"
    assert names(root) == names(root) == []
    assert walks.count == 1
    root.mkdir()
    (root / "a.safetensors").touch()
    assert names(root) == ["a.safetensors"]
    shutil.rmtree(root)
    assert names(root) == []


def test_the_first_file_of_a_name_wins_and_each_folder_is_searched_once(
    root: Path, tmp_path: Path, walks: Walks
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("a.safetensors", "z.ckpt"):
        (other / name).touch()
    grown_old(other)
    for _ in range(3):
        assert names(root, other) == [*ALL, "z.ckpt"]
    assert walks.count == 2
