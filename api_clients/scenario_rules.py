"""How a request becomes Scenario's fields, and what cannot (docs/services/scenario.md 3, 4, 6)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import Problem
from ..core.request import ControlUnit, GenerationRequest, acting
from .checks import (
    acting_controls,
    acting_references,
    batches,
    loras_elsewhere,
    plain,
    several_detects,
    several_pictures,
)
from .messages import Carrier
from .options import check_options
from .scenario_tables import (
    AS_REQUESTED,
    AUTO,
    EARLIEST_END,
    INLINE,
    LATEST_START,
    NAMES,
    PLURAL,
    PRESETS,
    SINGULAR,
    TCD,
    UPLOAD,
    Family,
    ScenarioOptions,
    family_of,
    writable,
)

if TYPE_CHECKING:
    from torch import Tensor

# Inline while the whole body stays below 8 MB of base64 text (docs/services/scenario.md 6).
INLINE_BYTES = 6_000_000
CONTROL_KEY = "control image"
_TARGET = "Scenario"
_MOST_MODALITIES = 3
_PART = re.compile(r"(?P<name>[a-z-]+)(?::(?P<weight>\d+(?:\.\d+)?))?", re.ASCII)
# The control's field, by the documented one for a data URL: the same for an uploaded picture.
_ID_FIELDS = {"image": "image", "controlImage": "controlImageId"}
_ID_ONLY = ("imageId", "controlImageId")


def family(options: ScenarioOptions) -> Family:
    """What the chosen model is built on."""
    return family_of(options.modelId, options.model_family)


def modality(controls: Sequence[ControlUnit]) -> str:
    """`name:weight`, joined by commas (docs/services/scenario.md 4)."""
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
    """One for each LoRA, "" for the latest; none at all for an empty text."""
    return [part.strip() for part in options.conceptEpochs.split(",")] if options.conceptEpochs.strip() else []


def reference_pictures(request: GenerationRequest) -> list[tuple[str, Tensor, float]]:
    """Key, picture [1, h, w, channel] and scale of every reference picture; each of a batch is one."""
    pictures = [(image[None], reference.scale) for reference in acting_references(request) for image in reference.image]
    return [(f"reference image {index}", image, scale) for index, (image, scale) in enumerate(pictures, 1)]


def carriers(request: GenerationRequest, options: ScenarioOptions) -> tuple[Carrier, Carrier]:
    """How the control picture and how the references travel: inline as long as the largest PNGs of them would fit."""
    control = _png_bytes(request.height, request.width)
    references = sum(_png_bytes(*image.shape[1:3]) for _, image, _ in reference_pictures(request))
    inline = {AUTO: INLINE_BYTES, INLINE: float("inf"), UPLOAD: 0}[options.image_transfer]
    if options.control_field in _ID_ONLY:
        control_inline = False
    else:
        control_inline = control <= inline or options.control_field == "controlImage"
    references_inline = references + control * control_inline <= inline
    by_inline = (Carrier.UPLOAD, Carrier.DATA_URL)
    return by_inline[control_inline], by_inline[references_inline]


def _png_bytes(height: int, width: int) -> int:
    """More than an RGB image of this size can take as PNG."""
    return int(height * (width * 3 + 1) * 1.01) + 4096


def control_fields(request: GenerationRequest, options: ScenarioOptions, images: Mapping[str, str]) -> dict[str, Any]:
    """The control picture in the field the user chose, or the one for an uploaded picture."""
    carrier, _ = carriers(request, options)
    name = options.control_field
    if carrier is Carrier.UPLOAD:
        return {_ID_FIELDS.get(name, name): images[CONTROL_KEY]}
    parent = options.imageParentId.strip()
    fields: dict[str, Any] = {name: images[CONTROL_KEY], "imageHide": options.imageHide}
    return fields | ({"imageParentId": parent} if parent else {})


def reference_fields(request: GenerationRequest, options: ScenarioOptions, images: Mapping[str, str]) -> dict[str, Any]:
    """The IP-Adapter fields: all data URLs or all asset ids, one scale for each picture."""
    pictures = reference_pictures(request)
    if not pictures:
        return {}
    _, carrier = carriers(request, options)
    ids = carrier is Carrier.UPLOAD
    sent = [images[key] for key, _, _ in pictures]
    kind = {"ipAdapterType": acting_references(request)[0].kind.value}
    if options.ip_adapter_fields == SINGULAR:
        return kind | {"ipAdapterImageId" if ids else "ipAdapterImage": sent[0], "ipAdapterScale": pictures[0][2]}
    scales = [scale for _, _, scale in pictures]
    return kind | {"ipAdapterImageIds" if ids else "ipAdapterImages": sent, "ipAdapterScales": scales}


def combination_problems(request: GenerationRequest, options: ScenarioOptions) -> Iterator[Problem]:
    """What the endpoint cannot express, and options that make no sense."""
    yield from check_options(options)
    yield from _model(options)
    yield from batches(request, _TARGET)
    yield from several_pictures(request, _TARGET)
    yield from several_detects(request, _TARGET, "disableModalityDetection")
    yield from _modality_text(request, options) if options.modality.strip() else _repeated_names(request)
    yield from _windows(request, options)
    yield from _references(request, options)
    yield from _negative_prompt(request, options)
    yield from _scheduler(request, options)
    yield from loras_elsewhere(request, _TARGET)
    yield from _epochs(request, options)
    yield from _transfer(request, options)


def _model(options: ScenarioOptions) -> Iterator[Problem]:
    if not options.modelId.strip():
        yield Problem("modelId", "empty", "Scenario needs a model", "Enter its id, e.g. flux.1-dev.")
    kind = family(options)
    for name in ("baseModelId", "modelEpoch"):
        if getattr(options, name).strip() and kind in (Family.SD15, Family.SDXL):
            limit = f"it is for Flux LoRA models, and '{options.modelId}' is {kind.value}"
            yield Problem(name, f"'{getattr(options, name)}'", limit, f"Empty {name}, or set model_family.")


def _modality_text(request: GenerationRequest, options: ScenarioOptions) -> Iterator[Problem]:
    """A `modality` written by the user: the grammar, the family's names, and nothing of the controls is lost."""
    kind, text = family(options), "".join(options.modality.split())
    known, presets = writable(kind), PRESETS[kind]
    parts = text.split(",")
    found = [_PART.fullmatch(part) for part in parts]
    for part, match in zip(parts, found, strict=True):
        if match is None or match["name"] not in known + presets:
            limit = f"each part is a name or name:weight, of {', '.join(known)}"
            extra = f", or one of the presets {', '.join(presets)}" if presets else ""
            yield Problem("modality", f"'{part}'", limit + extra, "Correct or empty it.")
        elif match["weight"] is not None and not 0 < float(match["weight"]) <= 1:
            yield Problem("modality", f"'{part}'", "a weight is above 0 and at most 1", "Write 1 or less.")
    names = [match["name"] for match in found if match]
    most = 1 if kind.is_flux or set(names) & set(presets) else _MOST_MODALITIES
    if len(parts) > most:
        what = "a Flux model takes one name" if kind.is_flux else "it takes three names, or one preset alone"
        yield Problem("modality", f"'{text}'", what, "Write fewer.")
    yield from _repeated(names)
    controls = acting_controls(request)
    if len(controls) > 1:
        limit = "with modality filled in, one control gives the picture"
        yield Problem("controls", str(len(controls)), limit, "Keep one, or empty modality.")
    if controls and controls[0].strength != 1:
        limit = "with modality filled in, the weights stand there"
        yield Problem("strength", f"{controls[0].strength:g}", limit, "Set it to 1, or empty modality.")


