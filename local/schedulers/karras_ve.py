"""The stochastic sampler of Karras et al. (2022) for latent models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor

from .sigmas import SigmaScheduler, current_index

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# The defaults of diffusers' KarrasVeScheduler, from table 5 of the paper.
S_CHURN, S_NOISE, S_MIN, S_MAX = 80.0, 1.007, 0.05, 50.0


class KarrasVeLatentScheduler(SigmaScheduler):
    """Algorithm 2 of arXiv:2206.00364 on the geometric VE schedule, within the sigmas of a latent model.

    Each step raises the noise from sigma to sigma_hat = sigma * (1 + gamma), takes an Euler step to sigma_next, and
    corrects it with the derivative there (Heun). That is 2n - 1 calls of the network for n steps: at sigma_hat (even
    index), then at sigma_next (odd index). The last step, to 0, has no correction.

    diffusers' KarrasVeScheduler raises the noise in a loop of its own. Here the raised sigmas are part of the schedule,
    so that an ordinary pipeline can run it: the correction of a step also adds the noise of the next one.
    """

    order = 2

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        self.num_inference_steps = num_inference_steps
        sigmas = self._geometric_sigmas(num_inference_steps)
        gamma_max = min(S_CHURN / num_inference_steps, 2**0.5 - 1)
        gammas = np.where((sigmas >= S_MIN) & (sigmas <= S_MAX), gamma_max, 0.0)
        self._step_sigmas = [*sigmas, 0.0]
        # The network knows nothing above its highest sigma.
        self._sigma_hats = np.minimum(sigmas * (1 + gammas), sigmas[0])
        corrections = zip(sigmas[1:], self._sigma_hats[1:], strict=True)
        self._set_sigmas([self._sigma_hats[0], *(sigma for pair in corrections for sigma in pair)], device)
        self._prediction: tuple[Tensor, Tensor, float] | None = None  # x, derivative and sigma_hat of a step

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
        d = (x - denoised) / sigma
        if index % 2 == 0:
            self._prediction = x, d, sigma
            sigma_next = self._step_sigmas[index // 2 + 1]
            x = x + (sigma_next - sigma) * d
        else:
            assert self._prediction is not None, "a correction follows the prediction of its step"
            x_hat, d_hat, sigma_hat = self._prediction
            x = x_hat + (sigma - sigma_hat) * (d_hat + d) / 2
            next_sigma_hat = float(self._sigma_hats[index // 2 + 1])
            added_variance = max(0.0, next_sigma_hat**2 - sigma**2)
            noise = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = x + S_NOISE * added_variance**0.5 * noise
        self._step_index = index + 1
        x = x.to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x, denoised)
