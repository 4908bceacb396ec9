"""Tensors as Pillow's pictures, which is what the image encoders' processors were made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def to_picture(frame: Tensor) -> Image:
    """[height, width, 3] in 0..1 as a picture of 8 bits."""
    from PIL import Image

    return Image.fromarray(frame.clamp(0, 1).mul(255).round().byte().cpu().numpy())
