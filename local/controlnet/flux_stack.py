"""Combines the ControlNets of a request into the one ControlNet that the pipelines of FLUX expect.

It runs only the nets that act, applies masks, and combines nets whose maps the autoencoder encodes (InstantX's) with
nets that encode them themselves (XLabs'). Where none of that applies, the result is that of diffusers'
FluxMultiControlNetModel to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

from .control import Control, stand_in

if TYPE_CHECKING:
    from torch import Tensor


def flux_control_stack(controls: Sequence[Control], maps: Sequence[Tensor], transformer: Any) -> Any:
    """A FluxMultiControlNetModel for the controls.

    `maps` [1 or batch, 3, height, width] in -1..1 are for nets that encode them themselves. A pipeline asks the first
    net whether the autoencoder encodes the maps, and does the same for all nets. Here the answer is yes if any net
    needs that, and the other nets take their maps from `maps`.
    """
    from diffusers import FluxMultiControlNetModel

    guided = any(control.net.config.guidance_embeds for control in controls)
    encoded = any(control.net.input_hint_block is None for control in controls)
    nets = [stand_in(control.net, guidance_embeds=guided) for control in controls]
    for net, control in zip(nets, controls, strict=True):
        net.input_hint_block = None if encoded else control.net.input_hint_block
    stack: Any = FluxMultiControlNetModel(nets)
    blocks = len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)
    stack.forward = FluxStack(controls, maps, *blocks)
    return stack


@dataclass
class FluxStack:
    """The forward of FluxMultiControlNetModel, for a transformer with that many double and single blocks."""

    controls: Sequence[Control]
    maps: Sequence[Tensor]
    double_blocks: int
    single_blocks: int
    _placed_maps: dict[int, Tensor] = field(default_factory=dict)
    """The map of a control, by its index, on the device and in the dtype of the latents."""

    def __call__(
        self,
        *,
        hidden_states: Tensor,
        controlnet_cond: Sequence[Tensor],
        controlnet_mode: Sequence[Tensor],
        conditioning_scale: Sequence[float],
        guidance: Tensor | None,
        img_ids: Tensor,
        **rest: Any,
    ) -> tuple[list[Tensor] | None, list[Tensor] | None]:
        """The summed residuals of the nets that act: one for each double and each single block, None without any."""
        double: BlockResiduals | None = None
        single: BlockResiduals | None = None
        for index, (control, hint, mode, scale) in enumerate(
            zip(self.controls, controlnet_cond, controlnet_mode, conditioning_scale, strict=True)
        ):
            if scale == 0:
                continue
            encodes = control.net.input_hint_block is not None
            residuals = control.net(
                hidden_states=hidden_states,
                controlnet_cond=self._map(index, hidden_states) if encodes else hint,
                # Some pipelines give one mode for each image of the batch, others one for all.
                controlnet_mode=mode.reshape(-1, 1).expand(hidden_states.shape[0], 1),
                conditioning_scale=scale,
                guidance=guidance if control.net.config.guidance_embeds else None,
                img_ids=img_ids,
                **rest,
            )
            residuals = masked(control, residuals, hidden_states, img_ids)
            double = add(double, BlockResiduals.spread(residuals[0], self.double_blocks, cycle=encodes))
            single = add(single, BlockResiduals.spread(residuals[1], self.single_blocks, cycle=encodes))
        return double and double.by_block(), single and single.by_block()

    def _map(self, index: int, like: Tensor) -> Tensor:
        """The map of a control: always the same tensor, so that it is encoded once."""
        if index not in self._placed_maps:
            self._placed_maps[index] = self.maps[index].to(like)
        return self._placed_maps[index]


@dataclass(frozen=True, eq=False)
class BlockResiduals:
    """Residuals [batch, tokens, channels] for the blocks of a transformer; several blocks may share one."""

    tensors: Sequence[Tensor]
    indices: Sequence[int]
    """For each block, the index of its residual in `tensors`."""

    @classmethod
    def spread(cls, residuals: Sequence[Tensor] | None, blocks: int, cycle: bool) -> BlockResiduals | None:
        """The residuals of a net for a transformer with more blocks, as diffusers' transformer would use them.

        Each residual goes to several neighboring blocks, or, with `cycle`, the residuals take turns (XLabs').
        """
        if residuals is None:
            return None
        count = len(residuals)
        interval = ceil(blocks / count)
        return cls(residuals, [block % count if cycle else block // interval for block in range(blocks)])

    def __add__(self, other: BlockResiduals) -> BlockResiduals:
        """The sum for each block; a pair of residuals that several blocks share is added once."""
        pairs = list(zip(self.indices, other.indices, strict=True))
        distinct = list(dict.fromkeys(pairs))
        sums = [self.tensors[a] + other.tensors[b] for a, b in distinct]
        return BlockResiduals(sums, [distinct.index(pair) for pair in pairs])

    def by_block(self) -> list[Tensor]:
        """One residual for each block."""
        return [self.tensors[index] for index in self.indices]


def add(a: BlockResiduals | None, b: BlockResiduals | None) -> BlockResiduals | None:
    """The sum of residuals, of which there may be none."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def masked(control: Control, residuals: Sequence[Any], tokens: Tensor, positions: Tensor) -> Sequence[Any]:
    """The residuals of a control (for double blocks, for single blocks; None without any), limited to its mask.

    `tokens` are the latents [batch, tokens, channels], `positions` [tokens, 3] the row and column of each in 1 and 2.
    """
    from torch.nn import functional

    if control.mask is None:
        return residuals
    rows, columns = (int(positions[:, axis].max()) + 1 for axis in (1, 2))
    area = functional.interpolate(control.mask.to(tokens), size=(rows, columns), mode="area").flatten(1)[..., None]
    return [group and [residual * area for residual in group] for group in residuals]
