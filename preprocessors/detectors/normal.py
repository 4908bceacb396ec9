"""Normal maps: the direction that each surface faces. Blue: to the viewer, red: to the left, green: up."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ...core.modality import Modality
from ..detector import Detector, Method
from ..host import Host
from ..networks.controlnet_aux import network_class
from ..networks.methods import IMAGENET_DEVIATION, IMAGENET_MEAN, PredictionMethod, standardize
from ..parameters import ChoiceParameter, FloatParameter, Value
from ..resolution import TRAINED_RESOLUTION
from ..weights.declarations import annotators_file
from ..weights.tensors import load_state, read_state, without_prefix
from .depth import DEPTH

if TYPE_CHECKING:
    from torch import Tensor, nn

_SMOOTHING = 1 / 400  # sigma as a fraction of the shorter side; it hides the pixel grid of a depth network


class NormalBae(PredictionMethod):
    """NormalBae (Bae et al. 2021, trained on ScanNet), as the normal ControlNets (1.1, SDXL union) were trained on."""

    name = "normalbae"
    weights = (annotators_file("normal_bae", "scannet.pt", 291_000_000),)
    trained_at = 512
    multiple = 32
    bytes_per_pixel = 4000

    @staticmethod
    def build(*files: Path) -> nn.Module:
        options = SimpleNamespace(
            mode="client", architecture="BN", pretrained="scannet", sampling_ratio=0.4, importance_ratio=0.7
        )
        with redirect_stdout(StringIO()):  # the network prints its structure
            network = network_class("normalbae.nets.NNET", "NNET")(options)
        state: Any = read_state(files[0])["model"]
        load_state(network, without_prefix(state), files[0])
        return network

    def infer(self, network: nn.Module, images: Tensor) -> Tensor:
        finest = network(standardize(images, IMAGENET_MEAN, IMAGENET_DEVIATION))[0][-1]
        return finest[:, :3]

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        normals = self.predict(image, host, self.weights, int(values["resolution"]))
        return ((normals + 1) / 2).clamp(0, 1).movedim(1, -1).contiguous()


class NormalFromDepth(Method):
    """The slopes of a depth map. Depth networks handle more kinds of images than NormalBae, but depth is relative."""

    name = "from depth"
    parameters = (
        ChoiceParameter(
            "depth_method", tuple(method.name for method in DEPTH.methods), "from depth: the depth method to use."
        ),
        FloatParameter(
            "relief",
            1.0,
            0.05,
            20.0,
            "from depth: depth of the scene in multiples of the image's shorter side. Higher values give steeper "
            "slopes.",
            step=0.05,
        ),
        TRAINED_RESOLUTION,
    )
    weights = DEPTH.methods[0].weights

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        given = {"method": values["depth_method"], "resolution": values["resolution"]}
        return slopes(DEPTH.detect(image, host, given)[..., 0], float(values["relief"]))


def slopes(nearness: Tensor, relief: float) -> Tensor:
    """The normal maps [batch, height, width, 3] of depth maps [batch, height, width] in 0..1, where 1 is near.

    `relief` is the distance from 0 to 1 in multiples of the image's shorter side.
    """
    import cv2
    import numpy as np
    import torch

    height, width = nearness.shape[1:]
    depth_in_pixels = relief * min(height, width)
    maps = np.empty((len(nearness), height, width, 3), np.float32)
    for map_, near in zip(maps, nearness.numpy(), strict=True):
        smooth: np.ndarray = cv2.GaussianBlur(near, (0, 0), max(0.5, _SMOOTHING * min(height, width)))
        # The Sobel kernel multiplies the slope per pixel by 8. A surface that comes nearer to the right faces left
        # (red), and one that comes nearer downwards faces up (green).
        for axis, (dx, dy) in enumerate(((1, 0), (0, 1))):
            slope: np.ndarray = cv2.Sobel(smooth, cv2.CV_32F, dx, dy, ksize=3, borderType=cv2.BORDER_REPLICATE)
            map_[..., axis] = slope / 8 * depth_in_pixels
        map_[..., 2] = 1
    normals = torch.from_numpy(maps)
    return (normals / normals.norm(dim=-1, keepdim=True) + 1) / 2


NORMAL = Detector(
    Modality.NORMAL,
    "The direction that surfaces face: blue towards the viewer, red to the left, green up.",
    (NormalBae(), NormalFromDepth()),
)
