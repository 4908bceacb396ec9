"""Stacks that run the controls of one net in one call. The engine does not use them; bench_choices.py measures them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from controlstack.local.controlnet.control import Control
from controlstack.local.controlnet.flux_stack import BlockResiduals, FluxStack, add, masked
from controlstack.local.controlnet.unet_stack import UNetStack
from torch import Tensor


@contextmanager
def batched_stacks() -> Iterator[None]:
    """Within this context the engine runs the controls of one net in one call."""
    with (
        patch("controlstack.local.controlnet.unet_stack.UNetStack", BatchedUNetStack),
        patch("controlstack.local.controlnet.flux_stack.FluxStack", BatchedFluxStack),
    ):
        yield


@dataclass
class BatchedUNetStack(UNetStack):
    """For plain nets only. Residuals are added in the order of the controls."""

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
        residuals_of: dict[int, list[Tensor]] = {}
        for group in _group_by_net(self.controls, conditioning_scale):
            net, count = self.controls[group[0]].net, len(group)
            added = rest.get("added_cond_kwargs")
            more = {**rest, "added_cond_kwargs": added and {name: _repeat(v, count) for name, v in added.items()}}
            # Scaled by 1 here, which changes no bit, and by the strength of each control afterwards.
            down, mid = net(
                _repeat(sample, count),
                timestep,
                _repeat(encoder_hidden_states, count),
                _batch_hints(self._hints, group, controlnet_cond),
                1.0,
                **more,
            )
            for index, parts in zip(group, zip(*(r.chunk(count) for r in (*down, mid)), strict=True), strict=True):
                residuals_of[index] = self.masked(index, [part * conditioning_scale[index] for part in parts], sample)
        if not residuals_of:
            return None, None
        first, *others = (residuals_of[index] for index in sorted(residuals_of))
        for residuals in others:
            first = [a + b for a, b in zip(first, residuals, strict=True)]
        return first[:-1], first[-1]


@dataclass
class BatchedFluxStack(FluxStack):
    """Residuals are added in the order of the controls."""

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
        residuals_of: dict[int, Sequence[Any]] = {}
        batched = ("timestep", "pooled_projections", "encoder_hidden_states")
        for group in _group_by_net(self.controls, conditioning_scale):
            net, count = self.controls[group[0]].net, len(group)
            residuals = net(
                hidden_states=_repeat(hidden_states, count),
                controlnet_cond=_batch_hints(self._hints, group, controlnet_cond),
                controlnet_mode=torch.cat(
                    [controlnet_mode[index].reshape(-1, 1).expand(len(hidden_states), 1) for index in group]
                ),
                conditioning_scale=1.0,
                guidance=_repeat(guidance, count) if net.config.guidance_embeds else None,
                img_ids=img_ids,
                **{name: _repeat(value, count) if name in batched else value for name, value in rest.items()},
            )
            for place, index in enumerate(group):
                scale = conditioning_scale[index]
                scaled = [kind and [r.chunk(count)[place] * scale for r in kind] for kind in residuals]
                residuals_of[index] = masked(self.controls[index], scaled, hidden_states, img_ids)
        double: BlockResiduals | None = None
        single: BlockResiduals | None = None
        for index in sorted(residuals_of):
            double = add(double, BlockResiduals.spread(residuals_of[index][0], self.double_blocks, cycle=False))
            single = add(single, BlockResiduals.spread(residuals_of[index][1], self.single_blocks, cycle=False))
        return double and double.by_block(), single and single.by_block()


def _group_by_net(controls: Sequence[Control], scales: Sequence[float]) -> list[list[int]]:
    """The indices of the controls that act, grouped by their net."""
    groups: dict[Any, list[int]] = {}
    for index, scale in enumerate(scales):
        if scale != 0:
            groups.setdefault(controls[index].net, []).append(index)
    return list(groups.values())


def _repeat(tensor: Tensor | None, count: int) -> Tensor | None:
    """The batch `count` times."""
    return None if tensor is None else tensor.repeat(count, *[1] * (tensor.ndim - 1))


def _batch_hints(known: dict[tuple[int, ...], Tensor], group: Sequence[int], hints: Sequence[Tensor]) -> Tensor:
    """The hints of a group as one batch: the same tensor each time, so that it is encoded once."""
    if tuple(group) not in known:
        known[tuple(group)] = torch.cat([hints[index] for index in group])
    return known[tuple(group)]
