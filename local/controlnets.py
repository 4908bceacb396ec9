"""The ControlNets of a request as the one net that a diffusers pipeline expects.

The pipelines' own stacks run every net at every step - outside of its window times zero - and encode a hint at every
step. These run only what acts, encode a hint once, and let nets stand together that the pipelines keep apart: plain and
union nets, with masks and without, averaging ones (shuffle) and others. Where none of that applies, the result is that
of diffusers' stacks to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Control:
    """One control as its net takes it.

    `mode` is the number by which a union net knows the kind of map; `mask` [1 or batch, 1, height, width] in 0..1
    limits the control to an area.
    """

    net: Any
    mode: int | None = None
    mask: Tensor | None = None


def unet_control_stack(controls: Sequence[Control], guided: bool) -> Any:
    """A stack for the pipelines of SD 1.5 and SDXL; `guided` where they double the batch for guidance."""
    from diffusers import MultiControlNetModel

    # One averaging net in front would make the pipelines treat all of them so.
    faces = [_face(control.net, global_pool_conditions=False) for control in controls]
    stack: Any = MultiControlNetModel(faces)
    stack.forward = _UNetStack(controls, guided)
    return stack


def flux_control_stack(controls: Sequence[Control], maps: Sequence[Tensor], transformer: Any) -> Any:
    """A stack for the pipelines of FLUX; `maps` [1 or batch, 3, height, width] are for nets that encode them alone.

    The pipelines ask the first net whether maps are encoded by the autoencoder, and do the same for all. Here they do
    it where any net wants that, and the others (XLabs') take their maps from `maps`.
    """
    from diffusers import FluxMultiControlNetModel

    guided = any(control.net.config.guidance_embeds for control in controls)
    faces = [_face(control.net, guidance_embeds=guided) for control in controls]
    encoded = any(control.net.input_hint_block is None for control in controls)
    for face, control in zip(faces, controls, strict=True):
        face.input_hint_block = None if encoded else control.net.input_hint_block
    stack: Any = FluxMultiControlNetModel(faces)
    layers = len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)
    stack.forward = _FluxStack(controls, maps, layers)
    return stack


def _face(net: Any, **config: object) -> Any:
    """What a pipeline sees of a net: its weights, and a configuration of our own."""
    import torch

    face: Any = torch.nn.Module()
    face.net = net
    face.config = SimpleNamespace(**config)
    return face


@contextmanager
def hints_encoded_once(controls: Sequence[Control]) -> Iterator[None]:
    """While this lasts, a net that is given the same hint tensor again takes the embedding it made of it before."""
    modules = {id(encoder): encoder for control in controls if (encoder := _hint_encoder(control.net)) is not None}
    before = {key: module.__dict__.get("forward") for key, module in modules.items()}
    try:
        for module in modules.values():
            module.forward = _remembering(module.forward)
        yield
    finally:
        for key, module in modules.items():
            del module.forward
            if before[key] is not None:
                module.forward = before[key]


def _hint_encoder(net: Any) -> Any:
    return getattr(net, "controlnet_cond_embedding", None) or getattr(net, "input_hint_block", None)


def _remembering(encode: Any) -> Any:
    # The hint is kept as well: its identity counts only as long as nothing else can take its place.
    known: list[tuple[Tensor, Tensor]] = []

    def forward(hint: Tensor) -> Tensor:
        for seen, embedding in known:
            if seen is hint:
                return embedding
        known.append((hint, encode(hint)))
        return known[-1][1]

    return forward


# -- SD 1.5 and SDXL ---------------------------------------------------------------------------------------------------


@dataclass
class _UNetStack:
    """The forward of MultiControlNetModel."""

    controls: Sequence[Control]
    guided: bool
    _areas: dict[tuple[int, tuple[int, int]], Tensor] = field(default_factory=dict)
    _halves: dict[int, Tensor] = field(default_factory=dict)

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
        """The summed residuals of the nets that act; (None, None) where none does: the UNet then runs alone."""
        total: list[Tensor] | None = None
        acting = [index for index, scale in enumerate(conditioning_scale) if scale != 0]
        for group in self._calls(acting):
            residuals = self._run(
                group, sample, timestep, encoder_hidden_states, controlnet_cond, conditioning_scale, rest
            )
            total = residuals if total is None else [a + b for a, b in zip(total, residuals, strict=True)]
        return (None, None) if total is None else (total[:-1], total[-1])

    def _calls(self, acting: Sequence[int]) -> list[list[int]]:
        """Which controls go into one call: those of one union net together, as it was trained, but for masked ones."""
        calls: list[list[int]] = []
        of_net: dict[int, list[int]] = {}
        for index in acting:
            control = self.controls[index]
            together = of_net.get(id(control.net)) if control.mask is None else None
            if together is not None:
                together.append(index)
                continue
            calls.append([index])
            if control.mode is not None and control.mask is None:
                of_net[id(control.net)] = calls[-1]
        return calls

    def _run(
        self,
        group: Sequence[int],
        sample: Tensor,
        timestep: Any,
        text: Tensor,
        hints: Sequence[Tensor],
        scales: Sequence[float],
        rest: dict[str, Any],
    ) -> list[Tensor]:
        import torch

        first = self.controls[group[0]]
        if first.mode is not None:
            modes = [self.controls[index].mode for index in group]
            kinds = torch.zeros(sample.shape[0], first.net.config.num_control_type)
            kinds[:, modes] = 1
            down, mid = first.net(
                sample,
                timestep,
                text,
                [hints[index] for index in group],
                kinds.to(sample),
                modes,
                [scales[index] for index in group],
                **rest,
            )
        elif first.net.config.global_pool_conditions and self.guided:
            # An averaging net was made for the half with the prompt only; the other gets nothing.
            half = self._halves.setdefault(group[0], hints[group[0]].chunk(2)[1])
            halves = {**rest, "added_cond_kwargs": _second_half(rest.get("added_cond_kwargs"))}
            down, mid = first.net(
                sample.chunk(2)[1], timestep, text.chunk(2)[1], half, scales[group[0]], **{**halves, "guess_mode": True}
            )
            down, mid = [torch.cat([torch.zeros_like(d), d]) for d in down], torch.cat([torch.zeros_like(mid), mid])
        else:
            down, mid = first.net(sample, timestep, text, hints[group[0]], scales[group[0]], **rest)
        residuals = [*down, mid]
        if first.mask is None:
            return residuals
        sizes = _residual_sizes(first.net.config, *sample.shape[-2:])
        return [r * self._area(group[0], size, r) for r, size in zip(residuals, sizes, strict=True)]

    def _area(self, index: int, size: tuple[int, int], like: Tensor) -> Tensor:
        """The mask of a control at the size of a residual."""
        from torch.nn import functional

        if (index, size) not in self._areas:
            mask = self.controls[index].mask
            assert mask is not None
            area = functional.interpolate(mask.to(like), size=size, mode="area")
            self._areas[index, size] = area.repeat(like.shape[0] // area.shape[0], 1, 1, 1)
        return self._areas[index, size]


def _residual_sizes(config: Any, height: int, width: int) -> list[tuple[int, int]]:
    """The sizes at which a UNet adds the residuals, the middle block last; those of averaging nets are 1 x 1."""
    sizes = [(height, width)]
    levels = len(config.block_out_channels)
    for level in range(levels):
        sizes += [(height, width)] * config.layers_per_block
        if level < levels - 1:
            height, width = ceil(height / 2), ceil(width / 2)
            sizes.append((height, width))
    return [*sizes, (height, width)]


def _second_half(values: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
    return None if values is None else {name: value.chunk(2)[1] for name, value in values.items()}


# -- FLUX --------------------------------------------------------------------------------------------------------------


@dataclass
class _FluxStack:
    """The forward of FluxMultiControlNetModel; `layers` are the transformer's double and single blocks."""

    controls: Sequence[Control]
    maps: Sequence[Tensor]
    layers: tuple[int, int]
    _placed: dict[int, Tensor] = field(default_factory=dict)

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
        """The summed residuals of the nets that act, one for each double and single block; None where none is."""
        double: list[Tensor] | None = None
        single: list[Tensor] | None = None
        for index, (control, hint, mode, scale) in enumerate(
            zip(self.controls, controlnet_cond, controlnet_mode, conditioning_scale, strict=True)
        ):
            if scale == 0:
                continue
            encodes = control.net.input_hint_block is not None
            residuals = control.net(
                hidden_states=hidden_states,
                controlnet_cond=self._map(index, hidden_states) if encodes else hint,
                # Of each image, or of all: the pipelines do not agree.
                controlnet_mode=mode.reshape(-1, 1).expand(hidden_states.shape[0], 1),
                conditioning_scale=scale,
                guidance=guidance if control.net.config.guidance_embeds else None,
                img_ids=img_ids,
                **rest,
            )
            if control.mask is not None:
                area = _token_area(control.mask, hidden_states, img_ids)
                residuals = [group and [residual * area for residual in group] for group in residuals]
            double = _sum(double, _for_blocks(residuals[0], self.layers[0], in_turn=encodes))
            single = _sum(single, _for_blocks(residuals[1], self.layers[1], in_turn=encodes))
        return double, single

    def _map(self, index: int, like: Tensor) -> Tensor:
        """The map of a control, always the same tensor, so that it is encoded once."""
        if index not in self._placed:
            self._placed[index] = self.maps[index].to(like)
        return self._placed[index]


def _for_blocks(residuals: list[Tensor] | None, layers: int, in_turn: bool) -> list[Tensor] | None:
    """The residual of each block, as the transformer would give them out: each to some neighbours, or all in turn."""
    if residuals is None:
        return None
    count = len(residuals)
    return [residuals[index % count if in_turn else index // ceil(layers / count)] for index in range(layers)]


def _sum(a: list[Tensor] | None, b: list[Tensor] | None) -> list[Tensor] | None:
    """Block by block; what blocks share is added once."""
    if a is None or b is None:
        return b if a is None else a
    pairs = {(id(x), id(y)): (x, y) for x, y in zip(a, b, strict=True)}
    sums = {ids: x + y for ids, (x, y) in pairs.items()}
    return [sums[id(x), id(y)] for x, y in zip(a, b, strict=True)]


def _token_area(mask: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
    """The mask for each token [batch, tokens, 1]; `positions` are the tokens' rows and columns, as pipelines count."""
    from torch.nn import functional

    rows, columns = (int(positions[:, axis].max()) + 1 for axis in (1, 2))
    area = functional.interpolate(mask.to(tokens), size=(rows, columns), mode="area")
    return area.flatten(1)[..., None]
