"""diffusers' solvers for flow-matching models, on the sigmas of the model's own scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers import DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler, UniPCMultistepScheduler

if TYPE_CHECKING:
    from torch import Tensor

# DPM-Solver and UniPC divide by alpha = 1 - sigma, which is 0 at sigma 1.
SIGMA_MAX = 1 - 1e-4


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
