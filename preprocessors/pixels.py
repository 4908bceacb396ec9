"""Convert between ComfyUI's float tensors and the 8-bit arrays of OpenCV."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.images import to_rgb

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def to_bytes(image: Tensor, into: np.ndarray | None = None) -> np.ndarray:
    """RGB in 0..1 as uint8 0..255, rounded, of the same shape. Written into the array `into` if one is given."""
    import cv2
    import numpy as np

    pixels = np.ascontiguousarray(image.cpu().float().numpy())
    rows = pixels.reshape(len(pixels), -1)
    target = None if into is None else into.reshape(rows.shape)
    # addWeighted with a weight of 0: the only function of OpenCV that scales, rounds and clamps in one pass.
    return cv2.addWeighted(rows, 255, rows, 0, 0, dst=target, dtype=cv2.CV_8U).reshape(pixels.shape)


def from_gray_bytes(gray: np.ndarray) -> Tensor:
    """uint8 [..., h, w] as float32 [..., h, w, 3] in 0..1."""
    import numpy as np
    import torch

    return to_rgb(torch.from_numpy(np.divide(gray, 255, dtype=np.float32))[..., None])


def connected_regions(mask: np.ndarray) -> tuple[int, np.ndarray]:
    """The regions of true pixels that touch at sides or corners.

    Returns their number plus one, and the number of the region at each pixel, of the mask's shape; 0 is outside.
    """
    import cv2
    import numpy as np

    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return count, labels
