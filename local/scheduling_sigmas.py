"""What samplers over noise levels share, on latent models whose networks know a thousand discrete timesteps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler

if TYPE_CHECKING:
    from torch import Tensor


class SigmaScheduler(EulerDiscreteScheduler):
    """Euler's view of a model (x = data + sigma * noise, scaled before the network), without its schedule and step.

    A subclass sets the levels in `set_timesteps` through `_visit` and moves between them in `step`.
    """

    def _geometric(self, count: int) -> np.ndarray:
        """`count` noise levels from the model's highest to its lowest, at equal ratios."""
        known = self._known()
        return np.geomspace(known[-1], known[0], count) if count > 1 else known[-1:]

    def _known(self) -> np.ndarray:
        """The noise levels of the model's timesteps, rising."""
        signal = self.alphas_cumprod.double().numpy()
        return np.sqrt((1 - signal) / signal)

    def _visit(self, levels: Sequence[float] | np.ndarray, device: str | torch.device | None) -> None:
        """Have the network called at these noise levels, in this order."""
        logs = np.log(self._known())
        self.sigmas = torch.tensor(np.asarray(levels), dtype=torch.float32)
        times = np.interp(np.log(levels), logs, np.arange(len(logs)))
        self.timesteps = torch.tensor(times, dtype=torch.float32, device=device)
        self._step_index = self._begin_index = None

    def index_for_timestep(  # type: ignore[override]
        self, timestep: float | Tensor, schedule_timesteps: Tensor | None = None
    ) -> int:
        """The first place of a timestep; the base class takes the second of two, where a run would begin in a step."""
        times = self.timesteps if schedule_timesteps is None else schedule_timesteps
        return int((times == timestep).nonzero()[0])

    @property
    def init_noise_sigma(self) -> float:
        return float((self.sigmas[0] ** 2 + 1) ** 0.5)

    def _denoised(self, output: Tensor, sample: Tensor, sigma: float) -> Tensor:
        """The picture that the network sees in a sample at a level."""
        kind = self.config["prediction_type"]
        if kind == "epsilon":
            return sample - sigma * output
        if kind == "v_prediction":
            return sample / (sigma**2 + 1) - output * (sigma / (sigma**2 + 1) ** 0.5)
        return output
