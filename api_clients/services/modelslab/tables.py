"""What ModelsLab's two ControlNet endpoints document: families, tables, own fields (docs/services/modelslab.md 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from ....core.capabilities import (
    UNLIMITED,
    Capabilities,
    ControlSupport,
    InitImageSupport,
    LoraSupport,
    PromptSupport,
    Range,
    ReferenceSupport,
    SchedulerSupport,
)
from ....core.modality import Modality
from ....core.request import ReferenceKind
from ....core.scheduler import AlgorithmType, SchedulerName
from ..options import option


class Family(StrEnum):
    """The base model of a `model_id`. UNKNOWN allows what any family can do."""

    SD15 = "sd15"
    SDXL = "sdxl"
    FLUX = "flux"
    UNKNOWN = "unknown"


AUTO = "auto"
# The first of these texts in a model id implies its family. The ids are examples from the documents.
_FAMILY_OF: tuple[tuple[str, Family], ...] = (
    ("flux", Family.FLUX),
    ("xl", Family.SDXL),
    ("realistic-vision", Family.SD15),
    ("midjourney", Family.SD15),
)


def family_of(model_id: str, chosen: str) -> Family:
    """The family chosen by the user, or the one that the model's id implies."""
    if chosen != AUTO and chosen in {family.value for family in Family}:
        return Family(chosen)
    return next((family for part, family in _FAMILY_OF if part in model_id.lower()), Family.UNKNOWN)


# The support table of the standard page, and the shorter list of the enterprise page (docs/services/modelslab.md 2.1).
_ENTERPRISE_MODALITIES = frozenset(
    {
        Modality.CANNY,
        Modality.DEPTH,
        Modality.HED,
        Modality.MLSD,
        Modality.NORMAL,
        Modality.OPENPOSE,
        Modality.SCRIBBLE,
        Modality.SEGMENTATION,
        Modality.INPAINT,
        Modality.SOFTEDGE,
        Modality.LINEART,
        Modality.SHUFFLE,
        Modality.TILE,
        Modality.FACE_DETECTOR,
        Modality.QRCODE,
    }
)
_SD_MODALITIES = _ENTERPRISE_MODALITIES | {Modality.BLUR, Modality.POSE}
_FLUX_MODALITIES = frozenset(
    {
        Modality.CANNY,
        Modality.TILE,
        Modality.DEPTH,
        Modality.BLUR,
        Modality.POSE,
        Modality.GRAY,
        Modality.LOW_QUALITY,
    }
)
DOCUMENTED_MODALITIES = _SD_MODALITIES | _FLUX_MODALITIES
_MODALITIES: Mapping[Family, frozenset[Modality]] = {
    Family.SD15: _SD_MODALITIES,
    Family.SDXL: _SD_MODALITIES,
    Family.FLUX: _FLUX_MODALITIES,
    Family.UNKNOWN: DOCUMENTED_MODALITIES,
}
# docs/services/modelslab.md 2.2
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
        SchedulerName.DDIM_INVERSE,
        SchedulerName.DEIS,
        SchedulerName.IPNDM,
        SchedulerName.KARRAS_VE,
        SchedulerName.SCORE_SDE_VE,
        SchedulerName.LCM,
    }
)


@dataclass(frozen=True)
class Adapter:
    """The family of models and the kind of reference that an IP-Adapter is for."""

    family: Family
    kind: ReferenceKind


# The documented adapter ids (docs/services/modelslab.md 2).
ADAPTERS: Mapping[str, Adapter] = {
    "ip-adapter_sd15": Adapter(Family.SD15, ReferenceKind.STYLE),
    "ip-adapter-plus-face_sd15": Adapter(Family.SD15, ReferenceKind.FACE),
    "ip-adapter_sdxl": Adapter(Family.SDXL, ReferenceKind.STYLE),
}
_REFERENCE_KINDS: Mapping[Family, frozenset[ReferenceKind]] = {
    family: frozenset(adapter.kind for adapter in ADAPTERS.values() if family in (adapter.family, Family.UNKNOWN))
    for family in Family
}
ALGORITHMS: Mapping[AlgorithmType, str] = {AlgorithmType.DPMSOLVER_PP: "dpmsolver+++"}
NO_ALGORITHM = "none"

_TITLES: Mapping[Family, str] = {
    Family.SD15: " (SD 1.5)",
    Family.SDXL: " (SDXL)",
    Family.FLUX: " (Flux)",
    Family.UNKNOWN: "",
}


def _table(target: str, family: Family) -> Capabilities:
    return Capabilities(
        target=target + _TITLES[family],
        prompts=PromptSupport(negative=True, max_clip_skip=7),
        ranges={
            "width": Range(64, 1024, multiple=8),
            "height": Range(64, 1024, multiple=8),
            "steps": Range(1, 50),
            "guidance_scale": Range(1, 20),
            "batch_size": Range(1, 4),
            "denoise": Range(0, 1),
        },
        schedulers=SchedulerSupport(
            names=_SCHEDULERS,
            default=SchedulerName.UNIPC,
            karras_sigmas=_SCHEDULERS,
            algorithm_types={SchedulerName.DPM_MULTISTEP: frozenset(ALGORITHMS)},
        ),
        controls=ControlSupport(
            modalities=_MODALITIES[family],
            required=True,
            maximum=1 if family is Family.FLUX else UNLIMITED,
            strength=Range(0.1, 5),
            detects=True,
            masked_modalities=frozenset({Modality.INPAINT}),
            remedy="Remove it, use one of these, or set controlnet_model if your account has such a ControlNet.",
        ),
        references=ReferenceSupport(
            kinds=_REFERENCE_KINDS[family], maximum=1 if _REFERENCE_KINDS[family] else 0, scale=Range(0, 1)
        ),
        loras=LoraSupport(maximum=UNLIMITED, strength=Range(0.1, 1)),
        init_images=InitImageSupport(accepted=True, inpainting=True),
        vae=True,
        upscale=True,
    )


