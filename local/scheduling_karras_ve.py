"""The stochastic sampler of Karras et al. for latent models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor

from .scheduling_sigmas import SigmaScheduler

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Of diffusers' KarrasVeScheduler, from table 5 of the paper.
S_CHURN, S_NOISE, S_MIN, S_MAX = 80.0, 1.007, 0.05, 50.0


class KarrasVeLatentScheduler(SigmaScheduler):
    """Algorithm 2 of arXiv:2206.00364 on the geometric VE schedule, within the noise levels a latent model knows.

    diffusers' class of that name raises the noise inside its own loop; here the raised levels are part of the schedule,
    so that an ordinary pipeline can run it. Calls the network twice a step, 2n - 1 times in all: at a step's raised
    level, then at the level it leads to, which corrects the step (Heun). The last step, to 0, has no correction.
    """

    order = 2

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        count = self.num_inference_steps = num_inference_steps
        levels = self._geometric(count)
        churn = np.where((levels >= S_MIN) & (levels <= S_MAX), min(S_CHURN / count, 2**0.5 - 1), 0.0)
        self._levels = [*levels, 0.0]
        self._raised = np.minimum(levels * (1 + churn), levels[0])
        corrected = zip(levels[1:], self._raised[1:], strict=True)
        self._visit([self._raised[0], *(level for pair in corrected for level in pair)], device)
        self._begun: tuple[Tensor, Tensor, float] | None = None

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
        slope = (x - denoised) / sigma
        if place % 2 == 0:
            self._begun = x, slope, sigma
            x = x + (self._levels[place // 2 + 1] - sigma) * slope
        else:
            assert self._begun is not None, "a correction follows its step"
            start, first_slope, raised = self._begun
            x = start + (sigma - raised) * (first_slope + slope) / 2
            added = max(0.0, float(self._raised[place // 2 + 1]) ** 2 - sigma**2)
            noise = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = x + S_NOISE * added**0.5 * noise
        self._step_index = place + 1
        x = x.to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x, denoised)
