"""The predictor-corrector sampler of Song et al. (2021) for latent models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor

from .sigmas import SigmaScheduler, current_index

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Signal-to-noise ratio r of the corrector: the default of diffusers' ScoreSdeVeScheduler, from appendix G of the paper.
SNR = 0.15


class ScoreSdeVeLatentScheduler(SigmaScheduler):
    """Algorithm 2 of arXiv:2011.13456, predictor-corrector sampling of the VE SDE, within the sigmas of a latent model.

    Each step calls the network twice at the same sigma: for one corrector step of Langevin dynamics (even index), then
    for the predictor, reverse diffusion to sigma_next (odd index). The last step, to 0, adds no noise.

    diffusers' ScoreSdeVeScheduler has one method for each. Here `step` tells them apart by the index, so that an
    ordinary pipeline can run it.
    """

    order = 2

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        self.num_inference_steps = num_inference_steps
        sigmas = self._geometric_sigmas(num_inference_steps)
        self._step_sigmas = [*sigmas, 0.0]
        self._set_sigmas(np.repeat(sigmas, self.order), device)

    def step(  # type: ignore[override]
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> Any:
        index = current_index(self, timestep)
        sigma = float(self.sigmas[index])
        x = sample.float()
        denoised = self._denoise(model_output.float(), x, sigma)
        score = (denoised - x) / sigma**2
        z = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        if index % 2 == 0:
            # A step size for each image of the batch: an image must not depend on the others in its batch.
            z_norm, score_norm = (tensor.flatten(1).norm(dim=-1).clamp(min=1e-12) for tensor in (z, score))
            step_size = (2 * (SNR * z_norm / score_norm) ** 2).view(-1, *[1] * (x.ndim - 1))
            x = x + step_size * score + (2 * step_size) ** 0.5 * z
        else:
            sigma_next = self._step_sigmas[index // 2 + 1]
            variance = sigma**2 - sigma_next**2
            x = x + variance * score
            if sigma_next > 0:
                x = x + variance**0.5 * z
        self._step_index = index + 1
        x = x.to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x, denoised)
