"""Samplers for flow-matching models, on the schedule of diffusers' FlowMatchEulerDiscreteScheduler.

x = (1 - sigma) * data + sigma * noise, with sigma from 1 to 0. The network predicts the velocity
dx/dsigma = noise - data, which is the derivative that every sampler here integrates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from numpy.polynomial import Polynomial

if TYPE_CHECKING:
    from torch import Tensor

# DPM-Solver and UniPC divide by alpha = 1 - sigma, which is 0 at sigma 1.
SIGMA_MAX = 1 - 1e-4


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
        if self.step_index is None:
            self._init_step_index(timestep)
        index = self._step_index or 0
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


class FlowLMSScheduler(FlowMatchEulerDiscreteScheduler):
    """Linear multistep of order 4: integrates the polynomial through the last four derivatives."""

    def set_timesteps(  # type: ignore[override]
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: list[float] | None = None,
        mu: float | None = None,
    ) -> None:
        super().set_timesteps(num_inference_steps, device=device, sigmas=sigmas, mu=mu)
        self._derivatives: list[tuple[float, Tensor]] = []  # (sigma, derivative), the newest first

    def step(  # type: ignore[override]
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> Any:
        if self.step_index is None:
            self._init_step_index(timestep)
        index = self._step_index or 0
        sigma, sigma_next = float(self.sigmas[index]), float(self.sigmas[index + 1])
        self._derivatives = [(sigma, model_output.float()), *self._derivatives[:3]]
        coefficients = _lms_coefficients([node for node, _ in self._derivatives], sigma, sigma_next)
        x = sample.float()
        for coefficient, (_, d) in zip(coefficients, self._derivatives, strict=True):
            x = x + coefficient * d
        self._step_index = index + 1
        x = x.to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)


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
        if self.step_index is None:
            self._init_step_index(timestep)
        index = self._step_index or 0
        sigma, sigma_next = float(self.sigmas[index]), float(self.sigmas[index + 1])
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


class _FlowScheduleMixin:
    """Runs one of diffusers' solvers on the sigmas of `schedule`, the model's own flow-matching scheduler.

    `schedule` must be set before `set_timesteps` is called.
    """

    schedule: Any = None

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: list[float] | None = None,
        mu: float | None = None,
    ) -> None:
        self.schedule.set_timesteps(num_inference_steps, device=device, sigmas=sigmas, mu=mu)
        super().set_timesteps(len(self.schedule.timesteps), device=device)  # type: ignore[misc]
        self.timesteps = self.schedule.timesteps
        self.sigmas = self.schedule.sigmas.cpu().clamp(max=SIGMA_MAX)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """Latents [batch, ...] with the noise of a timestep, where image-to-image starts."""
        schedule: Any = self.schedule
        schedule._begin_index, schedule._step_index = self._begin_index, self._step_index  # type: ignore[attr-defined]
        return schedule.scale_noise(sample, timestep, noise)


class FlowDPMSolverMultistepScheduler(_FlowScheduleMixin, DPMSolverMultistepScheduler):
    """DPM-Solver++ (arXiv:2211.01095), multistep."""


class FlowDPMSolverSinglestepScheduler(_FlowScheduleMixin, DPMSolverSinglestepScheduler):
    """DPM-Solver++ (arXiv:2211.01095), singlestep."""


class FlowUniPCMultistepScheduler(_FlowScheduleMixin, UniPCMultistepScheduler):
    """UniPC (arXiv:2302.04867)."""


def _repeat_inner(values: Tensor) -> Tensor:
    """Every value but the first twice. A final 0, where the network is not called, stays single."""
    inner, last = (values[1:-1], values[-1:]) if float(values[-1]) == 0 else (values[1:], values[:0])
    return torch.cat([values[:1], inner.repeat_interleave(2), last])


def _lms_coefficients(nodes: list[float], sigma: float, sigma_next: float) -> list[float]:
    """The integral from sigma to sigma_next of each Lagrange basis polynomial over the nodes."""
    coefficients = []
    for node in nodes:
        others = [other for other in nodes if other != node]
        basis = Polynomial([1.0]) if not others else Polynomial.fromroots(others)
        basis /= float(np.prod([node - other for other in others]))
        integral = basis.integ()
        coefficients.append(float(integral(sigma_next) - integral(sigma)))
    return coefficients
