"""Combines the ControlNets of a request into the one ControlNet that the pipelines of SD 1.5 and SDXL expect.

diffusers' own stack runs every net at every step, outside its window with strength 0, and encodes the maps at every
step. This one runs only the nets that act, and combines nets that diffusers keeps apart: plain and union nets, with
and without masks, averaging nets (shuffle) and others. Where none of that applies, the result is that of diffusers'
MultiControlNetModel to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

from .control import Control, stand_in

if TYPE_CHECKING:
    from torch import Tensor


def unet_control_stack(controls: Sequence[Control], guided: bool) -> Any:
    """A MultiControlNetModel for the controls; `guided` if the pipeline doubles its batch for guidance."""
    from diffusers import MultiControlNetModel

    # The pipelines treat all nets as averaging ones if the first is.
    nets = [stand_in(control.net, global_pool_conditions=False) for control in controls]
    stack: Any = MultiControlNetModel(nets)
    stack.forward = UNetStack(controls, guided)
    return stack


@dataclass
class UNetStack:
    """The forward of MultiControlNetModel."""

    controls: Sequence[Control]
    guided: bool
    _areas: dict[tuple[int, tuple[int, int]], Tensor] = field(default_factory=dict)
    """The mask of a control (by its index) at a size of residuals."""
    _prompt_hints: dict[int, Tensor] = field(default_factory=dict)
    """The second half of an averaging net's hint, by the control's index: the same tensor for every step."""

    def __call__(
        self,
        sample: Tensor,
        timestep: Any,
        *,
        encoder_hidden_states: Tensor,
        controlnet_cond: Sequence[Tensor],
        conditioning_scale: Sequence[float],
        **rest: Any,
    ) -> tuple[Any, Any]:
        """The summed residuals (down blocks, middle block) of the nets that act.

        (None, None) if none acts; the UNet then runs alone.
        """
        inputs = _Inputs(sample, timestep, encoder_hidden_states, controlnet_cond, conditioning_scale, rest)
        acting = [index for index, scale in enumerate(conditioning_scale) if scale != 0]
        total: list[Tensor] | None = None
        for group in self._group(acting):
            residuals = self.masked(group[0], self._run(group, inputs), sample)
            total = residuals if total is None else [a + b for a, b in zip(total, residuals, strict=True)]
        return (None, None) if total is None else (total[:-1], total[-1])

    def _group(self, acting: Sequence[int]) -> list[list[int]]:
        """The indices of the controls, grouped by calls of a net.

        Unmasked controls of one union net share a call, as the net was trained; every other control has its own.
        """
        groups: list[list[int]] = []
        group_of_net: dict[Any, list[int]] = {}
        for index in acting:
            control = self.controls[index]
            shares = control.mode is not None and control.mask is None
            if shares and control.net in group_of_net:
                group_of_net[control.net].append(index)
                continue
            groups.append([index])
            if shares:
                group_of_net[control.net] = groups[-1]
        return groups

    def _run(self, group: Sequence[int], inputs: _Inputs) -> list[Tensor]:
        """The residuals of one call, the middle block's last."""
        control = self.controls[group[0]]
        if control.mode is not None:
            down, mid = self._run_union(group, inputs)
        elif control.net.config.global_pool_conditions and self.guided:
            down, mid = self._run_averaging(group[0], inputs)
        else:
            hint, scale = inputs.hints[group[0]], inputs.scales[group[0]]
            down, mid = control.net(inputs.sample, inputs.timestep, inputs.text, hint, scale, **inputs.rest)
        return [*down, mid]

    def _run_union(self, group: Sequence[int], inputs: _Inputs) -> tuple[Any, Any]:
        import torch

        net = self.controls[group[0]].net
        modes = [self.controls[index].mode for index in group]
        control_type = torch.zeros(inputs.sample.shape[0], net.config.num_control_type)
        control_type[:, modes] = 1
        return net(
            inputs.sample,
            inputs.timestep,
            inputs.text,
            [inputs.hints[index] for index in group],
            control_type.to(inputs.sample),
            modes,
            [inputs.scales[index] for index in group],
            **inputs.rest,
        )

    def _run_averaging(self, index: int, inputs: _Inputs) -> tuple[list[Tensor], Tensor]:
        """An averaging net was trained for the half of the batch with the prompt; the other half gets zeros."""
        import torch

        hint = self._prompt_hints.setdefault(index, inputs.hints[index].chunk(2)[1])
        added = inputs.rest.get("added_cond_kwargs")
        rest = {
            **inputs.rest,
            "added_cond_kwargs": added and {name: value.chunk(2)[1] for name, value in added.items()},
            "guess_mode": True,
        }
        sample, text = inputs.sample.chunk(2)[1], inputs.text.chunk(2)[1]
        down, mid = self.controls[index].net(sample, inputs.timestep, text, hint, inputs.scales[index], **rest)
        return [torch.cat([torch.zeros_like(d), d]) for d in down], torch.cat([torch.zeros_like(mid), mid])

    def masked(self, index: int, residuals: list[Tensor], sample: Tensor) -> list[Tensor]:
        """The residuals of a control (down blocks, then the middle block), limited to its mask."""
        control = self.controls[index]
        if control.mask is None:
            return residuals
        sizes = _residual_sizes(control.net.config, *sample.shape[-2:])
        return [r * self._area(index, control.mask, size, r) for r, size in zip(residuals, sizes, strict=True)]

    def _area(self, index: int, mask: Tensor, size: tuple[int, int], residual: Tensor) -> Tensor:
        from torch.nn import functional

        if (index, size) not in self._areas:
            area = functional.interpolate(mask.to(residual), size=size, mode="area")
            self._areas[index, size] = area.repeat(residual.shape[0] // area.shape[0], 1, 1, 1)
        return self._areas[index, size]


@dataclass(frozen=True, eq=False)
class _Inputs:
    """What a pipeline calls the stack with at a step; a hint and a scale for each control."""

    sample: Tensor
    timestep: Any
    text: Tensor
    hints: Sequence[Tensor]
    scales: Sequence[float]
    rest: Mapping[str, Any]


def _residual_sizes(config: Any, height: int, width: int) -> list[tuple[int, int]]:
    """The sizes at which a UNet adds the residuals, the middle block's last.

    Residuals of averaging nets are 1 x 1 and are broadcast to these sizes.
    """
    sizes = [(height, width)]
    levels = len(config.block_out_channels)
    for level in range(levels):
        sizes += [(height, width)] * config.layers_per_block
        if level < levels - 1:
            height, width = ceil(height / 2), ceil(width / 2)
            sizes.append((height, width))
    return [*sizes, (height, width)]
