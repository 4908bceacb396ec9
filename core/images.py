"""Bringing images to three channels and to the size of the picture, the same way for every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .request import ControlUnit, Resize

if TYPE_CHECKING:
    from torch import Tensor


def to_rgb(image: Tensor) -> Tensor:
    """[..., 1, 3 or 4] to [..., 3]; transparent parts become black.

    A gray image stays in memory once, as in ComfyUI's own MaskToImage: its three channels are one.
    """
    channels = image.shape[-1]
    if channels == 1:
        return image.expand(*image.shape[:-1], 3)
    if channels == 4:
        return image[..., :3] * image[..., 3:]
    return image


def luminance(image: Tensor) -> Tensor:
    """[..., 3] to [..., 1], by the weights of ITU-R BT.601, as OpenCV's cvtColor has them."""
    return (image @ image.new_tensor((0.299, 0.587, 0.114)))[..., None]


def fit_image(image: Tensor, width: int, height: int, resize: Resize, thin_lines: bool = False) -> Tensor:
    """Bring [batch, h, w, channel] to [batch, height, width, channel].

    Enlarges bilinearly and reduces with antialiasing; `thin_lines` reduces by the brightest pixel instead, so that a
    line of one pixel stays one. Values stay in their range. An image that has the size already is returned as it is.
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
    # Negative padding crops, so one call serves both ways.
    spare_x, spare_y = width - size[1], height - size[0]
    left, top = spare_x // 2, spare_y // 2
    return functional.pad(planes, (left, spare_x - left, top, spare_y - top)).movedim(1, -1).contiguous()


def fit_mask(mask: Tensor, picture: Tensor, width: int, height: int, resize: Resize) -> Tensor:
    """Bring a mask [batch, h, w] of a picture [batch, h, w, channel] to [batch, height, width, 1], as the picture is.

    A mask of another size than its picture is stretched over it first, so that it covers the same of it everywhere.
    """
    picture_height, picture_width = picture.shape[1:3]
    on_picture = fit_image(mask[..., None], picture_width, picture_height, Resize.STRETCH)
    return fit_image(on_picture, width, height, resize)


def control_image(control: ControlUnit, width: int, height: int) -> Tensor:
    """The map (or picture) of a control as RGB at the picture's size."""
    return fit_image(to_rgb(control.image), width, height, control.resize, control.modality.thin_lines)
