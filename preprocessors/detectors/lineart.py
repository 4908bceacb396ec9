"""Line art: white lines on black, as if an illustrator had inked the image."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.modality import Modality
from ..detector import Detector
from ..difference_of_gaussians import StandardLineart
from ..networks.controlnet_aux import network_class
from ..networks.methods import NetworkMethod
from ..resolution import RESOLUTION
from ..weights.declarations import annotators_file
from ..weights.tensors import load_state, read_state

if TYPE_CHECKING:
    from torch import Tensor, nn


class RealisticLineart(NetworkMethod):
    """Informative Drawings (Chan et al. 2022): fine lines, for photos."""

    name = "realistic"
    parameters = (RESOLUTION,)
    weights = (
        annotators_file(
            "lineart", "sk_model.pth", 17_173_511, "c686ced2a666b4850b4bb6ccf0748031c3eda9f822de73a34b8979970d90f0c6"
        ),
    )
    multiple = 4
    bytes_per_pixel = 1400
    half = True  # every convolution is normalized, so that no value exceeds the range of float16

    @staticmethod
    def build(*files: Path) -> nn.Module:
        network = network_class("lineart", "Generator")(3, 1, 3)
        load_state(network, read_state(files[0]), files[0])
        return network

    def infer(self, network: nn.Module, images: Tensor) -> Tensor:
        return 1 - network(images).float()  # the network draws black on white


class CoarseLineart(RealisticLineart):
    """The same network trained for fewer and broader lines."""

    name = "coarse"
    weights = (
        annotators_file(
            "lineart", "sk_model2.pth", 17_173_511, "30a534781061f34e83bb9406b4335da4ff2616c95d22a585c1245aa8363e74e0"
        ),
    )


class AnimeLineart(NetworkMethod):
    """Anime2Sketch (Xiang 2021): the lines of drawings and anime images."""

    name = "anime"
    parameters = (RESOLUTION,)
    weights = (
        annotators_file(
            "lineart_anime", "netG.pth", 217_631_959, "ccabdcc3f5cf3c07cf65d58776acb21df7dfda825cdc70c9766a93fd62bfc488"
        ),
    )
    multiple = 256  # the network halves its input eight times
    bytes_per_pixel = 600
    half = True  # as above

    @staticmethod
    def build(*files: Path) -> nn.Module:
        from torch.nn import InstanceNorm2d

        normalize = partial(InstanceNorm2d, affine=False, track_running_stats=False)
        network = network_class("lineart_anime", "UnetGenerator")(3, 1, 8, 64, norm_layer=normalize)
        state = read_state(files[0])
        load_state(network, {name.replace("module.", ""): tensor for name, tensor in state.items()}, files[0])
        return network

    def infer(self, network: nn.Module, images: Tensor) -> Tensor:
        return (1 - network(images * 2 - 1).float()) / 2  # the network draws black (-1) on white (1)


LINEART = Detector(
    Modality.LINEART,
    "White lines on black, as if the image had been inked.",
    (RealisticLineart(), CoarseLineart(), AnimeLineart(), StandardLineart()),
)
