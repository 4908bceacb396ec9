"""The colors and textures of the image without its layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.modality import Modality
from ..detector import Detector, Method
from ..frames import each_frame
from ..host import Host
from ..parameters import FloatParameter, Value
from ..seeds import SEED, generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Shuffle(Method):
    """Warp the image by a random smooth flow, as for the training of ControlNet 1.1 Shuffle.

    There the flow is cubic noise with a node every 256 pixels of an image of 512. Here its values are also made uniform
    in -1..1, so that all columns and rows of the image get the same share of the map, which preserves the colors.
    """

    parameters = (
        SEED,
        FloatParameter(
            "grain",
            0.5,
            0.05,
            1.0,
            "Size of the pieces as a fraction of the image's shorter side. Lower values shuffle more.",
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import torch
        from torch.nn import functional

        height, width = image.shape[1:3]
        cell = max(1, round(float(values["grain"]) * min(height, width)))

        def warp(frame: Tensor, index: int) -> Tensor:
            random = generator(values, index)
            flow = torch.stack([_uniform(_noise(height, width, cell, random)) for _ in "xy"], dim=-1)
            planes = functional.grid_sample(frame.movedim(-1, 0)[None], flow[None], align_corners=True)
            return planes[0].movedim(0, -1)

        return each_frame(image, host, warp)


def _noise(height: int, width: int, cell: int, random: torch.Generator) -> Tensor:
    """Smooth noise [height, width] with a random value every `cell` pixels."""
    import torch
    from torch.nn import functional

    nodes = torch.rand(1, 1, height // cell + 3, width // cell + 3, generator=random)
    size = (nodes.shape[2] * cell, nodes.shape[3] * cell)
    return functional.interpolate(nodes, size, mode="bicubic")[0, 0, cell : cell + height, cell : cell + width]


def _uniform(field: Tensor) -> Tensor:
    """Replace the values of a field by values spread uniformly over -1..1, in the same order."""
    import torch

    uniform = torch.empty(field.numel())
    uniform[field.flatten().argsort(stable=True)] = torch.linspace(-1, 1, field.numel())
    return uniform.view_as(field)


SHUFFLE = Detector(
    Modality.SHUFFLE, "The colors and textures of the image, warped until its layout is gone.", (Shuffle(),)
)
