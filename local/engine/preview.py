"""Small images of unfinished latents, without running the decoder at every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from ..memory.autoencoders import cast_vae, decoding_dtype, unsliced
from ..model.local_model import LocalModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_PROBES = 96


class LatentPreview:
    """A linear map from latent channels to colors, fitted to the model's decoder, so it works with any autoencoder.

    `device` and `dtype` are those in which the decoder computes. Its weights may be on another device, or in another
    dtype, until it is called.
    """

    def __init__(self, vae: Any, device: torch.device, dtype: torch.dtype) -> None:
        import torch

        generator = torch.Generator().manual_seed(0)
        channels = vae.config.latent_channels
        probes = torch.randn(_PROBES, channels, generator=generator)
        flat = probes[..., None, None].expand(-1, -1, 2, 2).to(device, dtype)
        with torch.no_grad(), cast_vae(vae, dtype), unsliced(vae):
            shift = vae.config.get("shift_factor") or 0.0
            colors = vae.decode(flat / vae.config.scaling_factor + shift).sample.float().cpu().mean((2, 3))
        inputs = torch.cat([probes, torch.ones(_PROBES, 1)], dim=1)
        # A decoder that gives NaN must fail where its result is checked, with a clear message, not here in the fit.
        self._weights: Tensor = torch.linalg.lstsq(inputs, colors.nan_to_num().clamp(-1, 1)).solution

    def __call__(self, latents: Tensor) -> Tensor:
        """The first of the latents [batch, channels, h, w] as uint8 [h, w, 3]."""
        planes = latents[0].detach().float().cpu().movedim(0, -1)
        colors: Tensor = planes @ self._weights[:-1] + self._weights[-1]
        return ((colors.clamp(-1, 1) + 1) * 127.5).round().byte()


def latent_preview(model: LocalModel, vae: Any) -> LatentPreview:
    """The preview for latents of that autoencoder. It is fitted once and cached with the model."""
    dtype = decoding_dtype(model.family, vae)
    return model.results.get(("preview", ref(vae)), lambda: LatentPreview(vae, model.device, dtype))
