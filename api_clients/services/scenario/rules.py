"""How a request becomes Scenario's fields, and what Scenario cannot do (docs/services/scenario.md 3, 4, 6)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ....core.problems import Problem, ProblemKind
from ....core.request import ControlUnit, GenerationRequest, acting
from ...http.messages import Carrier
from ..checks import (
    acting_controls,
    acting_references,
    different_images,
    lora_ids,
    mixed_detect,
    plain,
)
from ..options import check_options
from .tables import (
    AS_REQUESTED,
    AUTO,
    EARLIEST_END,
    FLUX_LORAS,
    INLINE,
    LATEST_START,
    NAMES,
    NEGATIVE_STRENGTH,
    PLURAL,
    PRESETS,
    SINGULAR,
    TABLES,
    TCD,
    UPLOAD,
    Family,
    ScenarioOptions,
    family_of,
    writable,
)

if TYPE_CHECKING:
    from torch import Tensor

NO_MODEL = ProblemKind("scenario_no_model", "modelId is empty. Enter the id of a model, e.g. flux.1-dev.")
FLUX_LORA_FIELD = ProblemKind(
    "scenario_flux_lora_field",
    "{field} is '{value}', but it is only for Flux LoRA models and '{model}' is {family}. Clear {field}, or set "
    "model_family.",
)
MODALITY_UNREADABLE = ProblemKind(
    "scenario_modality_unreadable",
    "modality contains '{value}'. Each part must be a name, or name:weight. The names are {names}. Correct or clear "
    "modality.",
)
WEIGHT_OUT_OF_RANGE = ProblemKind(
    "scenario_weight_out_of_range",
    "modality contains '{value}'. A weight must be above 0 and at most 1. Correct the weight.",
)
ONE_MODALITY_FOR_FLUX = ProblemKind(
    "scenario_one_modality_for_flux", "modality is '{value}'. A Flux model accepts one name. Keep one of them."
)
PRESET_NOT_ALONE = ProblemKind(
    "scenario_preset_not_alone", "modality is '{value}'. A preset cannot be combined with other names. Remove them."
)
TOO_MANY_MODALITIES = ProblemKind(
    "scenario_too_many_modalities", "modality is '{value}'. Scenario accepts at most {most} names. Keep {most} of them."
)
CONTROLS_WITH_MODALITY = ProblemKind(
    "scenario_controls_with_modality",
    "{value} controls are connected and modality is set. When modality is set, one control provides the image. Keep "
    "one control, or clear modality.",
)
STRENGTH_WITH_MODALITY = ProblemKind(
    "scenario_strength_with_modality",
    "strength is {value} and modality is set. When modality is set, it contains the weights. Set strength to "
    "{suggestion}, or clear modality.",
)
REPEATED_MODALITY = ProblemKind(
    "scenario_repeated_modality",
    "'{value}' is used {count} times. Scenario accepts each kind of control once, and calls openpose and pose both "
    "'pose'. Keep one of them.",
)
WINDOW_OF_UNKNOWN_MODEL = ProblemKind(
    "scenario_window_of_unknown_model",
    "{field} is {value}. Only Flux dev models support windows, and the family of '{model}' is not known. Set "
    "model_family to flux-dev if it is one, otherwise set start_percent to 0 and end_percent to 1.",
)
WINDOW_TOO_NARROW = ProblemKind(
    "scenario_window_out_of_range",
    "{field} is {value}. Scenario requires a start of at most {latest} and an end of at least {earliest}. Widen the "
    "window.",
)
MIXED_REFERENCE_KINDS = ProblemKind(
    "scenario_mixed_reference_kinds",
    "The references have the kinds {value}. Scenario has one ipAdapterType for all references. Set the same kind "
    "everywhere.",
)
SEVERAL_REFERENCES_IN_ONE_FIELD = ProblemKind(
    "scenario_several_references_in_one_field",
    "{value} reference images are connected, but ip_adapter_fields is {singular}, which carries one image. Keep one "
    "image, or set ip_adapter_fields to {plural}.",
)
NO_NEGATIVE_STRENGTH = ProblemKind(
    "scenario_no_negative_strength",
    "negativePromptStrength is {value}, but only Flux dev models have it. Set it to {suggestion}.",
)
NEGATIVE_PROMPT_OF_SCHNELL = ProblemKind(
    "scenario_negative_prompt_of_schnell", "Flux schnell models ignore negative prompts. Clear negative_prompt."
)
NEGATIVE_PROMPT_WITHOUT_STRENGTH = ProblemKind(
    "scenario_negative_prompt_without_strength",
    "Flux dev models ignore the negative prompt while negativePromptStrength is 0. Clear negative_prompt, or set "
    "negativePromptStrength above 0.",
)
NEGATIVE_PROMPT_WITH_LOW_GUIDANCE = ProblemKind(
    "scenario_negative_prompt_with_low_guidance",
    "The negative prompt is ignored at a guidance below 1, and guidance_scale is {guidance}. Clear negative_prompt, or "
    "set guidance_scale to 1 or more.",
)
TWO_SCHEDULERS = ProblemKind(
    "scenario_two_schedulers",
    "scheduler is {value}, but the request asks for {requested}. Set the scheduler of the request to default, or this "
    "one to '{suggestion}'.",
)
TOO_MANY_EPOCHS = ProblemKind(
    "scenario_too_many_epochs",
    "conceptEpochs is '{value}', but {count} LoRAs are connected. Enter at most one epoch for each LoRA.",
)
FIELD_WITHOUT_UPLOAD = ProblemKind(
    "scenario_field_without_upload",
    "control_field is {value}, which carries only an image inside the request, but image_transfer is upload. Set "
    "control_field to {suggestion}, or change image_transfer.",
)
OPTION_WITH_UPLOAD = ProblemKind(
    "scenario_option_with_upload",
    "{field} is {value}, but it acts only on an image inside the request, and the control image is uploaded. Set "
    "image_transfer to {inline}, or set {field} back to its default.",
)
OPTION_WITH_UPLOAD_FIELD = ProblemKind(
    "scenario_option_with_upload_field",
    "{field} is {value}, but it acts only on an image inside the request, and control_field uploads the control image. "
    "Set control_field to image and image_transfer to {inline}, or set {field} back to its default.",
)

# Inline while the whole body stays below 8 MB of base64 text (docs/services/scenario.md 6).
INLINE_BYTES = 6_000_000
CONTROL_KEY = "control image"
_TARGET = "Scenario"
_MOST_MODALITIES = 3
_PART = re.compile(r"(?P<name>[a-z-]+)(?::(?P<weight>\d+(?:\.\d+)?))?", re.ASCII)
# The control's field, by the documented one for a data URL: the field for an uploaded image.
_ID_FIELDS = {"image": "image", "controlImage": "controlImageId"}
_ID_ONLY = ("imageId", "controlImageId")


@dataclass(frozen=True)
class ReferenceImage:
    """One image [1, height, width, channel] of a reference, with its key in the body and its scale."""

    key: str
    image: Tensor
    scale: float


@dataclass(frozen=True)
class Carriers:
    """How the control image and the reference images are sent."""

    control: Carrier
    references: Carrier


def family(options: ScenarioOptions) -> Family:
    """The family of the chosen model."""
    return family_of(options.modelId, options.model_family)


def modality(controls: Sequence[ControlUnit]) -> str:
    """`name:weight` for each control, separated by commas (docs/services/scenario.md 4)."""
    return ",".join(f"{NAMES[control.modality]}:{plain(control.strength)}" for control in controls)


def concepts(request: GenerationRequest, options: ScenarioOptions) -> list[dict[str, Any]]:
    """The LoRA stack (docs/services/scenario.md 3)."""
    return list(_concepts(request, options))


def _concepts(request: GenerationRequest, options: ScenarioOptions) -> Iterator[dict[str, Any]]:
    epochs = _split_epochs(options)
    for number, lora in acting(request.loras):
        epoch = epochs[number - 1] if number <= len(epochs) else ""
        concept = {"modelId": lora.remote_id.strip(), "scale": lora.strength}
        yield concept | ({"modelEpoch": epoch} if epoch else {})


def _split_epochs(options: ScenarioOptions) -> list[str]:
    """One epoch for each LoRA, "" for the latest; empty where the option is empty."""
    return [part.strip() for part in options.conceptEpochs.split(",")] if options.conceptEpochs.strip() else []


def reference_images(request: GenerationRequest) -> list[ReferenceImage]:
    """Every reference image; each image of a batch is one of its own."""
    images = [(image[None], reference.scale) for reference in acting_references(request) for image in reference.image]
    return [ReferenceImage(f"reference image {index}", image, scale) for index, (image, scale) in enumerate(images, 1)]


def carriers(request: GenerationRequest, options: ScenarioOptions) -> Carriers:
    """How the images are sent: inline as long as the largest PNGs they could become fit into the body."""
    control = _png_bytes(request.height, request.width)
    references = sum(_png_bytes(*reference.image.shape[1:3]) for reference in reference_images(request))
    inline = {AUTO: INLINE_BYTES, INLINE: float("inf"), UPLOAD: 0}[options.image_transfer]
    if options.control_field in _ID_ONLY:
        control_inline = False
    else:
        control_inline = control <= inline or options.control_field == "controlImage"
    references_inline = references + control * control_inline <= inline
    return Carriers(
        Carrier.DATA_URL if control_inline else Carrier.UPLOAD,
        Carrier.DATA_URL if references_inline else Carrier.UPLOAD,
    )


def _png_bytes(height: int, width: int) -> int:
    """An upper bound for the size of an RGB image as PNG."""
    return int(height * (width * 3 + 1) * 1.01) + 4096


def control_fields(request: GenerationRequest, options: ScenarioOptions, images: Mapping[str, str]) -> dict[str, Any]:
    """The control image in the field that the user chose, or in the one for an uploaded image."""
    name = options.control_field
    if carriers(request, options).control is Carrier.UPLOAD:
        return {_ID_FIELDS.get(name, name): images[CONTROL_KEY]}
    parent = options.imageParentId.strip()
    fields: dict[str, Any] = {name: images[CONTROL_KEY], "imageHide": options.imageHide}
    return fields | ({"imageParentId": parent} if parent else {})


def reference_fields(request: GenerationRequest, options: ScenarioOptions, images: Mapping[str, str]) -> dict[str, Any]:
    """The IP-Adapter fields: only data URLs or only asset ids, with one scale for each image."""
    references = reference_images(request)
    if not references:
        return {}
    ids = carriers(request, options).references is Carrier.UPLOAD
    sent = [images[reference.key] for reference in references]
    kind = {"ipAdapterType": acting_references(request)[0].kind.value}
    if options.ip_adapter_fields == SINGULAR:
        return kind | {"ipAdapterImageId" if ids else "ipAdapterImage": sent[0], "ipAdapterScale": references[0].scale}
    scales = [reference.scale for reference in references]
    return kind | {"ipAdapterImageIds" if ids else "ipAdapterImages": sent, "ipAdapterScales": scales}


def combination_problems(request: GenerationRequest, options: ScenarioOptions) -> Iterator[Problem]:
    """What the endpoint cannot do, and options that contradict each other."""
    yield from check_options(options)
    yield from _model(options)
    if TABLES[family(options)].controls.maximum > 1:
        yield from different_images(request, _TARGET)
        yield from mixed_detect(request, _TARGET, "disableModalityDetection")
    yield from _modality_text(request, options) if options.modality.strip() else _repeated_names(request)
    yield from _windows(request, options)
    yield from _references(request, options)
    yield from _negative_prompt(request, options)
    if options.scheduler == TCD and request.scheduler.name:
        yield TWO_SCHEDULERS("scheduler", TCD, AS_REQUESTED, requested=request.scheduler.name)
    yield from lora_ids(request, _TARGET)
    if len(_split_epochs(options)) > len(request.loras):
        yield TOO_MANY_EPOCHS("conceptEpochs", options.conceptEpochs, count=len(request.loras))
    yield from _transfer(request, options)


def _model(options: ScenarioOptions) -> Iterator[Problem]:
    if not options.modelId.strip():
        yield NO_MODEL("modelId", options.modelId, "flux.1-dev")
    kind = family(options)
    for name, value in {"baseModelId": options.baseModelId, "modelEpoch": options.modelEpoch}.items():
        if value.strip() and kind not in FLUX_LORAS:
            yield FLUX_LORA_FIELD(name, value, "", model=options.modelId, family=kind)


def _modality_text(request: GenerationRequest, options: ScenarioOptions) -> Iterator[Problem]:
    """A `modality` written by the user: its grammar, the family's names, and controls that it would ignore."""
    kind, text = family(options), "".join(options.modality.split())
    known, presets = writable(kind), PRESETS[kind]
    parts = text.split(",")
    found = [_PART.fullmatch(part) for part in parts]
    for part, match in zip(parts, found, strict=True):
        if match is None or match["name"] not in known + presets:
            yield MODALITY_UNREADABLE("modality", part, names=known + presets)
        elif match["weight"] is not None and not 0 < float(match["weight"]) <= 1:
            yield WEIGHT_OUT_OF_RANGE("modality", part)
    names = [match["name"] for match in found if match]
    if kind.is_flux and len(parts) > 1:
        yield ONE_MODALITY_FOR_FLUX("modality", text)
    elif set(names) & set(presets) and len(parts) > 1:
        yield PRESET_NOT_ALONE("modality", text)
    elif len(parts) > _MOST_MODALITIES:
        yield TOO_MANY_MODALITIES("modality", text, most=_MOST_MODALITIES)
    yield from _repeated(names)
    controls = acting_controls(request)
    if len(controls) > 1:
        yield CONTROLS_WITH_MODALITY("controls", len(controls))
    if controls and controls[0].strength != 1:
        yield STRENGTH_WITH_MODALITY("strength", controls[0].strength, 1)


