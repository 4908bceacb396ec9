"""Maps are brought to the image's size as the three modes promise."""

from __future__ import annotations

import pytest
import torch
from controlstack.core.images import fit_image, fit_mask, to_rgb
from controlstack.core.request import Resize


def test_an_image_of_the_right_size_is_untouched() -> None:
    image = torch.rand(2, 24, 32, 3)
    assert fit_image(image, 32, 24, Resize.CROP) is image


@pytest.mark.parametrize("resize", Resize)
@pytest.mark.parametrize(("width", "height"), [(64, 64), (8, 8), (40, 16), (16, 40), (72, 8)])
def test_the_result_has_the_asked_size(resize: Resize, width: int, height: int) -> None:
    result = fit_image(torch.rand(2, 30, 17, 3), width, height, resize)
    assert result.shape == (2, height, width, 3)
    assert result.min() >= 0 and result.max() <= 1


def halves() -> torch.Tensor:
    """Wide image: left half black, right half white, outermost columns gray."""
    image = torch.zeros(1, 16, 64, 1)
    image[:, :, 32:] = 1
    return image


def test_crop_keeps_the_middle_and_its_proportions() -> None:
    result = fit_image(halves(), 32, 32, Resize.CROP)[0, :, :, 0]
    assert result[:, :12].max() == 0
    assert result[:, 20:].min() == 1


def test_fit_keeps_everything_and_pads_with_black() -> None:
    result = fit_image(torch.ones(1, 16, 64, 1), 64, 64, Resize.FIT)[0, :, :, 0]
    assert result[:24].max() == 0
    assert result[40:].max() == 0
    assert result[24:40].min() == 1


def test_stretch_fills_the_frame() -> None:
    assert fit_image(torch.ones(1, 16, 64, 1), 32, 48, Resize.STRETCH).min() == 1


@pytest.mark.parametrize("factor", [1.5, 4, 7.3])
def test_thin_lines_stay_bright_when_a_large_map_is_reduced(factor: float) -> None:
    size = round(64 * factor)
    lines = torch.zeros(1, size, size, 1)
    lines[:, :, size // 3] = 1
    lines[:, size // 2] = 1
    kept = fit_image(lines, 64, 64, Resize.CROP, thin_lines=True)[0, :, :, 0]
    assert kept.max(dim=0).values.min() == 1, "every column still meets the horizontal line"
    assert kept.max(dim=1).values.min() == 1, "every row still meets the vertical line"
    assert 120 <= (kept > 0).sum() <= 2 * 127, "and the lines stay about one pixel wide"


def test_gray_and_transparent_images_become_rgb() -> None:
    assert to_rgb(torch.full((1, 2, 2, 1), 0.5)).shape == (1, 2, 2, 3)
    transparent = torch.ones(1, 2, 2, 4)
    transparent[..., 3] = 0.25
    assert torch.equal(to_rgb(transparent), torch.full((1, 2, 2, 3), 0.25))


@pytest.mark.parametrize("size", [(8, 8), (16, 64), (5, 40), (32, 128)])
def test_a_mask_of_any_size_covers_the_same_of_its_image(size: tuple[int, int]) -> None:
    mask = torch.zeros(1, *size)
    mask[..., : size[1] // 4] = 1
    picture = torch.rand(1, 16, 64, 3)
    assert fit_mask(mask, picture, 32, 32, Resize.CROP).shape == (1, 32, 32, 1)
    assert fit_mask(mask, picture, 16, 16, Resize.CROP).max() < 0.1, "the left quarter is cropped off"
    stretched = fit_mask(mask, picture, 64, 16, Resize.FIT)[0, ..., 0]
    assert (stretched[:, :12] > 0.9).all() and (stretched[:, 22:] < 0.1).all()
    assert (fit_mask(mask, picture, 64, 64, Resize.FIT)[0, :24] == 0).all(), "bars hold nothing"
