"""The size at which a network sees an image, and how its output gets back to the size of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .parameters import IntParameter

if TYPE_CHECKING:
    from torch import Tensor


RESOLUTION = IntParameter(
    "resolution",
    0,
    0,
    8192,
    "Shorter side of the image in pixels, as the network sees it. 0: the size of the image. Lower values are faster, "
    "need less memory and find coarser shapes. The map always has the size of the image.",
)
TRAINED_RESOLUTION = IntParameter(
    "resolution",
    0,
    0,
    8192,
    "Shorter side of the image in pixels, as the network sees it. 0: the size that the network was trained on, which "
    "is usually best. The map always has the size of the image.",
)
_MOST_ELONGATED = 4  # the longer side may be this many times the shorter side that the network was trained on


def trained_resolution(trained_at: int, height: int, width: int) -> int:
    """The shorter side at which a network sees an image: `trained_at`, or less for a very elongated image.

    Otherwise an image of 8x640 would become 512x40960, which fits in no memory.
    """
    return max(1, round(trained_at * min(1.0, _MOST_ELONGATED * min(height, width) / max(height, width))))


@dataclass(frozen=True)
class Fit:
    """Resizes images of `height` x `width` for a network, and its maps back to that size.

    The network sees them with the shorter side at `resolution` (0: unchanged) and their aspect ratio kept. They are
    padded to the right and below, by repeating their border, to a multiple of `multiple`.
    """

    height: int
    width: int
    resolution: int = 0
    multiple: int = 1

    @property
    def scale(self) -> float:
        """Pixels of the network per pixel of the image."""
        return self.resolution / min(self.height, self.width) if self.resolution else 1.0

    @property
    def resized(self) -> tuple[int, int]:
        """Height and width of the image as the network sees it, without padding."""
        return max(1, round(self.height * self.scale)), max(1, round(self.width * self.scale))

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the network's input, with padding."""
        height, width = self.resized
        return -(-height // self.multiple) * self.multiple, -(-width // self.multiple) * self.multiple

    def to_network(self, images: Tensor) -> Tensor:
        """Resize and pad [batch, channels, height, width] to [batch, channels, *padded]."""
        from torch.nn.functional import interpolate, pad

        if self.resized != (self.height, self.width):
            images = interpolate(images, self.resized, mode="bicubic", antialias=True).clamp(0, 1)
        (height, width), (full_height, full_width) = self.resized, self.padded
        if (height, width) == (full_height, full_width):
            return images
        return pad(images, (0, full_width - width, 0, full_height - height), mode="replicate")

    def from_network(self, maps: Tensor) -> Tensor:
        """Crop and resize [batch, channels, *padded] to [batch, channels, height, width]."""
        from torch.nn.functional import interpolate

        height, width = self.resized
        maps = maps[..., :height, :width]
        if self.resized == (self.height, self.width):
            return maps
        return interpolate(maps, (self.height, self.width), mode="bilinear", antialias=True)
