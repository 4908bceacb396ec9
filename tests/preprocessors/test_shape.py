"""What a network draws over a picture lies where it lies in the picture, whatever its size."""

from __future__ import annotations

import pytest
import torch
from controlstack.preprocessors.shape import Fit


@pytest.mark.parametrize("multiple", [1, 8, 256])
@pytest.mark.parametrize("size", [(8, 8), (37, 53), (64, 128)])
def test_what_goes_in_comes_out_where_it_was(size: tuple[int, int], multiple: int) -> None:
    pictures = torch.rand(2, 3, *size)
    fit = Fit(*size, multiple=multiple)
    entered = fit.enter(pictures)
    assert entered.shape[-2:] == fit.padded
    assert all(side % multiple == 0 for side in fit.padded)
    assert torch.equal(fit.leave(entered), pictures)


def test_what_is_added_repeats_the_border() -> None:
    entered = Fit(5, 3, multiple=4).enter(torch.arange(15.0).view(1, 1, 5, 3) / 15)[0, 0] * 15
    assert entered.round().int().tolist()[4:] == [[12, 13, 14, 14]] * 4


@pytest.mark.parametrize("resolution", [24, 100])
def test_another_resolution_keeps_the_pictures_shape_and_places(resolution: int) -> None:
    y, x = torch.meshgrid(torch.arange(60.0), torch.arange(90.0), indexing="ij")
    spot = torch.exp(-((y - 20) ** 2 + (x - 65) ** 2) / 50)[None, None]
    fit = Fit(60, 90, resolution, multiple=32)
    assert fit.seen == (resolution, resolution * 90 // 60)
    back = fit.leave(fit.enter(spot))[0, 0]
    assert back.shape == (60, 90)
    assert abs((back * y).sum() / back.sum() - 20) < 0.3
    assert abs((back * x).sum() / back.sum() - 65) < 0.3
