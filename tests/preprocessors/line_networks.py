"""The methods that draw lines with a network, on random weights: they prove the code, never the quality."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from controlstack.preprocessors.detector import Method
from controlstack.preprocessors.detectors.lineart import AnimeLineart, CoarseLineart, RealisticLineart
from controlstack.preprocessors.detectors.mlsd import Mlsd
from controlstack.preprocessors.detectors.scribble import HedScribble, PiDiNetScribble
from controlstack.preprocessors.detectors.softedge import Hed, PiDiNet, Teed
from controlstack.preprocessors.networks.controlnet_aux import network_class, network_module
from torch import nn


@dataclass(frozen=True)
class LineNetwork:
    """One method, a maker of its network with random weights, and the sizes it is exact at."""

    method: type[Method]
    random: Callable[[], nn.Module]
    original: tuple[str, str]  # module and class of controlnet_aux
    wrap: Callable[[dict], dict] = lambda state: state
    smallest: int = 64  # a size at which the original does not resize

    def save(self, folder: Path) -> None:
        """Write random weights where the method looks for its file."""
        for weights in self.method.weights:
            file = folder / weights.path
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                torch.manual_seed(len(weights.file))
                torch.save(self.wrap(_livened(self.random()).state_dict()), file)

    def random_method(self) -> Method:
        """The method, content with any file of the right name."""
        anything = tuple(replace(weights, sha256="", names=()) for weights in self.method.weights)
        return type(f"Random{self.method.__name__}", (self.method,), {"weights": anything})()


_LOUDER = {"projection": 4, "up_block": 4, "conv_reduces": 8, "classifier": 8}


def _livened(network: nn.Module) -> nn.Module:
    """Untrained networks often give nearly one gray: make their last layers speak up."""
    for name, parameter in network.named_parameters():
        parameter.data.mul_(math.prod(factor for part, factor in _LOUDER.items() if part in name))
    return network


def _pidinet() -> nn.Module:
    return network_module("pidi.model").pidinet()


def _generator() -> nn.Module:
    return network_class("lineart", "Generator")(3, 1, 3)


def _anime() -> nn.Module:
    normalize = partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)
    return network_class("lineart_anime", "UnetGenerator")(3, 1, 8, 64, norm_layer=normalize)


def _of(module: str, name: str) -> Callable[[], nn.Module]:
    return lambda: network_class(module, name)()


def _in_pidinets_wrapping(state: dict) -> dict:
    return {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}


_HED, _PIDINET = ("hed", "HEDdetector"), ("pidi", "PidiNetDetector")
LINE_NETWORKS: dict[str, LineNetwork] = {
    "hed": LineNetwork(Hed, _of("hed", "ControlNetHED_Apache2"), _HED),
    "pidinet": LineNetwork(PiDiNet, _pidinet, _PIDINET, _in_pidinets_wrapping),
    "teed": LineNetwork(Teed, _of("teed.ted", "TED"), ("teed", "TEEDdetector")),
    "scribble-hed": LineNetwork(HedScribble, _of("hed", "ControlNetHED_Apache2"), _HED),
    "scribble-pidinet": LineNetwork(PiDiNetScribble, _pidinet, _PIDINET, _in_pidinets_wrapping),
    "realistic": LineNetwork(RealisticLineart, _generator, ("lineart", "LineartDetector")),
    "coarse": LineNetwork(CoarseLineart, _generator, ("lineart", "LineartDetector")),
    "anime": LineNetwork(AnimeLineart, _anime, ("lineart_anime", "LineartAnimeDetector"), smallest=256),
    "mlsd": LineNetwork(Mlsd, _of("mlsd.models.mbv2_mlsd_large", "MobileV2_MLSD_Large"), ("mlsd", "MLSDdetector")),
}