def _enterprise_table(family: Family) -> Capabilities:
    table = _table("ModelsLab Enterprise", family)
    controls = replace(table.controls, modalities=_MODALITIES[family] & _ENTERPRISE_MODALITIES)
    return replace(table, controls=controls, references=ReferenceSupport())


TABLES: Mapping[Family, Capabilities] = {family: _table("ModelsLab", family) for family in Family}
ENTERPRISE_TABLES: Mapping[Family, Capabilities] = {family: _enterprise_table(family) for family in Family}

STEPS_AS_REQUESTED = "as requested"
CONTROL_FIELDS = ("init_image", "control_image", "both")
# The options with the address of an image that can also be sent inside the request, as base64.
ADDRESS_OPTIONS = ("init_image_url", "control_image_url", "mask_image_url")


@dataclass(frozen=True)
class SharedOptions:
    """The documented fields of both endpoints that a request does not carry, and options that say "Not sent"."""

    model_id: str = option(
        "realistic-vision-51",
        "The base model: a public one or one that you trained. The documentation has no default; this is its example.",
    )
    model_family: str = option(
        AUTO,
        "Not sent. The family of model_id, which decides what it can do. auto: recognize it by the id if possible.",
        choices=(AUTO, Family.SD15.value, Family.SDXL.value, Family.FLUX.value),
    )
    controlnet_model: str = option(
        "",
        "Ids of other ControlNets, one for each control, separated by commas. Empty: those of the connected controls.",
    )
    controlnet_type: str = option("", "The control type to send. Empty: the type of the first control.")
    control_field: str = option(
        CONTROL_FIELDS[0],
        "Not sent. Which field carries the control image if no init_image is connected. All documented examples use "
        "init_image; some other programs send only control_image.",
        choices=CONTROL_FIELDS,
    )
    controlnet_conditioning_scale: float = option(
        0.0,
        "One strength for all controls, 0.1 to 5. 0: use the strength of the connected controls, which must be equal.",
        minimum=0.0,
        maximum=5.0,
        step=0.05,
    )
    guess_mode: bool = option(False, "Let the model guess what the control image shows, for requests without a prompt.")
    num_inference_steps: str = option(
        STEPS_AS_REQUESTED,
        "as requested: send the steps of the request. The documentation allows only 21 and 31, but its own examples "
        "and other programs send other numbers.",
        choices=(STEPS_AS_REQUESTED, "21", "31"),
    )
    use_karras_sigmas: bool = option(
        True, "Use Karras sigmas: more steps at low noise. Also on if the scheduler of the request asks for it."
    )
    tomesd: bool = option(True, "Token merging: faster, with slightly less detail.")
    enhance_prompt: bool = option(
        True, "Let the service rewrite the prompt for better results. Off: send the prompt as written."
    )
    safety_checker: bool = option(False, "Replace images that the service considers unsafe with a blank one.")
    random_seed: bool = option(
        False, "Send no seed (null): the service draws one, and the seed of the request is not used."
    )
    base64: bool = option(
        False,
        "Off: upload images and send links. On: send images inside the request as base64 and receive the result as "
        "base64.",
    )
    temp: bool = option(False, "Make the link of the result valid for only 24 hours.")
    webhook: str = option(
        "", "Public https address that the service calls when the images are ready. Not needed to receive them."
    )
    track_id: str = option("", "Your own number for this request, which the service sends to the webhook.")
    init_image_url: str = option(
        "", "Public address of the initial image, sent instead of the connected init_image. base64 must be off."
    )
    control_image_url: str = option(
        "", "Public address of the control image, sent instead of that of the connected control. base64 must be off."
    )
    mask_image_url: str = option(
        "", "Public address of the mask for inpainting, sent instead of the connected one. base64 must be off."
    )
    api_path: str = option("", "Not sent. The path of the endpoint.")


@dataclass(frozen=True)
class ModelsLabOptions(SharedOptions):
    """Fields of the standard endpoint (docs/services/modelslab.md 2)."""

    api_path: str = option(
        "/api/v5/controlnet",
        "Not sent. The path of the endpoint. The first is documented; ModelsLab's Python package uses the other.",
        choices=("/api/v5/controlnet", "/api/v6/images/controlnet"),
    )
    ip_adapter_id: str = option(
        AUTO,
        "The IP-Adapter for the connected reference. auto: choose by its kind and by the family of the model.",
        choices=(AUTO, *ADAPTERS),
    )
    ip_adapter_image_url: str = option("", "Public address of the reference image, sent instead of the connected one.")


@dataclass(frozen=True)
class ModelsLabEnterpriseOptions(SharedOptions):
    """Fields of the enterprise endpoint, whose models must be loaded on the server (docs/services/modelslab.md 2)."""

    controlnet_conditioning_scale: float = option(
        0.0,
        "One strength for all controls. 0: use the strength of the connected controls, which must be equal. The "
        "documents say 1 to 20, apparently copied from guidance_scale; the other endpoint accepts 0.1 to 5.",
        minimum=0.0,
        maximum=20.0,
        step=0.05,
    )
    safety_checker: bool = option(True, "Replace images that the service considers unsafe with a blank one.")
    api_path: str = option(
        "/api/v1/enterprise/controlnet",
        "Not sent. The path of the endpoint. The first is documented; ModelsLab's Python package uses the other.",
        choices=("/api/v1/enterprise/controlnet", "/api/v1/enterprise/images/controlnet"),
    )
    multi_lingual: bool = option(True, "Accept prompts in any language.")
