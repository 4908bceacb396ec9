"""What the local engine can do with each model family, as data. It follows from diffusers' pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...core.capabilities import (
    UNLIMITED,
    Capabilities,
    Conflict,
    ControlSupport,
    DenoiseUnit,
    InitImageSupport,
    LoraSupport,
    PromptSupport,
    Range,
    ReferenceSupport,
    SchedulerSupport,
)
from ...core.problems import ProblemKind
from ...core.request import ReferenceKind
from ...core.scheduler import SchedulerName
from ...models.families import Family
from ...models.net_names import published
from ..schedulers.factory import (
    ALGORITHM_TYPES,
    CALLS,
    FLOW_ALGORITHM_TYPES,
    FLOW_CALLS,
    FLOW_CLASSES,
    FLOW_UNSUPPORTED,
    KARRAS_SIGMAS,
    NAMES,
)

# diffusers' FLUX pipelines with controls and an initial image take no references.
CONTROLS_REFERENCES_AND_INIT_IMAGE = ProblemKind(
    "controls_references_and_init_image",
    "{target} cannot use controls, references and init_image in one request. Disconnect one of them.",
)

MAX_LORAS = 8
MAX_REFERENCES = 8

SD15 = Capabilities(
    target="Local SD 1.5",
    prompts=PromptSupport(negative=True, max_clip_skip=11),
    ranges={
        "width": Range(64, 2048, multiple=8),
        "height": Range(64, 2048, multiple=8),
        "steps": Range(1, 500),
        "guidance_scale": Range(1, 30),
        "batch_size": Range(1, 64),
        "denoise": Range(0, 1),
    },
    schedulers=SchedulerSupport(
        names=NAMES,
        karras_sigmas=KARRAS_SIGMAS,
        algorithm_types=ALGORITHM_TYPES,
        # diffusers chooses the steps of LCM from 50 original ones.
        max_steps={SchedulerName.LCM: 50},
        needs_init_image=frozenset({SchedulerName.DDIM_INVERSE}),
        calls=CALLS,
    ),
    controls=ControlSupport(
        modalities=published(Family.SD15),
        maximum=UNLIMITED,
        strength=Range(0, 2),
        windows=True,
        masks=True,
        remedy="Remove the control, or put a ControlNet for it into models/controlnet.",
    ),
    references=ReferenceSupport(
        kinds=frozenset({ReferenceKind.STYLE, ReferenceKind.CHARACTER, ReferenceKind.FACE}),
        maximum=MAX_REFERENCES,
        scale=Range(0, 1),
        windows=True,
        masks=True,
    ),
    loras=LoraSupport(maximum=MAX_LORAS, strength=Range(-4, 4)),
    init_images=InitImageSupport(accepted=True, inpainting=True, denoise_unit=DenoiseUnit.STEPS),
    vae=True,
    upscale=True,
)

SDXL = replace(
    SD15,
    target="Local SDXL",
    prompts=PromptSupport(negative=True, max_clip_skip=10),
    ranges={**SD15.ranges, "width": Range(64, 4096, 8), "height": Range(64, 4096, 8)},
    controls=replace(SD15.controls, modalities=published(Family.SDXL)),
)

FLUX_DEV = replace(
    SDXL,
    target="Local FLUX.1 dev",
    # No negative prompt: the network was distilled to take the guidance scale as an input instead of running twice.
    prompts=PromptSupport(),
    ranges={
        **SDXL.ranges,
        # Two latent pixels a side make one token.
        "width": Range(64, 4096, multiple=16),
        "height": Range(64, 4096, multiple=16),
        "guidance_scale": Range(0, 30),
    },
    schedulers=SchedulerSupport(
        names=frozenset(FLOW_CLASSES),
        missing=FLOW_UNSUPPORTED,
        karras_sigmas=KARRAS_SIGMAS,
        algorithm_types=FLOW_ALGORITHM_TYPES,
        calls=FLOW_CALLS,
    ),
    controls=replace(SDXL.controls, modalities=published(Family.FLUX_DEV)),
    references=replace(SDXL.references, masks=False),
    init_images=replace(SDXL.init_images, denoise_unit=DenoiseUnit.CALLS),
    conflicts=(Conflict(("controls", "references", "init_image"), CONTROLS_REFERENCES_AND_INIT_IMAGE),),
)

# It ignores guidance_scale.
FLUX_SCHNELL = replace(FLUX_DEV, target="Local FLUX.1 schnell")

TABLES: Mapping[Family, Capabilities] = {
    Family.SD15: SD15,
    Family.SDXL: SDXL,
    Family.FLUX_DEV: FLUX_DEV,
    Family.FLUX_SCHNELL: FLUX_SCHNELL,
}
