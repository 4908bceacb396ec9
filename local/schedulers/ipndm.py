"""F-PNDM, improved pseudo-numerical sampling, on the noise schedule of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers import DDIMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerOutput

if TYPE_CHECKING:
    from torch import Tensor

# Adams-Bashforth coefficients for one to four known predictions, the newest first.
_COEFFICIENTS = (
    (1,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


class IPNDMLatentScheduler(DDIMScheduler):
    """F-PNDM (arXiv:2202.09778) without Runge-Kutta steps: DDIM steps with epsilon extrapolated from the last four.

    diffusers' IPNDMScheduler ignores the model's noise schedule and uses one of its own, which gives wrong images.
    """

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        super().set_timesteps(num_inference_steps, device=device)
        self._epsilons: list[Tensor] = []

    def step(  # type: ignore[override]
        self, model_output: Tensor, timestep: int | Tensor, sample: Tensor, return_dict: bool = True
    ) -> Any:
        assert self.num_inference_steps is not None, "set_timesteps is called before step"
        t = int(timestep)
        t_prev = t - self.config["num_train_timesteps"] // self.num_inference_steps
        alpha_prod_t = self.alphas_cumprod[t]
        alpha_prod_t_prev = self.alphas_cumprod[t_prev] if t_prev >= 0 else self.final_alpha_cumprod
        x, output = sample.float(), model_output.float()
        prediction_type = self.config["prediction_type"]
        if prediction_type == "v_prediction":
            output = alpha_prod_t**0.5 * output + (1 - alpha_prod_t) ** 0.5 * x
        elif prediction_type == "sample":
            output = (x - alpha_prod_t**0.5 * output) / (1 - alpha_prod_t) ** 0.5
        self._epsilons = [output, *self._epsilons[:3]]
        coefficients = _COEFFICIENTS[len(self._epsilons) - 1]
        epsilon = sum(coefficient * known for coefficient, known in zip(coefficients, self._epsilons, strict=True))
        denoised = (x - (1 - alpha_prod_t) ** 0.5 * epsilon) / alpha_prod_t**0.5
        x = (alpha_prod_t_prev**0.5 * denoised + (1 - alpha_prod_t_prev) ** 0.5 * epsilon).to(sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x, denoised)
