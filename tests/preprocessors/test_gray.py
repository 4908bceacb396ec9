"""Gray is luminance, the same in three channels."""

from __future__ import annotations

import cv2
import torch
from controlstack.preprocessors.detectors.filters import GRAY
from controlstack.preprocessors.host import PlainHost


def test_it_is_the_luminance_of_opencv_in_float_precision(photo: torch.Tensor, host: PlainHost) -> None:
    gray = GRAY.detect(photo, host, {})
    assert torch.equal(gray[..., 0], gray[..., 1]) and torch.equal(gray[..., 1], gray[..., 2])
    expected = torch.from_numpy(cv2.cvtColor(photo[0].numpy(), cv2.COLOR_RGB2GRAY))
    assert torch.allclose(gray[0, ..., 0], expected, atol=1e-5)
