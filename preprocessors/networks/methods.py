"""Methods whose map is the output of one network."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...core.images import to_rgb
from ..detector import Method
from ..host import Host
from ..parameters import Value
from ..resolution import TRAINED_RESOLUTION, Fit, trained_resolution
from ..weights.declarations import Weights
from ..weights.store import obtain
from .runtime import open_network

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class NetworkMethod(Method):
    """A method whose network draws the map itself, at the size of the image or at `resolution`.

    multiple: the sides of the network's input must be divisible by it.
    bytes_per_pixel: memory of a run per pixel of its input, without the weights (measured on a CPU in float32, plus a
        third).
    half: the network computes accurately in float16, which it then does on a GPU.
    """

    multiple: ClassVar[int] = 1
    bytes_per_pixel: ClassVar[int]
    half: ClassVar[bool] = False

    @staticmethod
    @abstractmethod
    def build(*files: Path) -> nn.Module:
        """The network on the CPU, with the tensors of `files`, which are the files of `weights`."""

    @abstractmethod
    def infer(self, network: nn.Module, images: Tensor) -> Tensor:
        """The maps [batch, 1 or 3, height, width] in 0..1 of images [batch, 3, height, width] in 0..1."""

    def finish(self, maps: Tensor, **values: Value) -> Tensor:
        """Post-process the maps of `infer`, after they were resized to the size of the image."""
        return maps

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        files = tuple(obtain(weights, host) for weights in self.weights)
        network = open_network(self.build, files, host, self.half)
        height, width = image.shape[1:3]
        fit = Fit(height, width, int(values["resolution"]), self.multiple)

        def infer(module: nn.Module, images: Tensor) -> Tensor:
            maps = fit.from_network(self.infer(module, fit.to_network(images)).float()).clamp(0, 1)
            return self.finish(maps, **values).movedim(1, -1)

        maps = network.run(image.movedim(-1, 1), infer, host, self.bytes_per_pixel * math.prod(fit.padded))
        return to_rgb(maps)


class PredictionMethod(Method):
    """A method whose network predicts a quantity for every pixel: a depth, a normal or a class.

    The quantity has a unit of its own. The method draws the map once the whole prediction is known.

    trained_at: the shorter side in pixels of the images that the network was trained on.
    classes: the network predicts class numbers, which must not be interpolated.
    multiple, bytes_per_pixel, half: as in `NetworkMethod`.
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
        """The network on the CPU, with the tensors of `files`."""

    @abstractmethod
    def infer(self, network: nn.Module, images: Tensor) -> Tensor:
        """The prediction [batch, channels, height, width] for images [batch, 3, height, width] in 0..1."""

    def predict(self, image: Tensor, host: Host, weights: Sequence[Weights], resolution: int) -> Tensor:
        """The output of `infer` for a batch, at the size of the images: float32 [batch, channels, height, width]."""
        from torch.nn.functional import interpolate

        files = tuple(obtain(file, host) for file in weights)
        network = open_network(self.build, files, host, self.half)
        height, width = image.shape[1:3]
        fit = Fit(height, width, resolution or trained_resolution(self.trained_at, height, width), self.multiple)

        def infer(module: nn.Module, images: Tensor) -> Tensor:
            prediction = self.infer(module, fit.to_network(images)).float()
            if not self.classes:
                return fit.from_network(prediction)
            resized_height, resized_width = fit.resized
            return interpolate(prediction[..., :resized_height, :resized_width], (height, width), mode="nearest-exact")

        return network.run(image.movedim(-1, 1), infer, host, self.bytes_per_pixel * math.prod(fit.padded))


def standardize(images: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """Images [batch, 3, height, width] minus the `mean` of each channel, divided by its `deviation`."""
    return (images - images.new_tensor(mean)[:, None, None]) / images.new_tensor(deviation)[:, None, None]
