"""Samplers for flow-matching models, on the schedule of diffusers' FlowMatchEulerDiscreteScheduler.

There x = (1 - sigma) * data + sigma * noise with sigma from 1 to 0, and the network gives the velocity noise - data.
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

# The solvers below divide by the share of data, which is 0 at sigma 1.
_ALMOST_NOISE = 1 - 1e-4


class FlowHeunScheduler(FlowMatchEulerDiscreteScheduler):
    """Heun's method: each step but the last is taken again with the mean of the velocities at its two ends."""

    def set_timesteps(  # type: ignore[override]
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: list[float] | None = None,
        mu: float | None = None,
    ) -> None:
        super().set_timesteps(num_inference_steps, device=device, sigmas=sigmas, mu=mu)
        self.sigmas, self.timesteps = _ends_twice(self.sigmas), _ends_twice(self.timesteps)
        self._begun: tuple[Tensor, Tensor, Tensor] | None = None

    def step(  # type: ignore[override]
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> Any:
        if self.step_index is None:
            self._init_step_index(timestep)
        place = self._step_index or 0
        sigma = self.sigmas[place]
        x, velocity = sample.float(), model_output.float()
        if place % 2 == 0:
            self._begun = x, velocity, sigma
            following = self.sigmas[place + 1]
            x = x + (following - sigma) * velocity
        elif self._begun is not None:
            start, first, begun_at = self._begun
            x = start + (sigma - begun_at) * (first + velocity) / 2
        # else: image-to-image began at the end of a step; the next call, at the same sigma, begins one.
        self._step_index = place + 1
        x = x.to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)


class FlowLMSScheduler(FlowMatchEulerDiscreteScheduler):
    """Linear multistep: the velocity between two levels is a polynomial through the last four."""

    def set_timesteps(  # type: ignore[override]
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: list[float] | None = None,
        mu: float | None = None,
    ) -> None:
        super().set_timesteps(num_inference_steps, device=device, sigmas=sigmas, mu=mu)
        self._known: list[tuple[float, Tensor]] = []

    def step(  # type: ignore[override]
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> Any:
        if self.step_index is None:
            self._init_step_index(timestep)
        place = self._step_index or 0
        sigma, following = _ends(self.sigmas, place)
        self._known = [(sigma, model_output.float()), *self._known[:3]]
        weights = _integrals([level for level, _ in self._known], sigma, following)
        x = sample.float()
        for weight, (_, velocity) in zip(weights, self._known, strict=True):
            x = x + weight * velocity
        self._step_index = place + 1
        x = x.to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)


class FlowEulerAncestralScheduler(FlowMatchEulerDiscreteScheduler):
    """Euler's method that goes below the next level and comes back up with new noise.

    The level gone to is sigma_next^2 / sigma, and data and noise are rescaled so that the result has the next level's
    shares of both (the rectified-flow form of k-diffusion's ancestral sampler, as ComfyUI has it).
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
        place = self._step_index or 0
        sigma, following = _ends(self.sigmas, place)
        below = following**2 / sigma
        x = sample.float() + (below - sigma) * model_output.float()
        if following > 0:
            rescaled = (1 - following) / (1 - below)
            noise = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = rescaled * x + max(0.0, following**2 - (below * rescaled) ** 2) ** 0.5 * noise
        self._step_index = place + 1
        x = x.to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)


class _OnFlowSchedule:
    """Gives one of diffusers' solvers the levels of the model's own scheduler, and the interface of its pipelines."""

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
        self.sigmas = self.schedule.sigmas.cpu().clamp(max=_ALMOST_NOISE)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """A picture with the noise of a place of the schedule."""
        schedule: Any = self.schedule
        schedule._begin_index, schedule._step_index = self._begin_index, self._step_index  # type: ignore[attr-defined]
        return schedule.scale_noise(sample, timestep, noise)


class FlowDPMSolverMultistepScheduler(_OnFlowSchedule, DPMSolverMultistepScheduler):
    """DPM-Solver++ (arXiv:2211.01095), multistep."""


class FlowDPMSolverSinglestepScheduler(_OnFlowSchedule, DPMSolverSinglestepScheduler):
    """DPM-Solver++ (arXiv:2211.01095), singlestep."""


class FlowUniPCMultistepScheduler(_OnFlowSchedule, UniPCMultistepScheduler):
    """UniPC (arXiv:2302.04867)."""


def _ends(sigmas: Any, place: int) -> tuple[float, float]:
    """The levels that the step at a place goes from and to."""
    return float(sigmas[place]), float(sigmas[place + 1])


def _ends_twice(levels: Tensor) -> Tensor:
    """Every value after the first twice; a 0 at the end, where the network is not called, stays alone."""
    inner, last = (levels[1:-1], levels[-1:]) if float(levels[-1]) == 0 else (levels[1:], levels[:0])
    return torch.cat([levels[:1], inner.repeat_interleave(2), last])


def _integrals(levels: list[float], start: float, end: float) -> list[float]:
    """The integral from start to end of each Lagrange polynomial over the levels."""
    weights = []
    for level in levels:
        others = [other for other in levels if other != level]
        basis = Polynomial([1.0]) if not others else Polynomial.fromroots(others)
        basis /= float(np.prod([level - other for other in others]))
        whole = basis.integ()
        weights.append(float(whole(end) - whole(start)))
    return weights