def _repeated_names(request: GenerationRequest) -> Iterator[Problem]:
    yield from _repeated([NAMES[c.modality] for c in acting_controls(request) if c.modality in NAMES])


def _repeated(names: Sequence[str]) -> Iterator[Problem]:
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield REPEATED_MODALITY("modality", name, count=names.count(name))


def _windows(request: GenerationRequest, options: ScenarioOptions) -> Iterator[Problem]:
    kind = family(options)
    for control in acting_controls(request):
        name, span = f"{control.modality.value} window", f"{control.start:g} to {control.end:g}"
        if kind is Family.UNKNOWN and (control.start > 0 or control.end < 1):
            yield WINDOW_OF_UNKNOWN_MODEL(name, span, model=options.modelId)
        if kind is Family.FLUX_DEV and (control.start > LATEST_START or control.end < EARLIEST_END):
            yield WINDOW_TOO_NARROW(name, span, latest=LATEST_START, earliest=EARLIEST_END)


def _references(request: GenerationRequest, options: ScenarioOptions) -> Iterator[Problem]:
    references = acting_references(request)
    kinds = {reference.kind.value for reference in references}
    if len(kinds) > 1:
        yield MIXED_REFERENCE_KINDS("reference kind", sorted(kinds))
    count = sum(reference.image.shape[0] for reference in references if reference.image.ndim)
    if options.ip_adapter_fields == SINGULAR and count > 1:
        yield SEVERAL_REFERENCES_IN_ONE_FIELD("references", count, singular=SINGULAR, plural=PLURAL)


