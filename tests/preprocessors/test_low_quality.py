"""Low quality is worse in three ways, each of which can be set, and the same for the same seed."""

from __future__ import annotations

import pytest
import torch
from controlstack.preprocessors.detectors.filters import LOW_QUALITY
from controlstack.preprocessors.host import PlainHost

UNTOUCHED = {"reduce": 1.0, "noise": 0.0, "jpeg_quality": 100}


def test_with_everything_off_it_is_the_image(photo: torch.Tensor, host: PlainHost) -> None:
    assert torch.equal(LOW_QUALITY.detect(photo, host, UNTOUCHED), photo)


@pytest.mark.parametrize("settings", [{}, {"noise": 0.2, "seed": 3}])
def test_the_same_seed_repeats(photo: torch.Tensor, host: PlainHost, settings: dict) -> None:
    torch.manual_seed(1)
    first = LOW_QUALITY.detect(photo, host, settings)
    torch.manual_seed(2)
    assert torch.equal(LOW_QUALITY.detect(photo, host, settings), first)
    assert not torch.equal(LOW_QUALITY.detect(photo, host, {**settings, "seed": 99}), first)


@pytest.mark.parametrize("strength", [0.02, 0.1])
def test_the_noise_has_the_strength_asked_for(host: PlainHost, strength: float) -> None:
    gray = torch.full((1, 128, 128, 3), 0.5)
    noisy = LOW_QUALITY.detect(gray, host, {**UNTOUCHED, "noise": strength})
    assert float(noisy.std()) == pytest.approx(strength, rel=0.05)
    assert float(noisy.mean()) == pytest.approx(0.5, abs=0.01)


def test_compression_leaves_the_borders_of_its_blocks(photo: torch.Tensor, host: PlainHost) -> None:
    compressed = LOW_QUALITY.detect(photo, host, {**UNTOUCHED, "jpeg_quality": 5})
    steps = (compressed[:, :, 1:] - compressed[:, :, :-1]).abs().mean((0, 1, 3))
    at_borders = steps[7::8].mean()
    assert at_borders > 1.5 * steps.mean()


def test_each_way_is_worse_the_further_it_goes(photo: torch.Tensor, host: PlainHost) -> None:
    for name, mild, harsh in (("reduce", 2.0, 8.0), ("noise", 0.05, 0.2), ("jpeg_quality", 80, 5)):
        errors = [
            (LOW_QUALITY.detect(photo, host, {**UNTOUCHED, name: value}) - photo).square().mean()
            for value in (mild, harsh)
        ]
        assert 0 < errors[0] < errors[1], name
