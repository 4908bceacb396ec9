"""The embedded demo model, loaded once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from controlstack.core.memory import PlainMemory
from controlstack.local.files.load import load_model
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.source import DEMO_MODEL, source_of
from controlstack.models.families import Family
from controlstack.tests.local.stocked import stocked_model


@pytest.fixture(scope="session")
def demo() -> LocalModel:
    return load_model(source_of(DEMO_MODEL), "demo (embedded)", PlainMemory(torch.device("cpu")), torch.float32)


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], LocalModel]:
    """Tiny models of all families with nets, adapters, image encoders and LoRAs; each is made once."""
    return cache(lambda family: stocked_model(family, tmp_path_factory.mktemp(family.name)))


@pytest.fixture(scope="session")
def stocked_inpainting(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], LocalModel]:
    """The same with inpainting UNets."""
    return cache(lambda family: stocked_model(family, tmp_path_factory.mktemp(family.name), in_channels=9))
