"""The predictor-corrector sampler of Song et al. for latent models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor

from .scheduling_sigmas import SigmaScheduler

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Signal-to-noise ratio of a correction: diffusers' ScoreSdeVeScheduler, from appendix G of the paper.
SNR = 0.15


class ScoreSdeVeLatentScheduler(SigmaScheduler):
    """Predictor-corrector sampling of the VE SDE (arXiv:2011.13456, algorithm 2), within a latent model's noise levels.

    Calls the network twice a step at the same level: for a Langevin correction, then for the reverse diffusion to the
    next level. diffusers' class of that name has a method for each; here `step` tells them apart by their place. The
    last step goes to the denoised mean.
    """

    order = 2

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        self.num_inference_steps = num_inference_steps
        levels = self._geometric(num_inference_steps)
        self._levels = [*levels, 0.0]
        self._visit(np.repeat(levels, self.order), device)

    def step(  # type: ignore[override]
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> Any:
        if self._step_index is None:
            self._init_step_index(timestep)
        place = self._step_index or 0
        sigma = float(self.sigmas[place])
        x = sample.float()
        denoised = self._denoised(model_output.float(), x, sigma)
        score = (denoised - x) / sigma**2
        noise = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        if place % 2 == 0:
            norms = [tensor.flatten(1).norm(dim=-1).clamp(min=1e-12) for tensor in (noise, score)]
            # Each picture of a batch has a step size of its own, so that it can be made again alone.
            size = (2 * (SNR * norms[0] / norms[1]) ** 2).view(-1, *[1] * (x.ndim - 1))
            x = x + size * score + (2 * size) ** 0.5 * noise
        else:
            following = self._levels[place // 2 + 1]
            variance = sigma**2 - following**2
            x = x + variance * score
            if following > 0:
                x = x + variance**0.5 * noise
        self._step_index = place + 1
        x = x.to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x, denoised)
