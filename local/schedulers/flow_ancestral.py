"""Ancestral Euler for flow-matching models, on the schedule of diffusers' FlowMatchEulerDiscreteScheduler.

x = (1 - sigma) * data + sigma * noise, with sigma from 1 to 0. The network predicts the velocity
dx/dsigma = noise - data, which is the derivative that the sampler integrates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor

from .sigmas import current_index

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class FlowEulerAncestralScheduler(FlowMatchEulerDiscreteScheduler):
    """Ancestral Euler: steps down to sigma_down, below the next sigma, and adds new noise to return to the next sigma.

    The rectified-flow form of k-diffusion's sampler, as in ComfyUI (sample_euler_ancestral_RF with eta 1):
    sigma_down = sigma_next^2 / sigma, and x is rescaled so that data and noise have the shares of sigma_next.
    """

    def step(  # type: ignore[override]
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> Any:
        index = current_index(self, timestep)
        sigmas: Any = self.sigmas
        sigma, sigma_next = float(sigmas[index]), float(sigmas[index + 1])
        sigma_down = sigma_next**2 / sigma
        dt = sigma_down - sigma
        x = sample.float() + dt * model_output.float()
        if sigma_next > 0:
            alpha_ratio = (1 - sigma_next) / (1 - sigma_down)
            renoise = max(0.0, sigma_next**2 - (sigma_down * alpha_ratio) ** 2) ** 0.5
            noise = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = alpha_ratio * x + renoise * noise
        self._step_index = index + 1
        x = x.to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)
