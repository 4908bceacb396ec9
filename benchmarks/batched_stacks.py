"""Stacks that put the controls of one net into one call: measured by bench_choices.py, and not in the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from controlstack.local.controlnets import _FluxStack, _for_blocks, _residual_sizes, _sum, _token_area, _UNetStack
from torch import Tensor


@dataclass
class BatchedUNetStack(_UNetStack):
    """Plain nets only; the order in which residuals are added is that of the controls."""

    _hints: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

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
        groups: dict[int, list[int]] = {}
        for index, scale in enumerate(conditioning_scale):
            if scale != 0:
                groups.setdefault(id(self.controls[index].net), []).append(index)
        found: dict[int, list[Tensor]] = {}
        for group in groups.values():
            net, count = self.controls[group[0]].net, len(group)
            added = rest.get("added_cond_kwargs")
            more = {**rest, "added_cond_kwargs": added and {name: _times(v, count) for name, v in added.items()}}
            # Scaled by 1 here, which changes no bit, and by each control's own strength afterwards.
            down, mid = net(
                _times(sample, count),
                timestep,
                _times(encoder_hidden_states, count),
                _together(self._hints, group, controlnet_cond),
                1.0,
                **more,
            )
            for index, parts in zip(group, zip(*(r.chunk(count) for r in (*down, mid)), strict=True), strict=True):
                found[index] = [part * conditioning_scale[index] for part in parts]
                if self.controls[index].mask is not None:
                    sizes = _residual_sizes(net.config, *sample.shape[-2:])
                    areas = [self._area(index, size, part) for size, part in zip(sizes, found[index], strict=True)]
                    found[index] = [part * area for part, area in zip(found[index], areas, strict=True)]
        if not found:
            return None, None
        first, *others = (found[index] for index in sorted(found))
        for residuals in others:
            first = [a + b for a, b in zip(first, residuals, strict=True)]
        return first[:-1], first[-1]


@dataclass
class BatchedFluxStack(_FluxStack):
    """The order in which residuals are added is that of the controls."""

    _hints: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

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
    ) -> tuple[Any, Any]:
        groups: dict[int, list[int]] = {}
        for index, scale in enumerate(conditioning_scale):
            if scale != 0:
                groups.setdefault(id(self.controls[index].net), []).append(index)
        found: dict[int, list[list[Tensor] | None]] = {}
        each_row = ("timestep", "pooled_projections", "encoder_hidden_states")
        for group in groups.values():
            net, count = self.controls[group[0]].net, len(group)
            residuals = net(
                hidden_states=_times(hidden_states, count),
                controlnet_cond=_together(self._hints, group, controlnet_cond),
                controlnet_mode=torch.cat(
                    [controlnet_mode[index].reshape(-1, 1).expand(len(hidden_states), 1) for index in group]
                ),
                conditioning_scale=1.0,
                guidance=_times(guidance, count) if net.config.guidance_embeds else None,
                img_ids=img_ids,
                **{name: _times(value, count) if name in each_row else value for name, value in rest.items()},
            )
            for place, index in enumerate(group):
                mask, scale = self.controls[index].mask, conditioning_scale[index]
                area = 1.0 if mask is None else _token_area(mask, hidden_states, img_ids)
                found[index] = [kind and [r.chunk(count)[place] * scale * area for r in kind] for kind in residuals]
        double: list[Tensor] | None = None
        single: list[Tensor] | None = None
        for index in sorted(found):
            double = _sum(double, _for_blocks(found[index][0], self.layers[0], in_turn=False))
            single = _sum(single, _for_blocks(found[index][1], self.layers[1], in_turn=False))
        return double, single


def _times(tensor: Tensor | None, count: int) -> Tensor | None:
    return None if tensor is None else tensor.repeat(count, *[1] * (tensor.ndim - 1))


def _together(known: dict[tuple[int, ...], Tensor], group: Sequence[int], hints: Sequence[Tensor]) -> Tensor:
    """The same tensor each time, so that its encoding is found again."""
    if tuple(group) not in known:
        known[tuple(group)] = torch.cat([hints[index] for index in group])
    return known[tuple(group)]
