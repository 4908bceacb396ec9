"""OpenCV's line segments lie on the straight lines of an image."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from controlstack.core.modality import Modality
from controlstack.preprocessors.detector import Detector
from controlstack.preprocessors.host import PlainHost
from controlstack.preprocessors.line_segments import LineSegments

SEGMENTS = Detector(Modality.MLSD, "", (LineSegments(),))


def checkerboard(square: int = 40, count: int = 6) -> torch.Tensor:
    """Black and white squares with a margin of half a square, a little soft as photos are."""
    odd = np.indices((count, count)).sum(0) % 2
    board = np.kron(odd, np.ones((square, square))).astype(np.float32)
    board = np.pad(board, square // 2, constant_values=0.5)
    board = cv2.GaussianBlur(board, (0, 0), 1.0)
    return torch.from_numpy(np.ascontiguousarray(np.repeat(board[..., None], 3, 2)))[None]


def test_the_lines_of_a_checkerboard_are_found_and_no_others(host: PlainHost) -> None:
    board = checkerboard()
    lines = SEGMENTS.detect(board, host, {})[0, ..., 0]
    at = torch.arange(0, 7) * 40 + 20  # where the squares meet
    near = torch.zeros(280, dtype=torch.bool)
    for offset in (-2, -1, 0, 1):
        near[at + offset] = True
    assert lines[~near][:, ~near].max() == 0, "nothing inside a square"
    inner = at[1:-1]
    middles = at[:-1] + 20  # half way along each square's side
    for boundary in inner.tolist():
        for middle in middles.tolist():
            assert lines[boundary - 2 : boundary + 2, middle].max() == 1, (boundary, middle)
            assert lines[middle, boundary - 2 : boundary + 2].max() == 1, (middle, boundary)


def test_lines_are_one_pixel_wide(host: PlainHost) -> None:
    image = torch.zeros(1, 120, 120, 3)
    image[:, :, 60:] = 1
    lines = SEGMENTS.detect(image, host, {})[0, ..., 0]
    assert (lines[20:100].sum(1) == 1).all()


def test_short_lines_are_dropped(host: PlainHost) -> None:
    board = checkerboard()
    assert SEGMENTS.detect(board, host, {"min_length": 0.9}).mean() < SEGMENTS.detect(board, host, {}).mean()


def test_a_image_without_lines_is_black_and_warned_of(host: PlainHost) -> None:
    assert SEGMENTS.detect(torch.full((1, 64, 64, 3), 0.5), host, {}).max() == 0
    assert host.warnings == ["No straight line found in the image: the map is black there. Lower min_length."]