def _repeated_names(request: GenerationRequest) -> Iterator[Problem]:
    yield from _repeated([NAMES[c.modality] for c in acting_controls(request) if c.modality in NAMES])


def _repeated(names: Sequence[str]) -> Iterator[Problem]:
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        limit = "Scenario takes each kind of control once, and has one name for both pose kinds"
        yield Problem("modality", f"'{name}' {names.count(name)} times", limit, "Keep one of them.")


def _windows(request: GenerationRequest, options: ScenarioOptions) -> Iterator[Problem]:
    kind = family(options)
    for control in acting_controls(request):
        name, span = f"{control.modality.value} window", f"{control.start:g} to {control.end:g}"
        if kind is Family.UNKNOWN and (control.start > 0 or control.end < 1):
            limit = f"only Flux dev models have windows, and what '{options.modelId}' is built on is not known"
            yield Problem(name, span, limit, "Set model_family to flux-dev if it is one, else set 0 and 1.")
        if kind is Family.FLUX_DEV and (control.start > LATEST_START or control.end < EARLIEST_END):
            yield Problem(name, span, "it begins at 0.9 at the latest and ends at 0.1 at the earliest", "Widen it.")


def _references(request: GenerationRequest, options: ScenarioOptions) -> Iterator[Problem]:
    references = acting_references(request)
    kinds = {reference.kind.value for reference in references}
    if len(kinds) > 1:
        limit = "Scenario has one ipAdapterType for all references"
        yield Problem("reference kind", ", ".join(sorted(kinds)), limit, "Set the same kind everywhere.")
    count = sum(reference.image.shape[0] for reference in references if reference.image.ndim)
    if options.ip_adapter_fields == SINGULAR and count > 1:
        limit = "the deprecated field carries one picture"
        yield Problem("references", str(count), limit, f"Keep one, or set ip_adapter_fields to {PLURAL}.")


