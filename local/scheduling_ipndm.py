"""Improved pseudo-numerical sampling on the schedule of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers import DDIMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerOutput

if TYPE_CHECKING:
    from torch import Tensor

# Adams-Bashforth weights by the number of known slopes, the newest first.
_WEIGHTS = (
    (1,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


class IPNDMLatentScheduler(DDIMScheduler):
    """F-PNDM without Runge-Kutta steps (arXiv:2202.09778): DDIM's step along an extrapolation of the last four noises.

    diffusers' IPNDMScheduler has a noise schedule of its own and ignores the model's, so that it runs and is wrong.
    """

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        super().set_timesteps(num_inference_steps, device=device)
        self._noises: list[Tensor] = []

    def step(  # type: ignore[override]
        self, model_output: Tensor, timestep: int | Tensor, sample: Tensor, return_dict: bool = True
    ) -> Any:
        assert self.num_inference_steps is not None, "set_timesteps comes first"
        time = int(timestep)
        following = time - self.config["num_train_timesteps"] // self.num_inference_steps
        signal = self.alphas_cumprod[time]
        signal_after = self.alphas_cumprod[following] if following >= 0 else self.final_alpha_cumprod
        x, output = sample.float(), model_output.float()
        kind = self.config["prediction_type"]
        if kind == "v_prediction":
            output = signal**0.5 * output + (1 - signal) ** 0.5 * x
        elif kind == "sample":
            output = (x - signal**0.5 * output) / (1 - signal) ** 0.5
        self._noises = [output, *self._noises[:3]]
        weights = _WEIGHTS[len(self._noises) - 1]
        noise = sum(weight * known for weight, known in zip(weights, self._noises, strict=True))
        denoised = (x - (1 - signal) ** 0.5 * noise) / signal**0.5
        x = (signal_after**0.5 * denoised + (1 - signal_after) ** 0.5 * noise).to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x, denoised)
