"""What the local engine can do, per model family."""

from __future__ import annotations

from ..core.capabilities import Capabilities, Range
from ..core.modality import Modality
from ..core.request import ReferenceKind
from ..core.scheduler import SchedulerName
from .schedulers import ALGORITHM_TYPES, KARRAS_SIGMAS, MISSING

SD15 = Capabilities(
    target="Local SD 1.5",
    modalities=frozenset(Modality),
    schedulers=frozenset(SchedulerName) - frozenset(MISSING),
    missing_schedulers=MISSING,
    karras_sigmas=KARRAS_SIGMAS,
    algorithm_types=ALGORITHM_TYPES,
    ranges={
        "width": Range(64, 2048, multiple=8),
        "height": Range(64, 2048, multiple=8),
        "steps": Range(1, 1000),
        "guidance_scale": Range(1, 30),
        "batch_size": Range(1, 64),
        "clip_skip": Range(0, 11),
        "strength": Range(0, 2),
        "scale": Range(0, 1),
    },
    max_references=8,
    reference_kinds=frozenset(ReferenceKind),
    reference_windows=True,
    control_remedy="Remove it, or put its ControlNet into ComfyUI's models/controlnet folder.",
)
