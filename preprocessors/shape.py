"""How a picture gets into a network of fixed habits and its map comes out at the picture's own size."""

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
    "The size of the picture's shorter side as the network sees it; 0 is the picture's own. Less is faster, needs less "
    "memory and finds coarser forms. The map has the picture's size in any case.",
)


@dataclass(frozen=True)
class Fit:
    """Brings pictures of `height` x `width` to a network and maps back.

    The network sees them with the shorter side at `resolution` (0: as they are), their shape kept, and extended to
    the right and below by their own border to a multiple of `multiple`.
    """

    height: int
    width: int
    resolution: int = 0
    multiple: int = 1

    @property
    def scale(self) -> float:
        """How many pixels of the network one pixel of the picture is."""
        return self.resolution / min(self.height, self.width) if self.resolution else 1.0

    @property
    def seen(self) -> tuple[int, int]:
        """Height and width of the picture as the network sees it, without what is added."""
        return max(1, round(self.height * self.scale)), max(1, round(self.width * self.scale))

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of what the network gets."""
        height, width = self.seen
        return -(-height // self.multiple) * self.multiple, -(-width // self.multiple) * self.multiple

    def enter(self, pictures: Tensor) -> Tensor:
        """[batch, channels, height, width] becomes [batch, channels, *padded]."""
        from torch.nn.functional import interpolate, pad

        if self.seen != (self.height, self.width):
            pictures = interpolate(pictures, self.seen, mode="bicubic", antialias=True).clamp(0, 1)
        (height, width), (full_height, full_width) = self.seen, self.padded
        if (height, width) == (full_height, full_width):
            return pictures
        return pad(pictures, (0, full_width - width, 0, full_height - height), mode="replicate")

    def leave(self, maps: Tensor) -> Tensor:
        """[batch, channels, *padded] becomes [batch, channels, height, width]."""
        from torch.nn.functional import interpolate

        height, width = self.seen
        maps = maps[..., :height, :width]
        if self.seen == (self.height, self.width):
            return maps
        return interpolate(maps, (self.height, self.width), mode="bilinear", antialias=True)
