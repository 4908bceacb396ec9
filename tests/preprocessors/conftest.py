"""What the detectors' tests share."""

from __future__ import annotations

import pytest
import torch
from controlstack.core.memory import PlainMemory
from controlstack.preprocessors.host import PlainHost


@pytest.fixture
def host() -> PlainHost:
    """A host on the CPU, without weight folders, that keeps the warnings."""
    return PlainHost(PlainMemory(torch.device("cpu")))


@pytest.fixture(scope="session")
def photo() -> torch.Tensor:
    """scikit-image's astronaut at half its size, [1, 256, 256, 3]."""
    from skimage import data

    return torch.from_numpy(data.astronaut()[::2, ::2].copy()).float()[None] / 255
