"""The arguments of a diffusers pipeline for a request."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from ...core.conventions import NetKind, adapt_map
from ...core.images import control_image, fit_image, fit_mask, to_rgb
from ...core.modality import Modality
from ...core.request import ControlUnit, GenerationRequest, Resize
from ...models.families import Family
from ...models.net_search import Net
from ..controlnet.control import Control
from ..files.request_networks import autoencoder, control_network
from ..memory.autoencoders import cast_vae, encoding_dtype
from ..model.local_model import ZEROS_FOR_EMPTY, LocalModel
from ..model.pipelines import Task, task_of
from ..prompt.encoding import Encoded, encode_prompts

if TYPE_CHECKING:
    from torch import Tensor


def is_guided(model: LocalModel, request: GenerationRequest) -> bool:
    """Whether every step runs with and without the prompt. FLUX was distilled to run once per step."""
    return request.guidance_scale > 1 and not model.facts.flow


def text_inputs(model: LocalModel, request: GenerationRequest, state: Hashable) -> dict[str, Tensor]:
    """The embeddings of both prompts, one for each image of the batch. `state` as in `encode_prompts`."""
    import torch

    texts = [request.prompt, request.negative_prompt] if is_guided(model, request) else [request.prompt]
    positive, *rest = encode_prompts(model, texts, request.clip_skip, state)
    inputs = _named("", positive, request.batch_size)
    for negative in rest:
        if not request.negative_prompt and model.components.get(ZEROS_FOR_EMPTY, model.family is Family.SDXL):
            pooled = None if negative.pooled is None else torch.zeros_like(negative.pooled)
            negative = Encoded(torch.zeros_like(negative.embeds), pooled)
        inputs |= _named("negative_", negative, request.batch_size)
    return inputs


def _named(prefix: str, encoded: Encoded, count: int) -> dict[str, Tensor]:
    inputs = {f"{prefix}prompt_embeds": encoded.embeds.repeat(count, 1, 1)}
    if encoded.pooled is not None:
        inputs[f"{prefix}pooled_prompt_embeds"] = encoded.pooled.repeat(count, 1)
    return inputs


def start_inputs(request: GenerationRequest) -> dict[str, Any]:
    """The initial image, the mask of what to redraw, and the denoise strength."""
    if request.init_image is None:
        return {}
    inputs: dict[str, Any] = {"image": _planes(_init_image(request)), "strength": request.denoise}
    if task_of(request) is Task.INPAINT:
        inputs["mask_image"] = _planes(fitted_mask(request))
    return inputs


def init_latents(model: LocalModel, request: GenerationRequest) -> Tensor:
    """The initial image as latents [batch, channels, h, w]: the mean of what the encoder gives, without its noise."""
    import torch

    vae: Any = autoencoder(model, request.vae).module
    dtype = encoding_dtype(model.family, vae)
    with torch.no_grad(), cast_vae(vae, dtype):
        encoded = vae.encode(_planes(_init_image(request)).to(model.device, dtype) * 2 - 1)
    latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    return latents.to(model.dtype) * vae.config.scaling_factor


def keep_unmasked(request: GenerationRequest, images: Tensor) -> Tensor:
    """The result inside the mask, and the unchanged pixels of the initial image outside."""
    import torch

    return torch.where(fitted_mask(request) >= 0.5, images, _init_image(request).to(images))


def _init_image(request: GenerationRequest) -> Tensor:
    assert request.init_image is not None
    image = fit_image(to_rgb(request.init_image), request.width, request.height, Resize.CROP)
    return image.expand(request.batch_size, -1, -1, -1)


def fitted_mask(request: GenerationRequest) -> Tensor:
    """The mask at the size of the result [batch, height, width, 1]."""
    assert request.mask is not None and request.init_image is not None
    mask = fit_mask(request.mask, request.init_image, request.width, request.height, Resize.CROP)
    return mask.expand(request.batch_size, -1, -1, -1)


def control_inputs(
    model: LocalModel, request: GenerationRequest, controls: Sequence[ControlUnit], nets: Sequence[Net], name: str
) -> dict[str, list[Any]]:
    """Maps, strengths and windows of the controls; `name` is the pipeline's argument for the maps."""
    if not controls:
        return {}
    size = (request.width, request.height)
    maps = [
        _planes(adapt_map(control_image(control, *size), control, net_kind(model, net)))
        for control, net in zip(controls, nets, strict=True)
    ]
    if model.facts.flow:
        # Its ControlNets take -1..1. The pipelines convert PIL images to that range, but not tensors.
        maps = [2 * plane - 1 for plane in maps]
    inputs: dict[str, list[Any]] = {
        name: maps,
        "controlnet_conditioning_scale": [float(control.strength) for control in controls],
        "control_guidance_start": [control.start for control in controls],
        "control_guidance_end": [control.end for control in controls],
    }
    if model.facts.flow:
        inputs["control_mode"] = [net.mode for net in nets]
    return inputs


def net_controls(
    model: LocalModel, request: GenerationRequest, controls: Sequence[ControlUnit], nets: Sequence[Net]
) -> list[Control]:
    """The controls with their networks. The mask of an inpaint control is part of its map, not a limit on its area."""
    units: list[Control] = []
    for control, net in zip(controls, nets, strict=True):
        limit = None if control.modality is Modality.INPAINT else control.mask
        area = None
        if limit is not None:
            area = _planes(fit_mask(limit, control.image, request.width, request.height, control.resize))
        units.append(Control(control_network(model, net).module, net.mode, area))
    return units


def net_kind(model: LocalModel, net: Net) -> NetKind:
    """The kind of the net, which decides how its maps must look."""
    if model.facts.flow and net.union:
        return NetKind.FLUX_UNION if net.mode is not None else NetKind.FLUX_UNION_PRO_2
    if model.facts.flow:
        return NetKind.FLUX
    if model.family is Family.SD15:
        return NetKind.SD15
    return NetKind.SDXL_UNION if net.union else NetKind.SDXL


def _planes(images: Tensor) -> Tensor:
    return images.movedim(-1, 1)
