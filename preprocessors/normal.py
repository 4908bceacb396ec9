"""Normal maps: which way every surface faces; blue towards the viewer, red to the left, green up."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..core.modality import Modality
from .controlnet_aux_networks import network_class
from .depth import DEPTH
from .detector import Detector, Method
from .host import Host
from .measuring import IMAGENET_DEVIATION, IMAGENET_MEAN, TRAINED_RESOLUTION, MeasuringMethod, standardize
from .parameters import ChoiceParameter, FloatParameter, Value
from .weights import annotators_file, load_state, read_state

if TYPE_CHECKING:
    from torch import Tensor, nn

_SMOOTHING = 1 / 400  # of the shorter side: what a depth network's grid leaves between two of its pixels


class NormalBae(MeasuringMethod):
    """Bae et al. 2021, trained on ScanNet: what the normal ControlNets (1.1, SDXL union) were trained on."""

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
        with redirect_stdout(StringIO()):  # it tells how it is built
            network = network_class("normalbae.nets.NNET", "NNET")(options)
        state: Any = read_state(files[0])["model"]
        load_state(network, {name.removeprefix("module."): tensor for name, tensor in state.items()}, files[0])
        return network

    def infer(self, network: nn.Module, pictures: Tensor) -> Tensor:
        finest = network(standardize(pictures, IMAGENET_MEAN, IMAGENET_DEVIATION))[0][-1]
        return finest[:, :3]

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        normals = self.measure(image, host, self.weights, int(values["resolution"]))
        return ((normals + 1) / 2).clamp(0, 1).movedim(1, -1).contiguous()


class NormalFromDepth(Method):
    """The slopes of a depth map. Depth networks see more kinds of pictures than NormalBae; slopes are relative."""

    name = "from depth"
    parameters = (
        ChoiceParameter(
            "depth_method", tuple(method.name for method in DEPTH.methods), "from depth: the network that sees depth."
        ),
        FloatParameter(
            "relief",
            1.0,
            0.05,
            20.0,
            "from depth: how deep the scene is, in shorter sides of the picture. More makes slopes steeper.",
            step=0.05,
        ),
        TRAINED_RESOLUTION,
    )
    weights = DEPTH.methods[0].weights

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        given = {"method": values["depth_method"], "resolution": values["resolution"]}
        return slopes(DEPTH.detect(image, host, given)[..., 0], float(values["relief"]))


def slopes(nearness: Tensor, relief: float) -> Tensor:
    """The normal maps [batch, height, width, 3] of depth maps [batch, height, width] in 0..1, near = 1.

    `relief` is how far 1 lies before 0, in shorter sides of the picture.
    """
    import cv2
    import numpy as np
    import torch

    height, width = nearness.shape[1:]
    depth_in_pixels = relief * min(height, width)
    maps = np.empty((len(nearness), height, width, 3), np.float32)
    for map_, near in zip(maps, nearness.numpy(), strict=True):
        smooth = cv2.GaussianBlur(near, (0, 0), max(0.5, _SMOOTHING * min(height, width)))
        # Sobel's kernel counts a step of one pixel eight times. What rises to the right faces left, which is red; what
        # rises downwards faces up.
        for axis, (dx, dy) in enumerate(((1, 0), (0, 1))):
            slope = cv2.Sobel(smooth, cv2.CV_32F, dx, dy, ksize=3, borderType=cv2.BORDER_REPLICATE)
            map_[..., axis] = slope / 8 * depth_in_pixels
        map_[..., 2] = 1
    normals = torch.from_numpy(maps)
    return (normals / normals.norm(dim=-1, keepdim=True) + 1) / 2


NORMAL = Detector(
    Modality.NORMAL,
    "Which way surfaces face: blue towards the viewer, red to the left, green up.",
    (NormalBae(), NormalFromDepth()),
)
