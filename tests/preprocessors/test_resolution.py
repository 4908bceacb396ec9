"""What a network draws over an image lies where it lies in the image, whatever its size."""

from __future__ import annotations

import pytest
import torch
from controlstack.preprocessors.resolution import Fit


@pytest.mark.parametrize("multiple", [1, 8, 256])
@pytest.mark.parametrize("size", [(8, 8), (37, 53), (64, 128)])
def test_what_goes_in_comes_out_where_it_was(size: tuple[int, int], multiple: int) -> None:
    images = torch.rand(2, 3, *size)
    fit = Fit(*size, multiple=multiple)
    padded = fit.to_network(images)
    assert padded.shape[-2:] == fit.padded
    assert all(side % multiple == 0 for side in fit.padded)
    assert torch.equal(fit.from_network(padded), images)


def test_what_is_added_repeats_the_border() -> None:
    padded = Fit(5, 3, multiple=4).to_network(torch.arange(15.0).view(1, 1, 5, 3) / 15)[0, 0] * 15
    assert padded.round().int().tolist()[4:] == [[12, 13, 14, 14]] * 4


@pytest.mark.parametrize("resolution", [24, 100])
def test_another_resolution_keeps_the_images_shape_and_places(resolution: int) -> None:
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(90.0), indexing="ij")
    spot = torch.exp(-((y - 20) ** 2 + (x - 65) ** 2) / 50)[None, None]
    fit = Fit(60, 90, resolution, multiple=32)
    assert fit.resized == (resolution, resolution * 90 // 60)
    back = fit.from_network(fit.to_network(spot))[0, 0]
    assert back.shape == (60, 90)
    assert abs((back * y).sum() / back.sum() - 20) < 0.3
    assert abs((back * x).sum() / back.sum() - 65) < 0.3
