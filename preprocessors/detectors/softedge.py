"""Soft edges: where people would draw an outline. Brighter edges have a higher score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.modality import Modality
from ..detector import Detector
from ..networks.controlnet_aux import network_class, network_module
from ..networks.methods import NetworkMethod
from ..parameters import SwitchParameter, Value
from ..resolution import RESOLUTION
from ..weights.declarations import Weights, annotators_file
from ..weights.tensors import load_state, read_state, without_prefix

if TYPE_CHECKING:
    from torch import Tensor, nn

SAFE = SwitchParameter(
    "safe",
    True,
    "Reduce the map to three shades, so that it keeps no texture of the image. Most soft edge ControlNets were trained "
    "on such maps. Off: all shades.",
)


class SoftEdges(NetworkMethod):
    """A network that draws soft edges."""

    parameters = (SAFE, RESOLUTION)

    def finish(self, maps: Tensor, **values: Value) -> Tensor:
        return quantized(maps) if values["safe"] else maps


class Hed(SoftEdges):
    """HED (Xie and Tu 2015), in the version trained for ControlNet on RGB images: thick, soft, complete outlines."""

    name = "hed"
    weights = (
        annotators_file(
            "hed", "ControlNetHED.pth", 29_444_406, "5ca93762ffd68a29fee1af9d495bf6aab80ae86f08905fb35472a083a4c7a8fa"
        ),
    )
    multiple = 16  # the network halves its input four times; its five outputs then align with the image
    bytes_per_pixel = 1200
    half = True  # activations reach some thousands; the map changes by less than 1/255

    @staticmethod
    def build(*files: Path) -> nn.Module:
        network = network_class("hed", "ControlNetHED_Apache2")()
        load_state(network, read_state(files[0]), files[0])
        return network

    def infer(self, network: nn.Module, images: Tensor) -> Tensor:
        return _merge_scales(network(images * 255), images)


class PiDiNet(SoftEdges):
    """PiDiNet (Su et al. 2021): thinner edges than HED, and a tenth of its size."""

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
        load_state(network, without_prefix(state), files[0])
        return network

    def infer(self, network: nn.Module, images: Tensor) -> Tensor:
        return network(images.flip(1))[-1]  # BGR, as in ControlNet's annotator


class Teed(SoftEdges):
    """TEED (Soria et al. 2023): very small and fast, thin edges with much detail."""

    name = "teed"
    weights = (
        Weights(
            repo="bdsqlsz/qinglong_controlnet-lllite",
            revision="main",  # the commit is not known; the checksum identifies the file
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

    def infer(self, network: nn.Module, images: Tensor) -> Tensor:
        return _merge_scales(network(images * 255), images)


class PlainHed(Hed):
    """HED with all shades, as the first HED ControlNet was trained on."""

    parameters = (replace(SAFE, default=False), RESOLUTION)


def quantized(maps: Tensor) -> Tensor:
    """Reduce edges in 0..1 to the shades 0, 1/2 and 1: the "safe" maps of ControlNet 1.1."""
    return ((maps * 3).floor() / 2).clamp(0, 1)


def _merge_scales(outputs: list[Tensor], images: Tensor) -> Tensor:
    """The sigmoid of the mean of a network's outputs, resized to the size of the images."""
    import torch
    from torch.nn.functional import interpolate

    size = images.shape[-2:]
    sized = [output if output.shape[-2:] == size else interpolate(output, size, mode="bilinear") for output in outputs]
    return torch.stack(sized).float().mean(0).sigmoid()


HED = Detector(Modality.HED, "Soft, thick white outlines on black.", (PlainHed(),))
# PiDiNet is the default because ControlNet 1.1 ranks it first for robustness, with `safe`, and because it is a tenth of
# HED's size. HED shows more detail.
SOFTEDGE = Detector(
    Modality.SOFTEDGE, "Soft white edges on black, of shapes rather than textures.", (PiDiNet(), Hed(), Teed())
)
