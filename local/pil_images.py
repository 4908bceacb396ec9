"""Conversion of tensors to PIL images, which the processors of image encoders take."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def to_pil(image: Tensor) -> Image:
    """An image [height, width, 3] in 0..1 as an RGB image of 8 bits."""
    from PIL import Image

    return Image.fromarray(image.clamp(0, 1).mul(255).round().byte().cpu().numpy())
