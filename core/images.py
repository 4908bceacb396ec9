"""Conversion of images to RGB and to the output size, the same for every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .request import ControlUnit, Resize

if TYPE_CHECKING:
    from torch import Tensor


def to_rgb(image: Tensor) -> Tensor:
    """Convert [..., 1, 3 or 4] to [..., 3]; transparent parts become black.

    The three channels of a gray image share memory (a view), as in ComfyUI's MaskToImage.
    """
    channels = image.shape[-1]
    if channels == 1:
        return image.expand(*image.shape[:-1], 3)
    if channels == 4:
        return image[..., :3] * image[..., 3:]
    return image


def luminance(image: Tensor) -> Tensor:
    """Convert RGB [..., 3] to gray [..., 1] with the weights of ITU-R BT.601, as OpenCV's cvtColor does."""
    return (image @ image.new_tensor((0.299, 0.587, 0.114)))[..., None]


def fit_image(image: Tensor, width: int, height: int, resize: Resize, thin_lines: bool = False) -> Tensor:
    """Resize [batch, h, w, channel] to [batch, height, width, channel] (pixels).

    Enlarging is bilinear, reducing is bilinear with antialiasing. With `thin_lines`, reducing takes the brightest pixel
    of each area instead, so that lines one pixel wide stay visible. Values stay in their range. An image that already
    has the size is returned unchanged, as the same object.
    """
    from torch.nn import functional

    image_height, image_width = image.shape[1:3]
    if (image_height, image_width) == (height, width):
        return image
    scale_x, scale_y = width / image_width, height / image_height
    if resize is not Resize.STRETCH:
        scale_x = scale_y = max(scale_x, scale_y) if resize is Resize.CROP else min(scale_x, scale_y)
    size = max(1, round(image_height * scale_y)), max(1, round(image_width * scale_x))
    planes = image.movedim(-1, 1)
    if thin_lines and scale_x < 1 and scale_y < 1:
        planes = functional.adaptive_max_pool2d(planes, size)
    else:
        planes = functional.interpolate(planes, size, mode="bilinear", antialias=True)
    # Negative padding crops, so one call both letterboxes and crops.
    pad_x, pad_y = width - size[1], height - size[0]
    left, top = pad_x // 2, pad_y // 2
    return functional.pad(planes, (left, pad_x - left, top, pad_y - top)).movedim(1, -1).contiguous()


def fit_mask(mask: Tensor, image: Tensor, width: int, height: int, resize: Resize) -> Tensor:
    """Resize the mask [batch, h, w] of an image [batch, h, w, channel] as `fit_image` resizes the image.

    Returns [batch, height, width, 1]. A mask whose size differs from its image's is stretched over the image first, so
    that it covers the same part of it.
    """
    image_height, image_width = image.shape[1:3]
    stretched = fit_image(mask[..., None], image_width, image_height, Resize.STRETCH)
    return fit_image(stretched, width, height, resize)


def control_image(control: ControlUnit, width: int, height: int) -> Tensor:
    """The map (or photo) of a control as RGB [batch, height, width, 3] at the output size."""
    return fit_image(to_rgb(control.image), width, height, control.resize, control.modality.thin_lines)
