"""What Scenario's controlnet-ip-adapter endpoint documents: families, tables and its own fields.

The contract is docs/services/scenario.md 2-6.
"""

# The option names are the documented fields, which are in camel case.
# ruff: noqa: N815

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ....core.capabilities import (
    UNLIMITED,
    Capabilities,
    ControlSupport,
    LoraSupport,
    PromptSupport,
    Range,
    ReferenceSupport,
    SchedulerSupport,
)
from ....core.modality import Modality
from ....core.request import ReferenceKind
from ....core.scheduler import SchedulerName
from ..options import option


class Family(StrEnum):
    """The base model of a `modelId`. UNKNOWN allows what any family can do, except what all but one ignore."""

    SD15 = "sd15"
    SDXL = "sdxl"
    FLUX_DEV = "flux-dev"
    FLUX_SCHNELL = "flux-schnell"
    UNKNOWN = "unknown"

    @property
    def is_flux(self) -> bool:
        return self in (Family.FLUX_DEV, Family.FLUX_SCHNELL)


AUTO = "auto"
# The first of these texts in a model id implies its family. Ids of trained models ("model_...") imply nothing.
_FAMILY_OF: tuple[tuple[str, Family], ...] = (
    ("schnell", Family.FLUX_SCHNELL),
    ("flux.1-dev", Family.FLUX_DEV),
    ("flux-1-dev", Family.FLUX_DEV),
    ("sd-xl", Family.SDXL),
    ("sdxl", Family.SDXL),
    ("sd-1_5", Family.SD15),
)


def family_of(model_id: str, chosen: str) -> Family:
    """The family chosen by the user, or the one that the model's id implies."""
    if chosen != AUTO and chosen in {family.value for family in Family}:
        return Family(chosen)
    return next((family for part, family in _FAMILY_OF if part in model_id.lower()), Family.UNKNOWN)


# The service's names (docs/services/scenario.md 4). Its "pose" accepts both kinds of skeleton.
NAMES: Mapping[Modality, str] = {
    Modality.CANNY: "canny",
    Modality.DEPTH: "depth",
    Modality.OPENPOSE: "pose",
    Modality.POSE: "pose",
    Modality.MLSD: "lines",
    Modality.SEGMENTATION: "seg",
    Modality.SCRIBBLE: "scribble",
    Modality.LINEART: "lineart",
    Modality.NORMAL: "normal-map",
    Modality.QRCODE: "illusion",
    Modality.TILE: "tile",
    Modality.BLUR: "blur",
    Modality.GRAY: "gray",
    Modality.LOW_QUALITY: "low-quality",
}
_SDXL_NAMES = ("canny", "pose", "depth", "seg", "illusion", "scribble")
_FLUX_NAMES = ("canny", "tile", "depth", "blur", "pose", "gray", "low-quality")
_SERVICE_NAMES: Mapping[Family, tuple[str, ...]] = {
    Family.SD15: ("canny", "pose", "depth", "lines", "seg", "scribble", "lineart", "normal-map", "illusion"),
    Family.SDXL: _SDXL_NAMES,
    Family.FLUX_DEV: _FLUX_NAMES,
    Family.FLUX_SCHNELL: _FLUX_NAMES,
    Family.UNKNOWN: tuple(dict.fromkeys(NAMES.values())),
}
# Part of the service's schema but of no family's list: accepted in the option `modality`, not offered otherwise.
_UNLISTED = ("sketch",)
PRESETS: Mapping[Family, tuple[str, ...]] = {
    Family.SD15: ("character", "landscape", "city", "interior"),
    Family.SDXL: ("character", "landscape"),
    Family.FLUX_DEV: (),
    Family.FLUX_SCHNELL: (),
    Family.UNKNOWN: ("character", "landscape", "city", "interior"),
}


def writable(family: Family) -> tuple[str, ...]:
    """The names that the option `modality` accepts, without the presets."""
    return _SERVICE_NAMES[family] + _UNLISTED


# docs/services/scenario.md 5. The service has TCDScheduler beside these, see ScenarioOptions.scheduler.
_SCHEDULERS = frozenset(
    {
        SchedulerName.DDPM,
        SchedulerName.DDIM,
        SchedulerName.PNDM,
        SchedulerName.LMS,
        SchedulerName.EULER,
        SchedulerName.EULER_ANCESTRAL,
        SchedulerName.DPM_MULTISTEP,
        SchedulerName.HEUN,
        SchedulerName.KDPM2,
        SchedulerName.DPM_SINGLESTEP,
        SchedulerName.KDPM2_ANCESTRAL,
        SchedulerName.UNIPC,
        SchedulerName.DEIS,
        SchedulerName.LCM,
    }
)
_SIDES: Mapping[Family, Range] = {
    Family.SD15: Range(64, 1024, multiple=8),
    Family.SDXL: Range(512, 2048, multiple=8),
    Family.FLUX_DEV: Range(64, 2048, multiple=8),
    Family.FLUX_SCHNELL: Range(64, 2048, multiple=8),
    Family.UNKNOWN: Range(64, 2048, multiple=8),
}
_GUIDANCE: Mapping[Family, Range] = {
    Family.SD15: Range(0, 20),
    Family.SDXL: Range(0, 20),
    Family.FLUX_DEV: Range(0, 10),
    Family.FLUX_SCHNELL: Range(0, 20),
    Family.UNKNOWN: Range(0, 20),
}
# An unknown model may be of any family, so it has what one of them has.
_DETECTS = frozenset({Family.SD15, Family.SDXL, Family.UNKNOWN})
_WINDOWS = frozenset({Family.FLUX_DEV, Family.UNKNOWN})
NEGATIVE_STRENGTH = frozenset({Family.FLUX_DEV, Family.UNKNOWN})
FLUX_LORAS = frozenset({Family.FLUX_DEV, Family.FLUX_SCHNELL, Family.UNKNOWN})
_TITLES: Mapping[Family, str] = {
    Family.SD15: "Scenario (SD 1.5)",
    Family.SDXL: "Scenario (SDXL)",
    Family.FLUX_DEV: "Scenario (Flux dev)",
    Family.FLUX_SCHNELL: "Scenario (Flux schnell)",
    Family.UNKNOWN: "Scenario",
}