def _negative_prompt(request: GenerationRequest, options: ScenarioOptions) -> Iterator[Problem]:
    kind, strength, prompt = family(options), options.negativePromptStrength, request.negative_prompt
    if strength and kind not in NEGATIVE_STRENGTH:
        yield NO_NEGATIVE_STRENGTH("negativePromptStrength", strength, 0)
    if prompt.strip() and kind is Family.FLUX_SCHNELL:
        yield NEGATIVE_PROMPT_OF_SCHNELL("negative_prompt", prompt, "")
    elif prompt.strip() and kind is Family.FLUX_DEV and not strength:
        yield NEGATIVE_PROMPT_WITHOUT_STRENGTH("negative_prompt", prompt, "")
    if prompt.strip() and kind is not Family.FLUX_SCHNELL and request.guidance_scale < 1:
        yield NEGATIVE_PROMPT_WITH_LOW_GUIDANCE("negative_prompt", prompt, "", guidance=request.guidance_scale)


def _transfer(request: GenerationRequest, options: ScenarioOptions) -> Iterator[Problem]:
    if options.control_field == "controlImage" and options.image_transfer == UPLOAD:
        yield FIELD_WITHOUT_UPLOAD("control_field", "controlImage", "controlImageId")
    well_formed = all(reference.image.ndim == 4 for reference in acting_references(request))
    if not well_formed or options.image_transfer not in (AUTO, INLINE, UPLOAD):
        return
    if carriers(request, options).control is Carrier.UPLOAD:
        kind = OPTION_WITH_UPLOAD_FIELD if options.control_field in _ID_ONLY else OPTION_WITH_UPLOAD
        if options.imageParentId:
            yield kind("imageParentId", options.imageParentId, "", inline=INLINE)
        if options.imageHide:
            yield kind("imageHide", options.imageHide, False, inline=INLINE)
