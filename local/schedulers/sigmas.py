"""The base of samplers over sigmas, for latent models whose networks know a thousand discrete timesteps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler

if TYPE_CHECKING:
    from torch import Tensor


def current_index(scheduler: Any, timestep: float | Tensor) -> int:
    """The index of the step that a scheduler is at. Its first step finds the index from the timestep."""
    if scheduler._step_index is None:
        scheduler._init_step_index(timestep)
    return scheduler._step_index or 0


class SigmaScheduler(EulerDiscreteScheduler):
    """The model as EulerDiscreteScheduler sees it, without its schedule and its step.

    x = data + sigma * noise, and x is divided by sqrt(sigma^2 + 1) before the network gets it. A subclass chooses the
    sigmas in `set_timesteps`, through `_set_sigmas`, and moves between them in `step`.
    """

    def _geometric_sigmas(self, count: int) -> np.ndarray:
        """`count` sigmas from the model's highest to its lowest, at equal ratios."""
        sigmas = self._training_sigmas()
        return np.geomspace(sigmas[-1], sigmas[0], count) if count > 1 else sigmas[-1:]

    def _training_sigmas(self) -> np.ndarray:
        """The sigmas of the model's training timesteps, rising."""
        alphas_cumprod = self.alphas_cumprod.double().numpy()
        return np.sqrt((1 - alphas_cumprod) / alphas_cumprod)

    def _set_sigmas(self, sigmas: Sequence[float] | np.ndarray, device: str | torch.device | None) -> None:
        """Have the network called at these sigmas, in this order; timesteps are interpolated over log sigma."""
        log_sigmas = np.log(self._training_sigmas())
        self.sigmas = torch.tensor(np.asarray(sigmas), dtype=torch.float32)
        timesteps = np.interp(np.log(sigmas), log_sigmas, np.arange(len(log_sigmas)))
        self.timesteps = torch.tensor(timesteps, dtype=torch.float32, device=device)
        self._step_index = self._begin_index = None

    def index_for_timestep(  # type: ignore[override]
        self, timestep: float | Tensor, schedule_timesteps: Tensor | None = None
    ) -> int:
        """The first index of a timestep.

        The base class takes the second of two equal timesteps, which is the middle of a step here.
        """
        timesteps = self.timesteps if schedule_timesteps is None else schedule_timesteps
        return int((timesteps == timestep).nonzero()[0])

    @property
    def init_noise_sigma(self) -> float:
        return float((self.sigmas[0] ** 2 + 1) ** 0.5)

    def _denoise(self, model_output: Tensor, x: Tensor, sigma: float) -> Tensor:
        """The network's prediction of the data in x, from whatever the model predicts."""
        prediction_type = self.config["prediction_type"]
        if prediction_type == "epsilon":
            return x - sigma * model_output
        if prediction_type == "v_prediction":
            return x / (sigma**2 + 1) - model_output * (sigma / (sigma**2 + 1) ** 0.5)
        return model_output
