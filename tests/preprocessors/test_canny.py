"""The canny detector gives what OpenCV gives, for every kind of image ComfyUI hands over."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from controlstack.core.memory import PlainMemory
from controlstack.preprocessors.detectors.canny import CANNY
from controlstack.preprocessors.host import PlainHost

THRESHOLDS = {"low_threshold": 100, "high_threshold": 200}


def canny(image: torch.Tensor, **thresholds: int) -> torch.Tensor:
    return CANNY.detect(image, PlainHost(PlainMemory(torch.device("cpu"))), thresholds)


def disc(size: int = 96) -> torch.Tensor:
    rgb = np.zeros((size, size, 3), np.float32)
    cv2.circle(rgb, (size // 2, size // 2), size // 4, (0.9, 0.2, 0.4), -1)
    return torch.from_numpy(rgb)[None]


def test_edges_lie_on_the_outline_and_nowhere_else() -> None:
    edges = canny(disc(), **THRESHOLDS)[0, :, :, 0]
    ys, xs = torch.nonzero(edges, as_tuple=True)
    radius = torch.hypot(ys - 48.0, xs - 48.0)
    assert len(radius) > 100
    assert radius.min() > 21 and radius.max() < 27


def test_maps_are_black_and_white_and_equal_to_opencv() -> None:
    photo = torch.rand(1, 33, 57, 3)
    expected = cv2.Canny((photo[0] * 255).round().byte().numpy(), 100, 200)
    assert torch.equal(canny(photo, **THRESHOLDS)[0, :, :, 1], torch.from_numpy(expected) / 255)


@pytest.mark.parametrize("shape", [(1, 8, 8, 3), (3, 31, 17, 3)])
def test_every_size_and_batch_keeps_its_size(shape: tuple[int, ...]) -> None:
    result = canny(torch.rand(shape), **THRESHOLDS)
    assert result.shape == (*shape[:3], 3)
    assert result.dtype == torch.float32


def test_a_flat_image_has_no_edges() -> None:
    assert canny(torch.full((1, 32, 32, 3), 0.5), **THRESHOLDS).max() == 0


def test_lower_thresholds_find_more() -> None:
    photo = torch.rand(1, 64, 64, 3)
    few, many = (canny(photo, low_threshold=low, high_threshold=high).mean() for low, high in ((300, 900), (20, 60)))
    assert many > few
