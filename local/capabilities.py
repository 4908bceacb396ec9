"""What the local engine can do, per model family."""

from __future__ import annotations

from ..core.capabilities import Capabilities, Range
from ..core.scheduler import SchedulerName
from .nets import NET_WORDS
from .schedulers import ALGORITHM_TYPES, KARRAS_SIGMAS, MISSING

SD15 = Capabilities(
    target="Local SD 1.5",
    modalities=frozenset(NET_WORDS),
    schedulers=frozenset(SchedulerName) - frozenset(MISSING),
    missing_schedulers=MISSING,
    karras_sigmas=KARRAS_SIGMAS,
    algorithm_types=ALGORITHM_TYPES,
    ranges={
        "width": Range(64, 2048, multiple=8),
        "height": Range(64, 2048, multiple=8),
        "steps": Range(1, 500),
        "guidance_scale": Range(1, 30),
        "batch_size": Range(1, 64),
        "clip_skip": Range(0, 11),
        "strength": Range(0, 2),
        "scale": Range(0, 1),
    },
    # diffusers picks LCM's steps out of 50 original ones.
    max_steps={SchedulerName.LCM: 50},
    reference_windows=True,
    control_remedy=(
        "Remove it, or put its net into models/controlnet, as a diffusers folder with the control's name in its own."
    ),
)
