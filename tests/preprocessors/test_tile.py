"""Tile is the image, or what is left of it when it was small once."""

from __future__ import annotations

import torch
from controlstack.preprocessors.detectors.filters import TILE
from controlstack.preprocessors.host import PlainHost
from torch.nn.functional import avg_pool2d


def test_reduce_1_is_the_image_itself(photo: torch.Tensor, host: PlainHost) -> None:
    assert torch.equal(TILE.detect(photo, host, {}), photo)


def test_reduction_keeps_the_averages_and_drops_the_detail(photo: torch.Tensor, host: PlainHost) -> None:
    coarse = TILE.detect(photo, host, {"reduce": 8})

    def blocks(image: torch.Tensor) -> torch.Tensor:
        return avg_pool2d(image.movedim(-1, 1), 8)

    assert (blocks(coarse) - blocks(photo)).abs().mean() < 0.03
    spectra = [torch.fft.fft2(p[0].mean(-1)).abs() for p in (photo, coarse)]
    fine = slice(64, 192)  # periods of less than 4 pixels
    assert spectra[1][fine, fine].mean() < 0.02 * spectra[0][fine, fine].mean()


def test_values_between_8_bit_steps_survive(host: PlainHost) -> None:
    flat = torch.full((1, 24, 24, 3), 0.5 + 0.3 / 255)
    assert torch.allclose(TILE.detect(flat, host, {"reduce": 4}), flat, atol=1e-6)
