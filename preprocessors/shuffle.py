"""The picture's colours and textures with its layout destroyed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.modality import Modality
from .detector import Detector, Method
from .frames import each_frame
from .host import Host
from .parameters import FloatParameter, Value
from .seeds import SEED, generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Shuffle(Method):
    """Warped by a random smooth flow, as ControlNet 1.1 Shuffle was trained on.

    There the flow is cubic noise with a node every 256 pixels of a picture of 512. Here its values are spread evenly
    in addition, so that every column and every row of the picture keeps its share of the map, and with it the colours.
    """

    parameters = (
        SEED,
        FloatParameter(
            "grain", 0.5, 0.05, 1.0, "Size of the pieces as a share of the shorter side. Lower it to tear more apart."
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import torch
        from torch.nn import functional

        height, width = image.shape[1:3]
        cell = max(1, round(float(values["grain"]) * min(height, width)))

        def warp(frame: Tensor, index: int) -> Tensor:
            random = generator(values, index)
            flow = torch.stack([_even(_noise(height, width, cell, random)) for _ in "xy"], dim=-1)
            planes = functional.grid_sample(frame.movedim(-1, 0)[None], flow[None], align_corners=True)
            return planes[0].movedim(0, -1)

        return each_frame(image, host, warp)


def _noise(height: int, width: int, cell: int, random: torch.Generator) -> Tensor:
    """Smooth noise [height, width] whose hills are about `cell` pixels wide."""
    import torch
    from torch.nn import functional

    nodes = torch.rand(1, 1, height // cell + 3, width // cell + 3, generator=random)
    size = (nodes.shape[2] * cell, nodes.shape[3] * cell)
    return functional.interpolate(nodes, size, mode="bicubic")[0, 0, cell : cell + height, cell : cell + width]


def _even(field: Tensor) -> Tensor:
    """The field with its values spread evenly over -1..1 and their order kept."""
    import torch

    even = torch.empty(field.numel())
    even[field.flatten().argsort(stable=True)] = torch.linspace(-1, 1, field.numel())
    return even.view_as(field)


SHUFFLE = Detector(
    Modality.SHUFFLE, "The picture's colours and textures, swirled until its layout is gone.", (Shuffle(),)
)
