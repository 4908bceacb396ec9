"""DDIM backwards and forwards: a picture becomes the noise it would have come from, and that noise a new picture."""

from __future__ import annotations

from typing import Any

from diffusers import DDIMInverseScheduler, DDIMScheduler


class PartialDDIMInverseScheduler(DDIMInverseScheduler):
    """The first `share` (0..1) of the way from a picture to noise."""

    share = 1.0

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        super().set_timesteps(num_inference_steps, device=device)
        self.timesteps = self.timesteps[: _steps(num_inference_steps, self.share)]


class PartialDDIMScheduler(DDIMScheduler):
    """The last `share` (0..1) of the way from noise to a picture."""

    share = 1.0

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        super().set_timesteps(num_inference_steps, device=device)
        self.timesteps = self.timesteps[-_steps(num_inference_steps, self.share) :]


def _steps(steps: int, share: float) -> int:
    return max(1, min(int(steps * share), steps))
