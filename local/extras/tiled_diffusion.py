"""Tiled diffusion: the UNet predicts a large image tile by tile, at every step.

The tiles overlap, and their predictions are blended before the scheduler takes its step: MultiDiffusion
(Bar-Tal et al. 2023, https://arxiv.org/abs/2302.08113), with weights that fade towards the edges of a tile as in
Mixture of Diffusers (Jimenez 2023, https://arxiv.org/abs/2302.02412). ControlNets run on the same tiles, each with its
part of the map. The pipeline gets a `TiledUNet` and a `tiled_control_stack` instead of its own; the networks themselves
are not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, Any

from ...core.problems import Problem, ProblemKind
from ..controlnet.control import Control
from ..controlnet.unet_stack import unet_control_stack
from ..model.local_model import LocalModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Sides of tiles are multiples of this many pixels: one position at the deepest level of the UNet.
TILE_STEP = 64
# Pixels of an image per latent, along a side.
_PIXELS = 8
# Neighboring tiles overlap by at least this share of their side.
_OVERLAP = 0.25

NO_TILED_DIFFUSION = ProblemKind(
    "no_tiled_diffusion",
    "{target} does not support tiled diffusion; only SD 1.5 and SDXL do. Set tile_size to {suggestion}, or load "
    "another model.",
)
BAD_TILE_SIZE = ProblemKind(
    "bad_tile_size",
    "tile_size is {value}. It must be a multiple of {step}. Set it to {suggestion}, or to 0 to switch it off.",
)


def tiling_problems(model: LocalModel, tile_size: int) -> Iterator[Problem]:
    """What prevents tiles of this side (pixels; 0 is off) on a model."""
    if tile_size and model.facts.flow:
        yield NO_TILED_DIFFUSION("tile_size", tile_size, 0, target=model.name)
    elif tile_size < 0 or tile_size % TILE_STEP:
        nearest = TILE_STEP * max(1, round(tile_size / TILE_STEP))
        yield BAD_TILE_SIZE("tile_size", tile_size, nearest, step=TILE_STEP)


@dataclass(frozen=True)
class Tile:
    """A rectangle of an image; all numbers in latents."""

    top: int
    left: int
    height: int
    width: int

    def of(self, latents: Tensor) -> Tensor:
        """The part of latents [..., h, w] on the tile: a view [..., height, width]."""
        return latents[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def of_pixels(self, planes: Tensor) -> Tensor:
        """The part of planes of the image's size in pixels: a view [..., 8 * height, 8 * width]."""
        return Tile(*(_PIXELS * edge for edge in (self.top, self.left, self.height, self.width))).of(planes)


def tiles_of(width: int, height: int, tile_size: int, device: torch.device | str = "cpu") -> dict[Tile, Tensor]:
    """Overlapping tiles over an image, with the weights [height, width] (in latents) of each.

    `width`, `height` and `tile_size` are pixels. No side of a tile is longer than `tile_size`, and at every position
    the weights of the tiles sum to 1.
    """
    rows, columns = (_spread(side // _PIXELS, tile_size // _PIXELS, device) for side in (height, width))
    return {
        Tile(top, left, len(down), len(across)): down[:, None] * across
        for top, down in rows
        for left, across in columns
    }


def _spread(length: int, longest: int, device: torch.device | str) -> list[tuple[int, Tensor]]:
    """The tiles along an axis, evenly spread: the start of each, and its weight at each of its positions."""
    import torch

    side = min(longest, length)
    count = 1 + ceil((length - side) / (side * (1 - _OVERLAP)))
    starts = [round(number * (length - side) / max(1, count - 1)) for number in range(count)]
    # A prediction is worst at the edges of its tile, where it lacks context, so its weight fades towards them.
    window = torch.sin(torch.pi * (torch.arange(side, device=device) + 0.5) / side) ** 2
    total = torch.zeros(length, device=device)
    for start in starts:
        total[start : start + side] += window
    return [(start, window / total[start : start + side]) for start in starts]


Residuals = Callable[[Tile], tuple[Any, Any]]
"""The residuals of the ControlNets on a tile: of the down blocks, and of the middle block."""


@dataclass(frozen=True, eq=False)
class TiledUNet:
    """Stands in for the UNet in a pipeline, and runs it on one tile after the other.

    ControlNets must come from `tiled_control_stack`.
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
                cross_attention_kwargs=_crop_masks(cross_attention_kwargs, tile),
                **inputs,
            )
            if total is None:
                total = torch.zeros(*prediction.shape[:2], *sample.shape[-2:], device=prediction.device)
            tile.of(total).add_(prediction * weights)
        assert total is not None
        return (total.to(sample.dtype),)


def _no_residuals(_: Tile) -> tuple[None, None]:
    return None, None


def _crop_masks(attention: Mapping[str, Any] | None, tile: Tile) -> Mapping[str, Any] | None:
    """The arguments of the attention layers, with the masks of references cropped to the tile."""
    if attention is None or "ip_adapter_masks" not in attention:
        return attention
    return {**attention, "ip_adapter_masks": [tile.of_pixels(mask) for mask in attention["ip_adapter_masks"]]}


def tiled_control_stack(controls: Sequence[Control], guided: bool) -> Any:
    """The control stack for a pipeline with a `TiledUNet`; `guided` as in `unet_control_stack`."""
    stack = unet_control_stack(controls, guided)
    stack.forward = _TiledStack(controls, guided)
    return stack


@dataclass
class _TiledStack:
    """The forward of a tiled stack. It returns a function of the tile, which the pipeline passes on to the UNet."""

    controls: Sequence[Control]
    guided: bool
    _stacks: dict[Tile, tuple[Any, list[Tensor]]] = field(default_factory=dict)

    def __call__(
        self, sample: Tensor, timestep: Any, *, controlnet_cond: Sequence[Tensor], **inputs: Any
    ) -> tuple[Residuals, None]:
        def residuals(tile: Tile) -> tuple[Any, Any]:
            if tile not in self._stacks:
                self._stacks[tile] = self._stack_for(tile, controlnet_cond)
            stack, hints = self._stacks[tile]
            return stack(tile.of(sample), timestep, controlnet_cond=hints, **inputs)

        return residuals, None

    def _stack_for(self, tile: Tile, hints: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
        """The stack for a tile, and the hints cropped to it, which are kept so that each is encoded once."""
        controls = [
            control if control.mask is None else replace(control, mask=tile.of_pixels(control.mask))
            for control in self.controls
        ]
        cropped = [_crop_hint(control, hint, tile) for control, hint in zip(controls, hints, strict=True)]
        return unet_control_stack(controls, self.guided), cropped


def _crop_hint(control: Control, hint: Tensor, tile: Tile) -> Tensor:
    """The hint on a tile. Averaging nets (shuffle) ignore positions and get the whole hint, scaled to the tile."""
    from torch.nn import functional

    if control.net.config.global_pool_conditions:
        return functional.interpolate(hint, size=(_PIXELS * tile.height, _PIXELS * tile.width), mode="area")
    return tile.of_pixels(hint)
