"""What ModelsLab's two ControlNet endpoints document: families, tables, own fields (docs/services/modelslab.md 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from ..core.capabilities import (
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
from ..core.modality import Modality
from ..core.request import ReferenceKind
from ..core.scheduler import AlgorithmType, SchedulerName
from .options import option


class Family(StrEnum):
    """What a `model_id` is built on; UNKNOWN allows what any of them can do."""

    SD15 = "sd15"
    SDXL = "sdxl"
    FLUX = "flux"
    UNKNOWN = "unknown"


AUTO = "auto"
# The first part that stands in a model id tells its family; ids from the documents' examples.
_FAMILY_OF: tuple[tuple[str, Family], ...] = (
    ("flux", Family.FLUX),
    ("xl", Family.SDXL),
    ("realistic-vision", Family.SD15),
    ("midjourney", Family.SD15),
)


def family_of(model_id: str, chosen: str) -> Family:
    """The family chosen by the user, or what the model's id tells."""
    if chosen != AUTO and chosen in {family.value for family in Family}:
        return Family(chosen)
    return next((family for part, family in _FAMILY_OF if part in model_id.lower()), Family.UNKNOWN)


# The support table of the standard page, and the shorter list of the enterprise page (docs/services/modelslab.md 2.1).
_FLUX_ONLY = frozenset({Modality.GRAY, Modality.LOW_QUALITY})
_FLUX = _FLUX_ONLY | {Modality.CANNY, Modality.TILE, Modality.DEPTH, Modality.BLUR, Modality.POSE}
_MODALITIES: Mapping[Family, frozenset[Modality]] = {
    Family.SD15: frozenset(Modality) - _FLUX_ONLY,
    Family.SDXL: frozenset(Modality) - _FLUX_ONLY,
    Family.FLUX: _FLUX,
    Family.UNKNOWN: frozenset(Modality),
}
_ENTERPRISE_MODALITIES = frozenset(Modality) - _FLUX_ONLY - {Modality.BLUR, Modality.POSE}

