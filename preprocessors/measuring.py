"""Networks that measure something at every pixel: a distance, a direction, a class."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from .detector import Method
from .host import Host
from .networks import open_network
from .parameters import IntParameter
from .shape import Fit
from .weights import Weights, obtain

if TYPE_CHECKING:
    from torch import Tensor, nn

TRAINED_RESOLUTION = IntParameter(
    "resolution",
    0,
    0,
    8192,
    "The size of the picture's shorter side as the network sees it; 0 is the size it was trained on, which is mostly "
    "best. The map has the picture's size in any case.",
)
_LONGEST = 4  # times the shorter side the network was trained on
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class MeasuringMethod(Method):
    """A method that shows what a network measured, in units of its own, once all of it is known.

    `trained_at` is the shorter side the network was trained on, `classes` says that it gives numbers of classes, of
    which there is nothing in between; the others are as `NetworkMethod` has them.
    """

    parameters = (TRAINED_RESOLUTION,)
    trained_at: ClassVar[int]
    multiple: ClassVar[int] = 1
    bytes_per_pixel: ClassVar[int]
    half: ClassVar[bool] = False
    classes: ClassVar[bool] = False

    @staticmethod
    @abstractmethod
    def build(*files: Path) -> nn.Module:
        """The network with the tensors of its weights, which are in `files`, on the CPU."""

    @abstractmethod
    def infer(self, network: nn.Module, pictures: Tensor) -> Tensor:
        """[batch, any, height, width] for pictures [batch, 3, height, width] in 0..1."""

    def measure(self, image: Tensor, host: Host, needed: Sequence[Weights], resolution: int) -> Tensor:
        """What `infer` gives for each picture, at the size of the picture: float32 [batch, any, height, width]."""
        from torch.nn.functional import interpolate

        files = tuple(obtain(weights, host) for weights in needed)
        network = open_network(self.build, files, host, self.half)
        height, width = image.shape[1:3]
        fit = Fit(height, width, resolution or trained_resolution(self.trained_at, height, width), self.multiple)

        def infer(module: nn.Module, pictures: Tensor) -> Tensor:
            measured = self.infer(module, fit.enter(pictures)).float()
            if not self.classes:
                return fit.leave(measured)
            seen_height, seen_width = fit.seen
            return interpolate(measured[..., :seen_height, :seen_width], (height, width), mode="nearest-exact")

        return network.run(image.movedim(-1, 1), infer, host, self.bytes_per_pixel * math.prod(fit.padded))


def trained_resolution(trained_at: int, height: int, width: int) -> int:
    """The shorter side at which a network sees a picture: `trained_at`, and less for very long ones.

    A strip of 8x640 would otherwise become 512x40960, which no memory holds.
    """
    return max(1, round(trained_at * min(1.0, _LONGEST * min(height, width) / max(height, width))))


def standardize(pictures: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """Pictures [batch, 3, height, width] with `mean` and `deviation` of each channel taken out."""
    return (pictures - pictures.new_tensor(mean)[:, None, None]) / pictures.new_tensor(deviation)[:, None, None]
