"""The blur is a Gaussian: each frequency keeps exactly the contrast that theory says."""

from __future__ import annotations

import math

import pytest
import torch
from controlstack.preprocessors.detectors.filters import BLUR
from controlstack.preprocessors.host import PlainHost


def wave(period: float, size: int = 240) -> torch.Tensor:
    """A cosine along x between 0 and 1. It is even at both borders, as the blur continues images."""
    line = 0.5 + 0.5 * torch.cos(2 * math.pi * torch.arange(size + 1) / period)
    return line[None, None, :, None].expand(1, 64, size + 1, 3).contiguous()


@pytest.mark.parametrize("sigma", [1.5, 4.0])
@pytest.mark.parametrize("period", [6, 12, 24, 60, 120])
def test_a_frequency_keeps_the_contrast_of_a_gaussian(host: PlainHost, sigma: float, period: float) -> None:
    blurred = BLUR.detect(wave(period), host, {"sigma": sigma}) - 0.5
    contrast = float(blurred[0, 32, 0, 0]) / 0.5
    assert contrast == pytest.approx(math.exp(-2 * (math.pi * sigma / period) ** 2), abs=2e-3)


def test_of_a_photo_exactly_the_high_frequencies_go(photo: torch.Tensor, host: PlainHost) -> None:
    """Continued by its mirror image, as the blur does, an image is periodic, and its spectrum exact."""

    def spectrum(image: torch.Tensor) -> torch.Tensor:
        gray = image[0].double().mean(-1)
        gray = torch.cat([gray, gray[1:-1].flip(0)], 0)
        return torch.fft.fft2(torch.cat([gray, gray[:, 1:-1].flip(1)], 1)).abs()

    before, after = spectrum(photo), spectrum(BLUR.detect(photo, host, {"sigma": 2.0}))
    frequency = torch.fft.fftfreq(510)
    kept = torch.exp(-2 * (math.pi * 2.0) ** 2 * (frequency[:, None] ** 2 + frequency[None] ** 2))
    strong = before > 1e-3 * before.max()
    assert ((after - kept * before).abs() / before)[strong].max() < 1e-3
    assert after[kept < 1e-3].sum() < 1e-2 * before[kept < 1e-3].sum()


def test_the_mean_and_the_float_precision_stay(host: PlainHost) -> None:
    flat = torch.full((1, 40, 40, 3), 0.5 + 0.3 / 255)
    assert torch.allclose(BLUR.detect(flat, host, {"sigma": 9.0}), flat, atol=1e-6)
