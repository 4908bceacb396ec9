"""DDIM inversion and the sampling that follows it, both over a part of the schedule."""

from __future__ import annotations

from typing import Any

from diffusers import DDIMInverseScheduler, DDIMScheduler


class PartialDDIMInverseScheduler(DDIMInverseScheduler):
    """Inverts an image up to the share `denoise` (0..1) of the way to noise."""

    denoise = 1.0

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        super().set_timesteps(num_inference_steps, device=device)
        self.timesteps = self.timesteps[: _count_steps(num_inference_steps, self.denoise)]


class PartialDDIMScheduler(DDIMScheduler):
    """Samples the last share `denoise` (0..1) of the way from noise to an image."""

    denoise = 1.0

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        super().set_timesteps(num_inference_steps, device=device)
        self.timesteps = self.timesteps[-_count_steps(num_inference_steps, self.denoise) :]


def _count_steps(num_inference_steps: int, denoise: float) -> int:
    """Steps left by `denoise`: whole ones, at least one."""
    return max(1, min(int(num_inference_steps * denoise), num_inference_steps))