def _table(family: Family) -> Capabilities:
    side = _SIDES[family]
    return Capabilities(
        target=_TITLES[family],
        prompts=PromptSupport(required=True, negative=True),
        ranges={
            "width": side,
            "height": side,
            "steps": Range(1, 150),
            "guidance_scale": _GUIDANCE[family],
            "seed": Range(0, 2**64 - 1),
            "batch_size": Range(1, 128),
        },
        schedulers=SchedulerSupport(names=_SCHEDULERS),
        controls=ControlSupport(
            modalities=frozenset(modality for modality, name in NAMES.items() if name in _SERVICE_NAMES[family]),
            required=True,
            maximum=1 if family.is_flux else 3,
            strength=Range(0, 1),
            detects=family in _DETECTS,
            windows=family in _WINDOWS,
        ),
        references=ReferenceSupport(
            kinds=frozenset({ReferenceKind.STYLE, ReferenceKind.CHARACTER}), maximum=UNLIMITED, scale=Range(0, 1)
        ),
        loras=LoraSupport(maximum=UNLIMITED, strength=Range(0, 2)),
    )


TABLES: Mapping[Family, Capabilities] = {family: _table(family) for family in Family}

# Where a window may begin and end (docs/services/scenario.md 3).
LATEST_START, EARLIEST_END = 0.9, 0.1

AS_REQUESTED = "as requested"
TCD = "TCDScheduler"
PLURAL, SINGULAR = "ipAdapterImages (all references)", "ipAdapterImage (deprecated, one reference)"
INLINE, UPLOAD = "inline", "upload"


@dataclass(frozen=True)
class ScenarioOptions:
    """The documented fields that a request does not carry, and options that say "Not sent"."""

    modelId: str = option(
        "flux.1-dev",
        "The model: a public one or one that you trained (model_...). The documentation has no default.",
    )
    model_family: str = option(
        AUTO,
        "Not sent. The family of modelId, which decides what it can do. auto: recognize it by the id if possible.",
        choices=(AUTO, Family.SD15.value, Family.SDXL.value, Family.FLUX_DEV.value, Family.FLUX_SCHNELL.value),
    )
    baseModelId: str = option(
        "", "Base model for a Flux LoRA, one of its compliantModelIds. Empty: its own base model."
    )
    modelEpoch: str = option("", "Training epoch of a Flux LoRA, e.g. 000001. Empty: the latest.")
    modality: str = option(
        "",
        "The modality to send, e.g. character:0.5, landscape, canny:0.5,depth:0.3 or sketch; the control then only "
        "provides the image. Empty: the types and strengths of the connected controls.",
    )
    scheduler: str = option(
        AS_REQUESTED,
        "TCDScheduler exists only at this service. as requested: the scheduler of the request.",
        choices=(AS_REQUESTED, TCD),
    )
    negativePromptStrength: float = option(
        0.0,
        "Strength of the negative prompt on Flux dev, 0 to 10; with a negative prompt it must be above 0. According to "
        "the documentation, it acts only in other kinds of generation.",
        minimum=0.0,
        maximum=10.0,
        step=0.1,
    )
    random_seed: bool = option(False, "Send no seed: the service draws one, and the seed of the request is not used.")
    conceptEpochs: str = option(
        "", "Training epochs of the LoRAs in their order, separated by commas. Empty: the latest."
    )
    control_field: str = option(
        "image",
        "Not sent. Which field carries the control image. The documentation contradicts itself; the service's own "
        "program sends image. The Id fields upload the image first.",
        choices=("image", "imageId", "controlImage", "controlImageId"),
    )
    ip_adapter_fields: str = option(
        PLURAL,
        "Not sent. Which fields carry the references. The service's own program used the deprecated field.",
        choices=(PLURAL, SINGULAR),
    )
    image_transfer: str = option(
        AUTO,
        "Not sent. inline: send images inside the request. upload: store them at the service first. auto: upload "
        "them if they may exceed 6 MB together.",
        choices=(AUTO, INLINE, UPLOAD),
    )
    imageParentId: str = option("", "Parent asset of the control image, if it is sent inside the request.")
    imageHide: bool = option(False, "Hide the control image at the service, if it is sent inside the request.")
    hideResults: bool = option(False, "Hide the results in the service's lists of images.")
    intermediateImages: bool = option(False, "Also create images of intermediate steps.")
    originalAssets: bool = option(False, "Ask the service for unconverted images in its answer.")
    projectId: str = option("", "Project that owns the images. Empty: the project of the key.")
    estimate_only: bool = option(False, "Only ask for the price (dryRun): nothing is generated and nothing is charged.")
