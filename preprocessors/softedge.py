"""Soft edges: where people would draw an outline, brighter the surer the network is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.modality import Modality
from .controlnet_aux_networks import network_class, network_module
from .detector import Detector
from .networks import NetworkMethod
from .parameters import SwitchParameter, Value
from .shape import RESOLUTION
from .weights import Weights, annotators_file, load_state, read_state

if TYPE_CHECKING:
    from torch import Tensor, nn

SAFE = SwitchParameter(
    "safe",
    True,
    "Reduces the map to three shades of edges, so that nothing of the picture's surfaces hides in it. The soft edge "
    "nets were mostly trained so; off gives finer shades.",
)


class SoftEdges(NetworkMethod):
    """A network that draws soft edges."""

    parameters = (SAFE, RESOLUTION)

    def finish(self, maps: Tensor, **values: Value) -> Tensor:
        return quantised(maps) if values["safe"] else maps


class Hed(SoftEdges):
    """HED (Xie and Tu 2015) in the version trained for ControlNet on RGB pictures: thick, soft, complete outlines."""

    name = "hed"
    weights = (
        annotators_file(
            "hed", "ControlNetHED.pth", 29_444_406, "5ca93762ffd68a29fee1af9d495bf6aab80ae86f08905fb35472a083a4c7a8fa"
        ),
    )
    multiple = 16  # four halvings: every one of the five outputs then lies exactly on the picture
    bytes_per_pixel = 1200
    half = True  # its largest values are some thousands, and the map moves by less than a shade of 255

    @staticmethod
    def build(*files: Path) -> nn.Module:
        network = network_class("hed", "ControlNetHED_Apache2")()
        load_state(network, read_state(files[0]), files[0])
        return network

    def infer(self, network: nn.Module, pictures: Tensor) -> Tensor:
        return _mean_of_scales(network(pictures * 255), pictures)


class PiDiNet(SoftEdges):
    """PiDiNet (Su et al. 2021): thinner edges than HED's, and a tenth of its size."""

    name = "pidinet"
    weights = (
        annotators_file(
            "pidinet",
            "table5_pidinet.pth",
            2_871_148,
            "80860ac267258b5f27486e0ef152a211d0b08120f62aeb185a050acc30da486c",
        ),
    )
    multiple = 8
    bytes_per_pixel = 2200

    @staticmethod
    def build(*files: Path) -> nn.Module:
        network = network_module("pidi.model").pidinet()
        state = read_state(files[0])["state_dict"]
        load_state(network, {name.removeprefix("module."): tensor for name, tensor in state.items()}, files[0])
        return network

    def infer(self, network: nn.Module, pictures: Tensor) -> Tensor:
        return network(pictures.flip(1))[-1]  # ControlNet's annotator shows it BGR


class Teed(SoftEdges):
    """TEED (Soria et al. 2023): very small and fast, thin edges with much detail."""

    name = "teed"
    weights = (
        Weights(
            repo="bdsqlsz/qinglong_controlnet-lllite",
            revision="main",  # its commits are not known here; the checksum pins it
            file="Annotators/7_model.pth",
            size=247_232,
            sha256="b9037964149c55156c6adbffdfbd7e8ca7d2ef2a4d90573520efa7f3a1aacf06",
            names=("TEED/7_model.pth",),
        ),
    )
    multiple = 8
    bytes_per_pixel = 1000

    @staticmethod
    def build(*files: Path) -> nn.Module:
        network = network_class("teed.ted", "TED")()
        load_state(network, read_state(files[0]), files[0])
        return network

    def infer(self, network: nn.Module, pictures: Tensor) -> Tensor:
        return _mean_of_scales(network(pictures * 255), pictures)


class PlainHed(Hed):
    """HED as the first ControlNet for it was trained: all shades."""

    parameters = (replace(SAFE, default=False), RESOLUTION)


def quantised(maps: Tensor) -> Tensor:
    """Edges in 0..1 in the shades 0, 1/2 and 1: the "safe" maps of ControlNet 1.1."""
    return ((maps * 3).floor() / 2).clamp(0, 1)


def _mean_of_scales(outputs: list[Tensor], pictures: Tensor) -> Tensor:
    """The sigmoid of the mean of a network's outputs, brought to the size of the pictures."""
    import torch
    from torch.nn.functional import interpolate

    size = pictures.shape[-2:]
    sized = [output if output.shape[-2:] == size else interpolate(output, size, mode="bilinear") for output in outputs]
    return torch.stack(sized).float().mean(0).sigmoid()


HED = Detector(Modality.HED, "Soft, thick white outlines on black.", (PlainHed(),))
# PiDiNet comes first because ControlNet 1.1 recommends it: with `safe` it survives the most in robustness, and it is
# a tenth of HED's size. HED shows more of the picture.
SOFTEDGE = Detector(
    Modality.SOFTEDGE, "Soft white edges on black, of forms and not of texture.", (PiDiNet(), Hed(), Teed())
)
