"""How a request becomes ModelsLab's fields, and what ModelsLab cannot do (docs/services/modelslab.md 2, 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ....core.capabilities import Capabilities
from ....core.modality import Modality
from ....core.problems import Problem, ProblemKind
from ....core.request import ControlUnit, GenerationRequest, ImageReference, Resize
from ...http.messages import Carrier, ImageSlot
from ..checks import (
    acting_controls,
    acting_references,
    different_images,
    fitted_control,
    fitted_image,
    fitted_mask,
    listed,
    lora_ids,
    mixed_detect,
    web_address,
)
from ..options import check_options
from .tables import (
    ADAPTERS,
    ADDRESS_OPTIONS,
    AUTO,
    DOCUMENTED_MODALITIES,
    STEPS_AS_REQUESTED,
    Adapter,
    Family,
    ModelsLabOptions,
    SharedOptions,
    family_of,
)

if TYPE_CHECKING:
    from torch import Tensor

NO_MODEL = ProblemKind("modelslab_no_model", "model_id is empty. Enter the id of a model, e.g. realistic-vision-51.")
MODEL_WITHOUT_CONTROLNET = ProblemKind(
    "modelslab_model_without_controlnet",
    "{target} has no ControlNet for the model '{value}'. Set model_id to {suggestion}.",
)
ADDRESS_WITH_BASE64 = ProblemKind(
    "modelslab_address_with_base64",
    "{field} is '{value}', but base64 is on, which sends images inside the request. Switch base64 off, or clear "
    "{field}.",
)
PROMPT_MISSING = ProblemKind(
    "modelslab_prompt_missing", "{target} needs a prompt. Describe the image, or switch guess_mode on."
)
SCALE_TOO_SMALL = ProblemKind(
    "modelslab_scale_too_small", "{field} is {value}. It must be 0 or at least {suggestion}. Set it to {suggestion}."
)
DIFFERENT_STRENGTHS = ProblemKind(
    "modelslab_different_strengths",
    "strength is {value}. {target} has one strength for all controls. Set the same strength everywhere, or set "
    "controlnet_conditioning_scale, which replaces them.",
)
WRONG_NUMBER_OF_IDS = ProblemKind(
    "modelslab_wrong_number_of_ids",
    "controlnet_model is '{value}', but {count} controls are connected. Enter one id for each control, or clear "
    "controlnet_model.",
)
SEVERAL_TYPES = ProblemKind(
    "modelslab_several_types", "controlnet_type is '{value}'. {target} accepts one type. Keep the main one."
)
MODALITY_OF_ANOTHER_FAMILY = ProblemKind(
    "modelslab_modality_of_another_family",
    "controlnet_model contains '{value}', which {family} does not have. Use one of {known}, or the id of another "
    "ControlNet.",
)
INPAINT_WITHOUT_MASK = ProblemKind(
    "modelslab_inpaint_without_mask",
    "{target} needs a mask for inpainting. Connect one to the Inpaint Control or to the request.",
)
MASK_WITHOUT_INPAINT = ProblemKind(
    "modelslab_mask_without_inpaint",
    "{target} uses a mask only together with an inpaint control. Add an Inpaint Control, or remove the mask.",
)
SEVERAL_MASKS = ProblemKind("modelslab_several_masks", "{value} masks are connected. {target} accepts one. Keep one.")
ADAPTER_WITHOUT_REFERENCE = ProblemKind(
    "modelslab_adapter_without_reference",
    "{field} is '{value}', but no reference is connected. Connect a reference, or set {field} back to its default.",
)
SEVERAL_REFERENCE_IMAGES = ProblemKind(
    "modelslab_several_reference_images",
    "{field} is a batch of {value} images. {target} accepts one reference image. Pick one of them.",
)
ADAPTER_UNKNOWN = ProblemKind(
    "modelslab_adapter_unknown",
    "The adapter for '{model}' cannot be chosen automatically, because the family of this model is not known. Choose "
    "ip_adapter_id, or set model_family.",
)
ADAPTER_OF_ANOTHER_FAMILY = ProblemKind(
    "modelslab_adapter_of_another_family",
    "ip_adapter_id is {value}, which is for {adapter} models, but '{model}' is {family}. Choose {suggestion}, or set "
    "model_family.",
)
ADAPTER_OF_ANOTHER_KIND = ProblemKind(
    "modelslab_adapter_of_another_kind",
    "ip_adapter_id is {value}, which is for references of the kind {adapter}, but the connected reference is {kind}. "
    "Choose {suggestion}, or change the kind of the reference.",
)

# Uploads take 5 MB, measured on the base64 text to be safe, which is 4/3 of the file (docs/services/modelslab.md 6).
LARGEST_FILE = 3_700_000
# Echoed seeds fill 32 bits (docs/services/modelslab.md 2). Of ComfyUI's 64-bit seeds the lower half is sent.
SEEDS = 2**32
_DOCUMENTED_STEPS = (21, 31)
_SMALLEST_SCALE, _USUAL_SCALE = 0.1, 2.0


def net_names(controls: Sequence[ControlUnit], options: SharedOptions) -> list[str]:
    """The ids to send in `controlnet_model`."""
    return listed(options.controlnet_model) or [control.modality.value for control in controls]


def steps(request: GenerationRequest, options: SharedOptions) -> int:
    """The value to send as `num_inference_steps`."""
    chosen = options.num_inference_steps
    return request.steps if chosen == STEPS_AS_REQUESTED else int(chosen)


def conditioning_scale(controls: Sequence[ControlUnit], options: SharedOptions) -> float:
    """The one strength for all controls, 0.1 to 5."""
    return options.controlnet_conditioning_scale or controls[0].strength


def _masks(request: GenerationRequest) -> list[tuple[Tensor, Tensor, Resize]]:
    """The mask of the request and those of its inpaint controls, each with its image and how both are resized."""
    own = []
    if request.mask is not None:
        # A mask without init_image is a problem of its own; until it is solved the mask has no other size to fit.
        image = request.mask[..., None] if request.init_image is None else request.init_image
        own = [(request.mask, image, Resize.CROP)]
    inpaints = (control for control in acting_controls(request) if control.modality is Modality.INPAINT)
    return own + [(control.mask, control.image, control.resize) for control in inpaints if control.mask is not None]


def body_images(request: GenerationRequest, options: SharedOptions) -> dict[str, tuple[Tensor | None, str]]:
    """The image of each image field: a tensor, or an address that replaces it.

    Without an initial image, `init_image` carries the control image, as in every documented example. Inpainting
    requires it there.
    """
    found: dict[str, tuple[Tensor | None, str]]
    controls = acting_controls(request)
    control = (fitted_control(controls[0], request) if controls else None, options.control_image_url)
    if request.init_image is not None or options.init_image_url:
        initial = None if request.init_image is None else fitted_image(request.init_image, request)
        found = {"init_image": (initial, options.init_image_url), "control_image": control}
    else:
        chosen = {options.control_field} if options.control_field != "both" else {"init_image", "control_image"}
        if Modality.INPAINT.value in net_names(controls, options):
            chosen.add("init_image")
        found = {key: control for key in ("init_image", "control_image") if key in chosen}
    masks = _masks(request)
    if masks or options.mask_image_url:
        mask = fitted_mask(*masks[0], request) if masks else None
        found["mask_image"] = (mask, options.mask_image_url)
    return found


def slot(key: str, image: Tensor | None, url: str, inline: bool) -> ImageSlot:
    """An image field: an address, or an image that is sent as base64 (`inline`) or uploaded."""
    if url:
        return ImageSlot(key, None, Carrier.URL, url)
    return ImageSlot(key, image, Carrier.BASE64 if inline else Carrier.UPLOAD, max_bytes=LARGEST_FILE)


def adapter(reference: ImageReference, options: ModelsLabOptions) -> str:
    """The chosen adapter, or the one for the reference's kind and the model's family; "" if there is none."""
    if options.ip_adapter_id != AUTO:
        return options.ip_adapter_id
    family = family_of(options.model_id, options.model_family)
    return next((name for name, made_for in ADAPTERS.items() if made_for == Adapter(family, reference.kind)), "")


def common_problems(
    request: GenerationRequest, options: SharedOptions, family: Capabilities, target: str
) -> Iterator[Problem]:
    """What neither endpoint can do, and options that contradict each other; `family` is the table of the model."""
    yield from check_options(options)
    yield from _model(options, target)
    yield from _addresses(options)
    if not request.prompt.strip() and not options.guess_mode:
        yield PROMPT_MISSING("prompt", request.prompt, target=target)
    if family.controls.maximum > 1:
        yield from different_images(request, target)
        yield from mixed_detect(request, target, "auto_hint")
    yield from _strengths(request, options, target)
    yield from _net_names(request, options, family, target)
    yield from _inpainting(request, options, target)
    yield from lora_ids(request, target)


def _model(options: SharedOptions, target: str) -> Iterator[Problem]:
    if not options.model_id.strip():
        yield NO_MODEL("model_id", options.model_id, "realistic-vision-51")
    if options.model_id.strip().lower() == "flux":
        yield MODEL_WITHOUT_CONTROLNET("model_id", options.model_id, "fluxdev", target=target)


def _addresses(options: SharedOptions) -> Iterator[Problem]:
    yield from web_address("webhook", options.webhook, secure=True)
    for name in ADDRESS_OPTIONS:
        value = getattr(options, name)
        yield from web_address(name, value)
        if value and options.base64:
            yield ADDRESS_WITH_BASE64(name, value, "")


def _strengths(request: GenerationRequest, options: SharedOptions, target: str) -> Iterator[Problem]:
    chosen = options.controlnet_conditioning_scale
    if 0 < chosen < _SMALLEST_SCALE:
        yield SCALE_TOO_SMALL("controlnet_conditioning_scale", chosen, _SMALLEST_SCALE)
    controls = acting_controls(request)
    if len({control.strength for control in controls}) > 1 and not chosen:
        value = ", ".join(f"{control.strength:g} for {control.modality.value}" for control in controls)
        yield DIFFERENT_STRENGTHS("strength", value, target=target)


def _net_names(
    request: GenerationRequest, options: SharedOptions, family: Capabilities, target: str
) -> Iterator[Problem]:
    given, count = listed(options.controlnet_model), len(acting_controls(request))
    if given and count and len(given) != count:
        yield WRONG_NUMBER_OF_IDS("controlnet_model", options.controlnet_model, "", count=count)
    if "," in options.controlnet_type:
        yield SEVERAL_TYPES("controlnet_type", options.controlnet_type, target=target)
    known = sorted(modality.value for modality in family.controls.modalities)
    missing = {modality.value for modality in DOCUMENTED_MODALITIES - family.controls.modalities}
    for name in given:
        if name in missing:
            yield MODALITY_OF_ANOTHER_FAMILY("controlnet_model", name, family=family.target, known=known)


def _inpainting(request: GenerationRequest, options: SharedOptions, target: str) -> Iterator[Problem]:
    inpaints = Modality.INPAINT.value in net_names(acting_controls(request), options)
    masks = _masks(request)
    if inpaints and not masks and not options.mask_image_url:
        yield INPAINT_WITHOUT_MASK("mask", target=target)
    if not inpaints and (masks or options.mask_image_url):
        yield MASK_WITHOUT_INPAINT("mask", target=target)
    if len(masks) > 1:
        yield SEVERAL_MASKS("mask", len(masks), target=target)


def adapter_problems(request: GenerationRequest, options: ModelsLabOptions, target: str) -> Iterator[Problem]:
    """What the IP-Adapter of the standard endpoint cannot do. It accepts one reference image."""
    yield from web_address("ip_adapter_image_url", options.ip_adapter_image_url)
    references = acting_references(request)
    if not references:
        if options.ip_adapter_id != AUTO:
            yield ADAPTER_WITHOUT_REFERENCE("ip_adapter_id", options.ip_adapter_id, AUTO)
        if options.ip_adapter_image_url:
            yield ADAPTER_WITHOUT_REFERENCE("ip_adapter_image_url", options.ip_adapter_image_url, "")
        return
    reference = references[0]
    if reference.image.ndim and reference.image.shape[0] > 1:
        yield SEVERAL_REFERENCE_IMAGES("reference 1 image", reference.image.shape[0], target=target)
    family, chosen = family_of(options.model_id, options.model_family), options.ip_adapter_id
    if family is Family.UNKNOWN and chosen == AUTO:
        yield ADAPTER_UNKNOWN("ip_adapter_id", AUTO, model=options.model_id)
    elif chosen in ADAPTERS and family is not Family.FLUX:
        made_for = ADAPTERS[chosen]
        if family not in (made_for.family, Family.UNKNOWN):
            model = {"model": options.model_id, "family": family}
            yield ADAPTER_OF_ANOTHER_FAMILY("ip_adapter_id", chosen, AUTO, adapter=made_for.family, **model)
        elif made_for.kind is not reference.kind:
            yield ADAPTER_OF_ANOTHER_KIND("ip_adapter_id", chosen, AUTO, adapter=made_for.kind, kind=reference.kind)


def notes(request: GenerationRequest, options: SharedOptions) -> Iterator[str]:
    """What is sent although a source doubts it."""
    controls = acting_controls(request)
    scale = conditioning_scale(controls, options) if controls else 0.0
    if scale > _USUAL_SCALE:
        yield f"A control strength of {scale:g} is unusual: the documentation recommends 0.5 to 1."
    if request.seed >= SEEDS and not options.random_seed:
        yield f"The seed is sent as {request.seed % SEEDS}, its lower 32 bits: the service has no larger seeds."
    if steps(request, options) not in _DOCUMENTED_STEPS:
        yield f"{steps(request, options)} steps are sent. Only 21 and 31 are documented: the service may change them."
    known = {modality.value for modality in DOCUMENTED_MODALITIES}
    for name in listed(options.controlnet_model):
        if name not in known:
            yield f"The ControlNet '{name}' is not a documented one. Your account must have it."
