"""What the local engine can do, per model family: what diffusers' pipelines offer, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..core.capabilities import Capabilities, Conflict, Range, Share
from ..core.request import ReferenceKind
from ..core.scheduler import SchedulerName
from .families import Family
from .net_names import published
from .schedulers import (
    ALGORITHM_TYPES,
    CALLS,
    FLOW_ALGORITHM_TYPES,
    FLOW_CALLS,
    FLOW_UNSUPPORTED,
    KARRAS_SIGMAS,
    UNSUPPORTED,
)

MOST_LORAS = 8
MOST_REFERENCES = 8

SD15 = Capabilities(
    target="Local SD 1.5",
    modalities=published(Family.SD15),
    schedulers=frozenset(SchedulerName) - frozenset(UNSUPPORTED),
    missing_schedulers=UNSUPPORTED,
    karras_sigmas=KARRAS_SIGMAS,
    algorithm_types=ALGORITHM_TYPES,
    image_schedulers=frozenset({SchedulerName.DDIM_INVERSE}),
    ranges={
        "width": Range(64, 2048, multiple=8),
        "height": Range(64, 2048, multiple=8),
        "steps": Range(1, 500),
        "guidance_scale": Range(1, 30),
        "batch_size": Range(1, 64),
        "clip_skip": Range(0, 11),
        "denoise": Range(0, 1),
        "strength": Range(0, 2),
        "scale": Range(0, 1),
        "lora_strength": Range(-4, 4),
    },
    # diffusers picks LCM's steps out of 50 original ones.
    max_steps={SchedulerName.LCM: 50},
    max_references=MOST_REFERENCES,
    reference_kinds=frozenset(ReferenceKind),
    max_loras=MOST_LORAS,
    control_masks=True,
    reference_windows=True,
    reference_masks=True,
    image_to_image=True,
    inpainting=True,
    denoise_share=Share.STEPS,
    calls=CALLS,
    upscale=True,
    own_vae=True,
    control_remedy="Remove it, or put its net into models/controlnet.",
)

SDXL = replace(
    SD15,
    target="Local SDXL",
    modalities=published(Family.SDXL),
    ranges={**SD15.ranges, "width": Range(64, 4096, 8), "height": Range(64, 4096, 8), "clip_skip": Range(0, 10)},
)

FLUX_DEV = replace(
    SDXL,
    target="Local FLUX.1 dev",
    modalities=published(Family.FLUX_DEV),
    schedulers=frozenset(SchedulerName) - frozenset(FLOW_UNSUPPORTED),
    missing_schedulers=FLOW_UNSUPPORTED,
    algorithm_types=FLOW_ALGORITHM_TYPES,
    image_schedulers=frozenset(),
    max_steps={},
    denoise_share=Share.CALLS,
    calls=FLOW_CALLS,
    ranges={
        **SDXL.ranges,
        # Two latent pixels a side make one token.
        "width": Range(64, 4096, multiple=16),
        "height": Range(64, 4096, multiple=16),
        "guidance_scale": Range(0, 30),
        "clip_skip": Range(0, 0),
    },
    # The strength of guidance is an input of the network, which was distilled to need no second run.
    negative_prompt=False,
    reference_masks=False,
    conflicts=(
        Conflict(
            ("controls", "references", "init_image"),
            "diffusers' FLUX pipelines take no references there",
            "Disconnect one of them.",
        ),
    ),
)

# It ignores guidance_scale.
FLUX_SCHNELL = replace(FLUX_DEV, target="Local FLUX.1 schnell")

TABLES: Mapping[Family, Capabilities] = {
    Family.SD15: SD15,
    Family.SDXL: SDXL,
    Family.FLUX_DEV: FLUX_DEV,
    Family.FLUX_SCHNELL: FLUX_SCHNELL,
}
