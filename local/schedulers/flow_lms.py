"""Linear multistep for flow-matching models, on the schedule of diffusers' FlowMatchEulerDiscreteScheduler.

x = (1 - sigma) * data + sigma * noise, with sigma from 1 to 0. The network predicts the velocity
dx/dsigma = noise - data, which is the derivative that the sampler integrates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from numpy.polynomial import Polynomial

from .sigmas import current_index

if TYPE_CHECKING:
    from torch import Tensor


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
        index = current_index(self, timestep)
        sigmas: Any = self.sigmas
        sigma, sigma_next = float(sigmas[index]), float(sigmas[index + 1])
        self._derivatives = [(sigma, model_output.float()), *self._derivatives[:3]]
        coefficients = _lms_coefficients([node for node, _ in self._derivatives], sigma, sigma_next)
        x = sample.float()
        for coefficient, (_, d) in zip(coefficients, self._derivatives, strict=True):
            x = x + coefficient * d
        self._step_index = index + 1
        x = x.to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)


def _lms_coefficients(nodes: list[float], sigma: float, sigma_next: float) -> list[float]:
    """The integral from sigma to sigma_next of each Lagrange basis polynomial over the nodes."""
    coefficients: list[float] = []
    for node in nodes:
        others = [other for other in nodes if other != node]
        basis = Polynomial([1.0]) if not others else Polynomial.fromroots(others)
        basis /= float(np.prod([node - other for other in others]))
        integral = basis.integ()
        coefficients.append(float(integral(sigma_next) - integral(sigma)))
    return coefficients
