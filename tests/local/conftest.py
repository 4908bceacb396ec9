"""The embedded demo model, loaded once."""

from __future__ import annotations

import pytest
import torch
from controlstack.core.memory import PlainMemory
from controlstack.local.model import DEMO_MODEL, LocalModel, load_model


@pytest.fixture(scope="session")
def demo() -> LocalModel:
    return load_model(DEMO_MODEL, "demo (embedded)", PlainMemory(torch.device("cpu")), torch.float32)
