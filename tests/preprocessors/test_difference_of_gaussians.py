"""Standard line art and XDoG scribbles: white where the image is darker than its surroundings."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from controlstack.core.modality import Modality
from controlstack.preprocessors.detector import Detector
from controlstack.preprocessors.difference_of_gaussians import StandardLineart, Xdog
from controlstack.preprocessors.host import PlainHost

STANDARD = Detector(Modality.LINEART, "", (StandardLineart(),))
XDOG = Detector(Modality.SCRIBBLE, "", (Xdog(),))


def pen_drawing() -> torch.Tensor:
    """A dark circle of 3 pixels' width on bright paper, [1, 128, 128, 3]."""
    paper = np.full((128, 128, 3), (0.95, 0.9, 0.85), np.float32)
    cv2.circle(paper, (64, 64), 40, (0.1, 0.2, 0.15), 3)
    return torch.from_numpy(paper)[None]


def radius() -> torch.Tensor:
    across = torch.arange(128) - 64.0
    return torch.hypot(across[:, None], across[None])


def test_both_draw_the_pen_white_and_the_paper_black(host: PlainHost) -> None:
    on_the_line, far = (radius() - 40).abs() < 1, (radius() - 40).abs() > 8
    for detector in (STANDARD, XDOG):
        drawn = detector.detect(pen_drawing(), host, {})[0, ..., 0]
        assert drawn[on_the_line].mean() > 0.45
        assert drawn[far].mean() < 0.02
    assert host.warnings == []


def test_xdog_is_black_and_white_and_a_higher_threshold_draws_less(photo: torch.Tensor, host: PlainHost) -> None:
    shares = []
    for threshold in (10, 32, 120):
        strokes = XDOG.detect(photo, host, {"stroke_threshold": threshold})
        assert set(strokes.unique().tolist()) == {0, 1}
        shares.append(float(strokes.mean()))
    assert shares[0] > shares[1] > shares[2] > 0


def test_standard_line_art_does_not_depend_on_the_contrast(photo: torch.Tensor, host: PlainHost) -> None:
    settings = {"line_threshold": 0}
    full, faint = (STANDARD.detect(p, host, settings) for p in (photo, photo * 0.9 + 0.05))
    assert (full - faint).abs().mean() < 0.02


def test_a_flat_image_is_black_without_a_single_nan_and_warned_of(host: PlainHost) -> None:
    flat = torch.full((2, 32, 32, 3), 0.4)
    for detector in (STANDARD, XDOG):
        assert torch.equal(detector.detect(flat, host, {}), torch.zeros_like(flat))
    assert [warning.partition(":")[0] for warning in host.warnings] == [
        "No line found in image 1, 2 of 2",
        "No stroke found in image 1, 2 of 2",
    ]
