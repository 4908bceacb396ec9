"""Heun's method for flow-matching models, on the schedule of diffusers' FlowMatchEulerDiscreteScheduler.

x = (1 - sigma) * data + sigma * noise, with sigma from 1 to 0. The network predicts the velocity
dx/dsigma = noise - data, which is the derivative that the sampler integrates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_utils import SchedulerOutput

from .sigmas import current_index

if TYPE_CHECKING:
    from torch import Tensor


class FlowHeunScheduler(FlowMatchEulerDiscreteScheduler):
    """Heun's method: an Euler step, then the same step again with the mean of the derivatives at both ends.

    The schedule holds every sigma but the first and a final 0 twice: an even index predicts with Euler's method, an odd
    one corrects. The last step, to sigma 0, has no correction.
    """

    def set_timesteps(  # type: ignore[override]
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: list[float] | None = None,
        mu: float | None = None,
    ) -> None:
        super().set_timesteps(num_inference_steps, device=device, sigmas=sigmas, mu=mu)
        self.sigmas, self.timesteps = _repeat_inner(self.sigmas), _repeat_inner(self.timesteps)
        self._prediction: tuple[Tensor, Tensor, Tensor] | None = None  # x, derivative and sigma where a step began

    def step(  # type: ignore[override]
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> Any:
        index = current_index(self, timestep)
        sigma = self.sigmas[index]
        x, d = sample.float(), model_output.float()
        if index % 2 == 0:
            self._prediction = x, d, sigma
            dt = self.sigmas[index + 1] - sigma
            x = x + dt * d
        elif self._prediction is not None:
            x_start, d_start, sigma_start = self._prediction
            dt = sigma - sigma_start
            x = x_start + dt * (d_start + d) / 2
        # else: image-to-image starts at the second of two equal sigmas. There is nothing to correct, and the next call,
        # at the same sigma, begins a step.
        self._step_index = index + 1
        x = x.to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)


def _repeat_inner(values: Tensor) -> Tensor:
    """Every value but the first twice. A final 0, where the network is not called, stays single."""
    inner, last = (values[1:-1], values[-1:]) if float(values[-1]) == 0 else (values[1:], values[:0])
    return torch.cat([values[:1], inner.repeat_interleave(2), last])
