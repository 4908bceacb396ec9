"""Between ComfyUI's float tensors and the 8-bit arrays that OpenCV works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def to_bytes(image: Tensor) -> np.ndarray:
    """RGB in 0..1 to uint8 0..255, rounded, of the same shape."""
    return image.clamp(0, 1).mul(255).round().byte().cpu().numpy()


def from_gray_bytes(maps: np.ndarray) -> Tensor:
    """uint8 [batch, h, w] to float32 [batch, h, w, 3] in 0..1."""
    import torch

    gray = torch.from_numpy(maps).float().div_(255)
    return gray[..., None].expand(*gray.shape, 3).contiguous()
