"""Tiled diffusion: a UNet that sees a large picture tile by tile, at every step.

The tiles overlap, and what the UNet predicts for them is blended before the scheduler takes its step: MultiDiffusion
(Bar-Tal et al. 2023, https://arxiv.org/abs/2302.08113), with weights that fade towards the edges of a tile as in
Mixture of Diffusers (Jimenez 2023, https://arxiv.org/abs/2302.02412). ControlNets run on the same tiles, each on its
part of the map. A pipeline is given a `TiledUNet` and a `tiled_control_stack` in the place of its own; the networks
themselves are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, Any

from ..core.errors import Problem
from .controlnets import Control, unet_control_stack
from .model import LocalModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Sides of tiles are multiples of this many pixels: what the deepest level of a UNet sees as one.
TILE_STEP = 64
# Pixels along a side of a picture to one of its latents.
_PIXELS = 8
# The share of a tile's side that its neighbour covers too, at least.
_OVERLAP = 0.25


def tiling_problems(model: LocalModel, tile_size: int) -> Iterator[Problem]:
    """What keeps a model from seeing pictures in tiles of that side (pixels; 0 is off)."""
    if tile_size and model.facts.flow:
        limit = "only the UNets of SD 1.5 and SDXL can see a picture in tiles"
        yield Problem("tile_size", str(tile_size), limit, "Set it to 0, or load such a model.")
    elif tile_size < 0 or tile_size % TILE_STEP:
        near = TILE_STEP * max(1, round(tile_size / TILE_STEP))
        limit = f"tiles have sides of {TILE_STEP} pixels or a multiple of that"
        yield Problem("tile_size", str(tile_size), limit, f"Set it to {near}, or to 0, which is off.")


@dataclass(frozen=True)
class Tile:
    """A rectangle of a picture, in latents."""

    top: int
    left: int
    height: int
    width: int

    def of(self, latents: Tensor) -> Tensor:
        """Its part of latents: a view [..., height, width]."""
        return latents[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def of_pixels(self, planes: Tensor) -> Tensor:
        """Its part of something that has the size of the picture: a view [..., height, width]."""
        return Tile(*(_PIXELS * edge for edge in (self.top, self.left, self.height, self.width))).of(planes)


def tiles_of(width: int, height: int, tile_size: int, device: torch.device | str = "cpu") -> dict[Tile, Tensor]:
    """Overlapping tiles over a picture, with the weights [height, width] of each; all numbers in pixels.

    No side of a tile is longer than `tile_size`, and at every place the weights of the tiles there sum to one.
    """
    rows, columns = (_cuts(side // _PIXELS, tile_size // _PIXELS, device) for side in (height, width))
    return {
        Tile(top, left, len(down), len(across)): down[:, None] * across
        for top, down in rows
        for left, across in columns
    }


def _cuts(length: int, longest: int, device: torch.device | str) -> list[tuple[int, Tensor]]:
    """Where along an axis the tiles begin, evenly spread, and how much each counts at each of its places."""
    import torch

    side = min(longest, length)
    last = ceil((length - side) / (side * (1 - _OVERLAP)))
    starts = [round(number * (length - side) / max(1, last)) for number in range(last + 1)]
    # A tile counts least where it knows least of what is around: at its edges.
    fading = torch.sin(torch.pi * (torch.arange(side, device=device) + 0.5) / side) ** 2
    total = torch.zeros(length, device=device)
    for start in starts:
        total[start : start + side] += fading
    return [(start, fading / total[start : start + side]) for start in starts]


Residuals = Callable[[Tile], tuple[Any, Any]]
"""What the ControlNets add to the UNet on a tile: the residuals of its way down, and of its middle."""


@dataclass(frozen=True, eq=False)
class TiledUNet:
    """A UNet as a pipeline sees it, which looks at one tile after the other.

    With ControlNets it needs a `tiled_control_stack`.
    """

    unet: Any
    tiles: Mapping[Tile, Tensor]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unet, name)

    def __call__(
        self,
        sample: Tensor,
        timestep: Any,
        *,
        down_block_additional_residuals: Residuals | None = None,
        mid_block_additional_residual: None = None,
        cross_attention_kwargs: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> tuple[Tensor]:
        """The prediction [batch, channels, h, w] for latents of that size."""
        import torch

        residuals = down_block_additional_residuals or _no_residuals
        total: Tensor | None = None
        for tile, weights in self.tiles.items():
            down, mid = residuals(tile)
            (prediction,) = self.unet(
                tile.of(sample),
                timestep,
                down_block_additional_residuals=down,
                mid_block_additional_residual=mid,
                cross_attention_kwargs=_on_tile(cross_attention_kwargs, tile),
                **inputs,
            )
            if total is None:
                total = torch.zeros(*prediction.shape[:2], *sample.shape[-2:], device=prediction.device)
            tile.of(total).add_(prediction * weights)
        assert total is not None
        return (total.to(sample.dtype),)


def _no_residuals(_: Tile) -> tuple[None, None]:
    return None, None


def _on_tile(attention: Mapping[str, Any] | None, tile: Tile) -> Mapping[str, Any] | None:
    """What the attention layers are given, with the masks of references cut to the tile."""
    if attention is None or "ip_adapter_masks" not in attention:
        return attention
    return {**attention, "ip_adapter_masks": [tile.of_pixels(mask) for mask in attention["ip_adapter_masks"]]}


def tiled_control_stack(controls: Sequence[Control], guided: bool) -> Any:
    """The stack for a pipeline with a `TiledUNet`; `guided` as in the plain one."""
    stack = unet_control_stack(controls, guided)
    stack.forward = _TiledStack(controls, guided)
    return stack


@dataclass
class _TiledStack:
    """The forward of a stack that waits for the tiles: pipelines hand its result to the UNet without looking at it."""

    controls: Sequence[Control]
    guided: bool
    _parts: dict[Tile, tuple[Any, list[Tensor]]] = field(default_factory=dict)

    def __call__(
        self, sample: Tensor, timestep: Any, *, controlnet_cond: Sequence[Tensor], **inputs: Any
    ) -> tuple[Residuals, None]:
        def residuals(tile: Tile) -> tuple[Any, Any]:
            if tile not in self._parts:
                self._parts[tile] = self._part(tile, controlnet_cond)
            stack, hints = self._parts[tile]
            return stack(tile.of(sample), timestep, controlnet_cond=hints, **inputs)

        return residuals, None

    def _part(self, tile: Tile, hints: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
        """A stack for the tile, and its part of the hints, which is kept so that each is encoded once."""
        controls = [
            control if control.mask is None else replace(control, mask=tile.of_pixels(control.mask))
            for control in self.controls
        ]
        parts = [_hint(control, hint, tile) for control, hint in zip(controls, hints, strict=True)]
        return unet_control_stack(controls, self.guided), parts


def _hint(control: Control, hint: Tensor, tile: Tile) -> Tensor:
    """The part of a hint on the tile; of nets that average, to which no place matters, all of it in the tile's size."""
    from torch.nn import functional

    if control.net.config.global_pool_conditions:
        return functional.interpolate(hint, size=(_PIXELS * tile.height, _PIXELS * tile.width), mode="area")
    return tile.of_pixels(hint)