def _negative_prompt(request: GenerationRequest, options: ScenarioOptions) -> Iterator[Problem]:
    kind, strength = family(options), options.negativePromptStrength
    given, shown = bool(request.negative_prompt.strip()), f"'{request.negative_prompt[:40]}'"
    if strength and kind not in (Family.FLUX_DEV, Family.UNKNOWN):
        yield Problem("negativePromptStrength", f"{strength:g}", "only Flux dev models have it", "Set it to 0.")
    if given and kind is Family.FLUX_SCHNELL:
        yield Problem("negative_prompt", shown, "Flux schnell models ignore it", "Empty it.")
    elif given and kind is Family.FLUX_DEV and not strength:
        limit = "Flux dev models ignore it while negativePromptStrength is 0"
        yield Problem("negative_prompt", shown, limit, "Empty it, or set negativePromptStrength above 0.")
    if given and request.guidance_scale < 1:
        limit = f"it is ignored at a guidance below 1, which is {request.guidance_scale:g}"
        yield Problem("negative_prompt", shown, limit, "Empty it, or set guidance_scale to 1 or more.")


def _scheduler(request: GenerationRequest, options: ScenarioOptions) -> Iterator[Problem]:
    if options.scheduler == TCD and request.scheduler.name:
        limit = f"the request asks for {request.scheduler.name.value}"
        yield Problem("scheduler", TCD, limit, f"Set the request's to default, or this one to '{AS_REQUESTED}'.")


def _epochs(request: GenerationRequest, options: ScenarioOptions) -> Iterator[Problem]:
    count = len(_split_epochs(options))
    if count > len(request.loras):
        limit = f"there are {len(request.loras)} LoRAs"
        yield Problem("conceptEpochs", f"'{options.conceptEpochs}'", limit, "Write one epoch for each at most.")


def _transfer(request: GenerationRequest, options: ScenarioOptions) -> Iterator[Problem]:
    if options.control_field == "controlImage" and options.image_transfer == UPLOAD:
        limit = "the field takes a picture inside the request only"
        yield Problem("control_field", "controlImage", limit, "Choose controlImageId, or another image_transfer.")
    well_formed = all(reference.image.ndim == 4 for reference in acting_references(request))
    if not well_formed or options.image_transfer not in (AUTO, INLINE, UPLOAD):
        return
    if carriers(request, options)[0] is Carrier.UPLOAD:
        for name in ("imageParentId", "imageHide"):
            if value := getattr(options, name):
                limit = "it acts on a picture inside the request only, and this one is uploaded"
                yield Problem(name, f"{value}", limit, f"Set image_transfer to {INLINE}, or leave {name} out.")