# The documented adapter ids, each with the family and the kind of reference it is for (docs/services/modelslab.md 2).
ADAPTERS: Mapping[str, tuple[Family, ReferenceKind]] = {
    "ip-adapter_sd15": (Family.SD15, ReferenceKind.STYLE),
    "ip-adapter-plus-face_sd15": (Family.SD15, ReferenceKind.FACE),
    "ip-adapter_sdxl": (Family.SDXL, ReferenceKind.STYLE),
}
_REFERENCE_KINDS: Mapping[Family, frozenset[ReferenceKind]] = {
    family: frozenset(kind for of, kind in ADAPTERS.values() if family in (of, Family.UNKNOWN)) for family in Family
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
            names=frozenset(SchedulerName),
            default=SchedulerName.UNIPC,
            karras_sigmas=frozenset(SchedulerName),
            algorithm_types={SchedulerName.DPM_MULTISTEP: frozenset(ALGORITHMS)},
        ),
        controls=ControlSupport(
            modalities=_MODALITIES[family],
            minimum=1,
            maximum=1 if family is Family.FLUX else UNLIMITED,
            strength=Range(0.1, 5),
            detects=True,
            masked_modalities=frozenset({Modality.INPAINT}),
            remedy="Remove it, use one of these, or fill in controlnet_model if your account has such a net.",
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


@dataclass(frozen=True)
class SharedOptions:
    """The documented fields of both endpoints that a request does not carry; what is not a field says so."""

    model_id: str = option(
        "realistic-vision-51",
        "The base model: a public one or one you trained. The documents name no default; this is their own example.",
    )
    model_family: str = option(
        AUTO,
        "Not sent. What model_id is built on, which decides what it can do; auto tells it from the id where it can.",
        choices=(AUTO, Family.SD15.value, Family.SDXL.value, Family.FLUX.value),
    )
    controlnet_model: str = option(
        "",
        "Empty: the kinds of the connected controls. Else ids of other ControlNets, one for each control, by commas.",
    )
    controlnet_type: str = option("", "Empty: the kind of the first control. Else the type to send instead.")
    control_field: str = option(
        CONTROL_FIELDS[0],
        "Not sent. Which field carries the control picture when no init_image is connected. All documented examples "
        "use init_image; other programs were seen to send control_image only.",
        choices=CONTROL_FIELDS,
    )
    controlnet_conditioning_scale: float = option(
        0.0,
        "One strength for all controls, 0.1 to 5. 0: the strength of the connected controls, which must then be equal.",
        minimum=0.0,
        maximum=5.0,
        step=0.05,
    )
    guess_mode: bool = option(False, "Lets the model guess what the picture shows; for requests without a prompt.")
    num_inference_steps: str = option(
        STEPS_AS_REQUESTED,
        "The documents allow 21 and 31 only, but show 30 themselves; programs send others. As requested sends the "
        "steps of the request.",
        choices=(STEPS_AS_REQUESTED, "21", "31"),
    )
    use_karras_sigmas: bool = option(True, "More steps at low noise. Also on when the request's scheduler asks for it.")
    tomesd: bool = option(True, "Token merging: faster, with slightly less detail.")
    enhance_prompt: bool = option(
        True, "Lets the service rewrite the prompt for better results. Off sends exactly what you wrote."
    )
    safety_checker: bool = option(False, "Replaces pictures it takes for unsafe by a blank one.")
    random_seed: bool = option(False, "Sends no seed (null), so that the service draws one; the request's is not used.")
    base64: bool = option(
        False,
        "Off: pictures are uploaded and travel as links. On: they travel inside the request as base64, and the result "
        "comes as base64 too.",
    )
    temp: bool = option(False, "Makes the result's link valid for 24 hours only.")
    webhook: str = option(
        "", "Public https address that is called when the pictures are ready. Not needed to get them."
    )
    track_id: str = option("", "Your own number for this request, told to the webhook.")
    init_image_url: str = option(
        "", "Public address of the initial picture, sent instead of the connected init_image (base64 must be off)."
    )
    control_image_url: str = option(
        "", "Public address of the control picture, sent instead of the connected control's (base64 must be off)."
    )
    mask_image_url: str = option(
        "", "Public address of the mask for inpainting, sent instead of the connected one (base64 must be off)."
    )
    api_path: str = option("", "Not sent. The path of the endpoint.")


@dataclass(frozen=True)
class ModelsLabOptions(SharedOptions):
    """Fields of the standard endpoint (docs/services/modelslab.md 2)."""

    api_path: str = option(
        "/api/v5/controlnet",
        "Not sent. The documented path is /api/v5/controlnet; ModelsLab's own Python package uses the other one.",
        choices=("/api/v5/controlnet", "/api/v6/images/controlnet"),
    )
    ip_adapter_id: str = option(
        AUTO,
        "The IP-Adapter for the connected reference; auto chooses by its kind and the model's family.",
        choices=(AUTO, *ADAPTERS),
    )
    ip_adapter_image_url: str = option(
        "", "Public address of the reference picture, sent instead of the connected one."
    )


@dataclass(frozen=True)
class ModelsLabEnterpriseOptions(SharedOptions):
    """Fields of the enterprise endpoint, whose models must be loaded on the server (docs/services/modelslab.md 2)."""

    controlnet_conditioning_scale: float = option(
        0.0,
        "One strength for all controls. 0: the strength of the connected controls, which must then be equal. The "
        "documents say 1 to 20 here, apparently copied from guidance_scale; 0.1 to 5 is what the other endpoint takes.",
        minimum=0.0,
        maximum=20.0,
        step=0.05,
    )
    safety_checker: bool = option(True, "Replaces pictures it takes for unsafe by a blank one.")
    api_path: str = option(
        "/api/v1/enterprise/controlnet",
        "Not sent. The documented path is /api/v1/enterprise/controlnet; their Python package uses the other one.",
        choices=("/api/v1/enterprise/controlnet", "/api/v1/enterprise/images/controlnet"),
    )
    multi_lingual: bool = option(True, "Lets the prompt be in any language.")
