"""The options of the local engine. They are not part of the request, which is the same for every target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...core.problems import Problem
from ..extras.block_cache import caching_problems
from ..extras.safety_check import checker_problems
from ..extras.tiled_diffusion import tiling_problems
from ..extras.token_merging import merging_problems
from ..model.local_model import LocalModel

if TYPE_CHECKING:
    from torch import Tensor

Upscaler = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True)
class Options:
    """All options are off by default, so that the image is that of the plain pipeline.

    `upscaler` enlarges images [batch, h, w, 3] if the request asks for upscaling; without one the model makes the
    larger image in a second pass over its enlarged result. `merge_tokens` (0 to 0.75, UNets) and `block_cache` (0 to 1,
    FLUX) are faster, but change the image: see `token_merging` and `block_cache`. With `safety_check`, flagged images
    and all previews are pixelated. `tile_size` is the side in pixels (a multiple of 64) of the tiles that a UNet
    predicts one by one at every step; 0 is the whole image at once.
    """

    upscaler: Upscaler | None = None
    merge_tokens: float = 0.0
    block_cache: float = 0.0
    safety_check: bool = False
    tile_size: int = 0

    def problems(self, model: LocalModel) -> Iterator[Problem]:
        """Everything that prevents these options on the model."""
        yield from merging_problems(model, self.merge_tokens)
        yield from caching_problems(model, self.block_cache)
        yield from tiling_problems(model, self.tile_size)
        if self.safety_check:
            yield from checker_problems(model.source, model.library)


PLAIN = Options()
