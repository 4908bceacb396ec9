"""What Scenario's controlnet-ip-adapter endpoint documents: families, tables and its own fields.

The contract is docs/services/scenario.md 2-6.
"""

# The option names are the documented fields, which are in camel case.
# ruff: noqa: N815

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ..core.capabilities import (
    UNLIMITED,
    Capabilities,
    ControlSupport,
    LoraSupport,
    PromptSupport,
    Range,
    ReferenceSupport,
    SchedulerSupport,
)
from ..core.modality import Modality
from ..core.request import ReferenceKind
from ..core.scheduler import SchedulerName
from .options import option


class Family(StrEnum):
    """What a `modelId` is built on; UNKNOWN allows what any of them can do, except what all but one ignore."""

    SD15 = "sd15"
    SDXL = "sdxl"
    FLUX_DEV = "flux-dev"
    FLUX_SCHNELL = "flux-schnell"
    UNKNOWN = "unknown"

    @property
    def is_flux(self) -> bool:
        return self in (Family.FLUX_DEV, Family.FLUX_SCHNELL)


AUTO = "auto"
# The first part that stands in a model id tells its family; trained models ("model_...") tell nothing.
_FAMILY_OF: tuple[tuple[str, Family], ...] = (
    ("schnell", Family.FLUX_SCHNELL),
    ("flux.1-dev", Family.FLUX_DEV),
    ("flux-1-dev", Family.FLUX_DEV),
    ("sd-xl", Family.SDXL),
    ("sdxl", Family.SDXL),
    ("sd-1_5", Family.SD15),
)


def family_of(model_id: str, chosen: str) -> Family:
    """The family chosen by the user, or what the model's id tells."""
    if chosen != AUTO and chosen in {family.value for family in Family}:
        return Family(chosen)
    return next((family for part, family in _FAMILY_OF if part in model_id.lower()), Family.UNKNOWN)


# The service's names (docs/services/scenario.md 4). Its one "pose" reads both kinds of skeleton.
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
# In the service's own schema, in no family's list: allowed in the text of `modality`, not offered.
_UNLISTED = ("sketch",)
PRESETS: Mapping[Family, tuple[str, ...]] = {
    Family.SD15: ("character", "landscape", "city", "interior"),
    Family.SDXL: ("character", "landscape"),
    Family.FLUX_DEV: (),
    Family.FLUX_SCHNELL: (),
    Family.UNKNOWN: ("character", "landscape", "city", "interior"),
}


def writable(family: Family) -> tuple[str, ...]:
    """What may be written into `modality` besides presets."""
    return _SERVICE_NAMES[family] + _UNLISTED


# docs/services/scenario.md 5. The service has TCDScheduler beside these, see ScenarioOptions.scheduler.
_MISSING_SCHEDULERS: Mapping[SchedulerName, str] = dict.fromkeys(
    (SchedulerName.DDIM_INVERSE, SchedulerName.IPNDM, SchedulerName.KARRAS_VE, SchedulerName.SCORE_SDE_VE),
    "Scenario does not have it",
)
_SIDES: Mapping[Family, Range] = {
    Family.SD15: Range(64, 1024, multiple=8),
    Family.SDXL: Range(512, 2048, multiple=8),
}
_GUIDANCE: Mapping[Family, Range] = {Family.FLUX_DEV: Range(0, 10)}
_TITLES: Mapping[Family, str] = {
    Family.SD15: "Scenario (SD 1.5)",
    Family.SDXL: "Scenario (SDXL)",
    Family.FLUX_DEV: "Scenario (Flux dev)",
    Family.FLUX_SCHNELL: "Scenario (Flux schnell)",
    Family.UNKNOWN: "Scenario",
}


def _table(family: Family) -> Capabilities:
    side = _SIDES.get(family, Range(64, 2048, multiple=8))
    return Capabilities(
        target=_TITLES[family],
        prompts=PromptSupport(required=True, negative=True),
        ranges={
            "width": side,
            "height": side,
            "steps": Range(1, 150),
            "guidance_scale": _GUIDANCE.get(family, Range(0, 20)),
            "seed": Range(0, 2**64 - 1),
            "batch_size": Range(1, 128),
        },
        schedulers=SchedulerSupport(
            names=frozenset(SchedulerName) - frozenset(_MISSING_SCHEDULERS), missing=_MISSING_SCHEDULERS
        ),
        controls=ControlSupport(
            modalities=frozenset(modality for modality, name in NAMES.items() if name in _SERVICE_NAMES[family]),
            minimum=1,
            maximum=1 if family.is_flux else 3,
            strength=Range(0, 1),
            detects=not family.is_flux,
            windows=family in (Family.FLUX_DEV, Family.UNKNOWN),
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
    """The documented fields that a request does not carry; what is not a field says so."""

    modelId: str = option(
        "flux.1-dev",
        "The model: a public one or one you trained (model_...). The documents name no default; this is their example.",
    )
    model_family: str = option(
        AUTO,
        "Not sent. What modelId is built on, which decides what it can do; auto tells it from the id where it can.",
        choices=(AUTO, *(family.value for family in Family if family is not Family.UNKNOWN)),
    )
    baseModelId: str = option("", "Base model for a Flux LoRA, one of its compliantModelIds. Empty: its own.")
    modelEpoch: str = option("", "Training epoch of a Flux LoRA, e.g. 000001. Empty: the latest.")
    modality: str = option(
        "",
        "Empty: the kinds and strengths of the connected controls. Else the text to send instead, e.g. character:0.5, "
        "landscape, canny:0.5,depth:0.3 or sketch; the control gives the picture then.",
    )
    scheduler: str = option(
        AS_REQUESTED, "TCDScheduler is one that only this service has.", choices=(AS_REQUESTED, TCD)
    )
    negativePromptStrength: float = option(
        0.0,
        "How strongly the negative prompt acts on Flux dev, 0 to 10; must be above 0 there if there is one. By the "
        "documents it acts for other kinds of generation only.",
        minimum=0.0,
        maximum=10.0,
        step=0.1,
    )
    random_seed: bool = option(False, "Sends no seed, so that the service draws one; the request's is not used.")
    conceptEpochs: str = option("", "Training epochs of the LoRAs in their order, by commas. Empty: the latest.")
    control_field: str = option(
        "image",
        "Not sent. Which field carries the control picture. The documents contradict themselves; the service's own "
        "program sends image. The Id fields upload it first.",
        choices=("image", "imageId", "controlImage", "controlImageId"),
    )
    ip_adapter_fields: str = option(
        PLURAL,
        "Not sent. Which fields carry the references. The service's own program sent the deprecated one here.",
        choices=(PLURAL, SINGULAR),
    )
    image_transfer: str = option(
        AUTO,
        "Not sent. Whether pictures travel inside the request or are stored at the service first; auto stores them "
        "when they may be too many bytes for one request (6 million).",
        choices=(AUTO, INLINE, UPLOAD),
    )
    imageParentId: str = option("", "Asset that the control picture belongs under, if it travels inside the request.")
    imageHide: bool = option(False, "Hides the control picture at the service, if it travels inside the request.")
    hideResults: bool = option(False, "Hides the results in the service's lists of pictures.")
    intermediateImages: bool = option(False, "Makes pictures of the steps in between, too.")
    originalAssets: bool = option(False, "Asks the service for unconverted pictures in its answer.")
    projectId: str = option("", "Project that shall own the pictures. Empty: the key's own.")
    estimate_only: bool = option(False, "Asks for the price only (dryRun): nothing is generated and nothing charged.")
