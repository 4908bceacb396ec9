"""Loaded models are cached: switching between two of them reads each once."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from controlstack.core.errors import ModelUnreadable
from controlstack.core.memory import Offload
from controlstack.core.request import GenerationRequest
from controlstack.local.engine.generate import generate
from controlstack.local.engine.model_cache import ModelCache, stamp
from controlstack.local.model.local_model import LocalModel
from controlstack.models.families import Family
from controlstack.tests.local.tiny_models import tiny_model

pytestmark = pytest.mark.slow


@dataclass
class Reading:
    """The number of times each model was read."""

    cache: ModelCache
    loads: list[str]

    def get(self, name: str) -> LocalModel:
        def load() -> LocalModel:
            self.loads.append(name)
            return tiny_model(Family.FLUX_DEV)

        return self.cache.get(name, load)


@pytest.fixture
def reading() -> Reading:
    return Reading(ModelCache(limit=2), [])


def test_switching_between_two_models_reads_each_once(reading: Reading) -> None:
    models = [reading.get(name) for name in ("a", "b") * 4]
    assert reading.loads == ["a", "b"]
    assert (reading.cache.loads, reading.cache.hits) == (2, 6)
    assert models[0] is models[2] and models[1] is models[3]


def test_a_third_model_replaces_the_least_recently_used_one(reading: Reading) -> None:
    for name in ("a", "b", "a", "c", "a", "b"):
        reading.get(name)
    assert reading.loads == ["a", "b", "c", "b"]


@pytest.mark.parametrize("mode", [Offload.NONE, Offload.SEQUENTIAL])
def test_the_old_model_is_freed_before_the_new_one_is_read(reading: Reading, mode: Offload) -> None:
    model = reading.get("a")
    generate(replace(model, offload=mode), GenerationRequest("a star", width=64, height=64, steps=1))
    gone = weakref.ref(model.denoiser)
    del model
    reading.get("b")
    seen: list[bool] = []

    def load() -> LocalModel:
        seen.append(gone() is None)
        return tiny_model(Family.FLUX_DEV)

    reading.cache.get("c", load)
    assert seen == [True]


def test_a_model_that_cannot_be_read_does_not_evict_the_most_recent_one(reading: Reading) -> None:
    def fail() -> LocalModel:
        raise ModelUnreadable("broken")

    for name in ("a", "b"):
        reading.get(name)
    with pytest.raises(ModelUnreadable):
        reading.cache.get("c", fail)
    reading.get("b")
    assert reading.loads == ["a", "b"]


def test_the_stamp_changes_if_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"1")
    before = stamp(path)
    assert stamp(path) == before
    os.utime(path, ns=(1, 1))
    assert stamp(path) != before


def test_the_stamp_of_a_folder_changes_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(b"1")
    before = stamp(tmp_path)
    weights.write_bytes(b"22")
    assert stamp(tmp_path) != before


def test_clear_drops_all_models(reading: Reading) -> None:
    gone = [weakref.ref(reading.get(name).denoiser) for name in ("a", "b")]
    reading.cache.clear()
    assert [model() for model in gone] == [None, None]
    reading.get("a")
    assert reading.loads == ["a", "b", "a"]


def test_clear_keeps_a_model_that_is_being_loaded(reading: Reading) -> None:
    """A finalizer may run in the middle of loading, in the thread that loads."""

    def load() -> LocalModel:
        reading.cache.clear()
        return tiny_model(Family.FLUX_DEV)

    reading.get("a")
    reading.cache.get("b", load)
    reading.get("a")
    assert reading.loads == ["a"]
