"""How a request becomes ModelsLab's fields, and what cannot (docs/services/modelslab.md 2, 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..core.capabilities import Capabilities
from ..core.errors import Problem
from ..core.modality import Modality
from ..core.request import ControlUnit, GenerationRequest, ImageReference, Resize
from .checks import (
    acting_controls,
    acting_references,
    batches,
    fitted_control,
    fitted_mask,
    fitted_picture,
    listed,
    loras_elsewhere,
    several_detects,
    several_pictures,
    web_address,
)
from .messages import Carrier, ImageSlot
from .modelslab_tables import ADAPTERS, AUTO, STEPS_AS_REQUESTED, Family, ModelsLabOptions, SharedOptions, family_of
from .options import check_options

if TYPE_CHECKING:
    from torch import Tensor

# Uploads take 5 MB, measured on the base64 text to be safe, which is 4/3 of the file (docs/services/modelslab.md 6).
LARGEST_FILE = 3_700_000
# Echoed seeds fill 32 bits (docs/services/modelslab.md 2). ComfyUI draws 64, of which the lower half is sent.
SEEDS = 2**32
# Documented as an address only, even where the other images are sent as base64 (docs/services/modelslab.md 6).
ALWAYS_ADDRESSES = ("ip_adapter_image_url",)
_DOCUMENTED_STEPS = (21, 31)
_SMALLEST_SCALE, _USUAL_SCALE = 0.1, 2.0


def net_names(controls: Sequence[ControlUnit], options: SharedOptions) -> list[str]:
    """What `controlnet_model` lists."""
    return listed(options.controlnet_model) or [control.modality.value for control in controls]


def steps(request: GenerationRequest, options: SharedOptions) -> int:
    """What is sent as `num_inference_steps`."""
    chosen = options.num_inference_steps
    return request.steps if chosen == STEPS_AS_REQUESTED else int(chosen)


def conditioning_scale(controls: Sequence[ControlUnit], options: SharedOptions) -> float:
    """The one strength of all controls, 0.1 to 5."""
    return options.controlnet_conditioning_scale or controls[0].strength


def _masks(request: GenerationRequest) -> list[tuple[Tensor, Tensor, Resize]]:
    """The request's mask and those of its inpaint controls, each with its picture and how both are fitted."""
    own = []
    if request.mask is not None:
        # Without init_image, which is a problem of its own, there is nothing else to measure it by.
        picture = request.mask[..., None] if request.init_image is None else request.init_image
        own = [(request.mask, picture, Resize.CROP)]
    inpaints = (control for control in acting_controls(request) if control.modality is Modality.INPAINT)
    return own + [(control.mask, control.image, control.resize) for control in inpaints if control.mask is not None]


def pictures(request: GenerationRequest, options: SharedOptions) -> dict[str, tuple[Tensor | None, str]]:
    """What goes into each image field: a tensor, or an address in its place.

    Without an initial image the control's picture stands in `init_image`, as in every documented example; inpainting
    needs it there.
    """
    found: dict[str, tuple[Tensor | None, str]]
    controls = acting_controls(request)
    control = (fitted_control(controls[0], request) if controls else None, options.control_image_url)
    if request.init_image is not None or options.init_image_url:
        initial = None if request.init_image is None else fitted_picture(request.init_image, request)
        found = {"init_image": (initial, options.init_image_url), "control_image": control}
    else:
        chosen = {options.control_field} if options.control_field != "both" else {"init_image", "control_image"}
        if "inpaint" in net_names(controls, options):
            chosen.add("init_image")
        found = {key: control for key in ("init_image", "control_image") if key in chosen}
    masks = _masks(request)
    if masks or options.mask_image_url:
        mask = fitted_mask(*masks[0], request) if masks else None
        found["mask_image"] = (mask, options.mask_image_url)
    return found


def slot(key: str, image: Tensor | None, url: str, inline: bool) -> ImageSlot:
    """An image field: an address as it is, a picture as base64 (`inline`) or uploaded."""
    if url:
        return ImageSlot(key, None, Carrier.URL, url)
    return ImageSlot(key, image, Carrier.BASE64 if inline else Carrier.UPLOAD, max_bytes=LARGEST_FILE)


def adapter(reference: ImageReference, options: ModelsLabOptions) -> str:
    """The id chosen by the user, or the one for the reference's kind and the model's family; "" if there is none."""
    if options.ip_adapter_id != AUTO:
        return options.ip_adapter_id
    family = family_of(options.model_id, options.model_family)
    return next((name for name, made_for in ADAPTERS.items() if made_for == (family, reference.kind)), "")


def common_problems(request: GenerationRequest, options: SharedOptions, target: str) -> Iterator[Problem]:
    """What neither endpoint can express, and options that make no sense."""
    yield from check_options(options)
    yield from _texts(options, target)
    yield from _prompt(request, options, target)
    yield from batches(request, target)
    yield from several_pictures(request, target)
    yield from several_detects(request, target, "auto_hint")
    yield from _one_scale(request, options, target)
    yield from _net_names(request, options, target)
    yield from _inpainting(request, options, target)
    yield from loras_elsewhere(request, target)


def _texts(options: SharedOptions, target: str) -> Iterator[Problem]:
    if not options.model_id.strip():
        yield Problem("model_id", "empty", f"{target} needs a model", "Enter one, e.g. realistic-vision-51.")
    if options.model_id.strip().lower() == "flux":
        yield Problem("model_id", "'flux'", "it has no ControlNet at the service", "Use fluxdev.")
    yield from web_address("webhook", options.webhook, secure=True)
    addresses = {name: value for name, value in vars(options).items() if name.endswith("_image_url") and value}
    for name, value in addresses.items():
        yield from web_address(name, value)
        if options.base64 and name not in ALWAYS_ADDRESSES:
            limit = "with base64 on, pictures travel inside the request and not as addresses"
            yield Problem(name, f"'{value}'", limit, "Switch base64 off, or empty it.")


def _prompt(request: GenerationRequest, options: SharedOptions, target: str) -> Iterator[Problem]:
    if not request.prompt.strip() and not options.guess_mode:
        yield Problem(
            "prompt", "empty", f"{target} needs one", "Write what the picture shows, or switch guess_mode on."
        )


def _one_scale(request: GenerationRequest, options: SharedOptions, target: str) -> Iterator[Problem]:
    if 0 < options.controlnet_conditioning_scale < _SMALLEST_SCALE:
        value = f"{options.controlnet_conditioning_scale:g}"
        yield Problem("controlnet_conditioning_scale", value, "it must be 0 or at least 0.1", "Set it to 0.1.")
    strengths = {control.strength for control in acting_controls(request)}
    if len(strengths) > 1 and not options.controlnet_conditioning_scale:
        value = ", ".join(f"{control.strength:g} for {control.modality.value}" for control in acting_controls(request))
        limit = f"{target} has one strength for all controls"
        remedy = "Set the same strength everywhere, or set controlnet_conditioning_scale, which then holds for all"
        yield Problem("strength", value, limit, f"{remedy}.")


def _net_names(request: GenerationRequest, options: SharedOptions, target: str) -> Iterator[Problem]:
    given, count = listed(options.controlnet_model), len(acting_controls(request))
    if given and count and len(given) != count:
        limit = f"it must have one id for each of the {count} connected controls"
        yield Problem("controlnet_model", f"'{options.controlnet_model}'", limit, "Match them, or empty it.")
    if "," in options.controlnet_type:
        yield Problem("controlnet_type", f"'{options.controlnet_type}'", f"{target} takes one", "Keep the main one.")


def named_kinds(options: SharedOptions, family: Capabilities) -> Iterator[Problem]:
    """Documented kinds in `controlnet_model` that the model's family does not have."""
    missing = {kind.value for kind in Modality} - {kind.value for kind in family.controls.modalities}
    for name in listed(options.controlnet_model):
        if name in missing:
            known = ", ".join(sorted(kind.value for kind in family.controls.modalities))
            limit = f"of the documented kinds {family.target} has {known}"
            yield Problem("controlnet_model", f"'{name}'", limit, "Use one of these, or the id of another net.")


def _inpainting(request: GenerationRequest, options: SharedOptions, target: str) -> Iterator[Problem]:
    inpaints = "inpaint" in net_names(acting_controls(request), options)
    masks = _masks(request)
    if inpaints and not masks and not options.mask_image_url:
        limit = f"{target} needs a mask for inpainting"
        yield Problem("mask", "not connected", limit, "Connect one to the Inpaint Control or to the request.")
    if not inpaints and (masks or options.mask_image_url):
        limit = f"{target} uses a mask with an inpaint control only"
        yield Problem("mask", "connected", limit, "Add an Inpaint Control, or disconnect the mask.")
    if len(masks) > 1:
        limit = f"{target} takes one mask"
        yield Problem("mask", f"connected {len(masks)} times", limit, "Keep one of them.")


def adapter_problems(request: GenerationRequest, options: ModelsLabOptions, target: str) -> Iterator[Problem]:
    """What the one IP-Adapter of the standard endpoint cannot do."""
    references = acting_references(request)
    given = {"ip_adapter_id": options.ip_adapter_id, "ip_adapter_image_url": options.ip_adapter_image_url}
    if not references:
        for name, value in given.items():
            if value not in ("", AUTO):
                limit = "there is no reference whose scale and kind could go with it"
                yield Problem(name, f"'{value}'", limit, f"Connect a reference, or leave {name} at its default.")
        return
    reference = references[0]
    if reference.image.ndim and reference.image.shape[0] > 1:
        count = reference.image.shape[0]
        yield Problem("reference 1 image", f"a batch of {count}", f"{target} takes one picture", "Pick one of them.")
    family = family_of(options.model_id, options.model_family)
    if family is Family.UNKNOWN and options.ip_adapter_id == AUTO:
        limit = f"what '{options.model_id}' is built on is not known, and each family has adapters of its own"
        yield Problem("ip_adapter_id", AUTO, limit, "Choose an adapter, or set model_family.")
    elif options.ip_adapter_id in ADAPTERS and family is not Family.FLUX:
        made_for, kind = ADAPTERS[options.ip_adapter_id]
        if made_for is not family and family is not Family.UNKNOWN:
            limit = f"it is for {made_for.value} models, and '{options.model_id}' is {family.value}"
            yield Problem("ip_adapter_id", options.ip_adapter_id, limit, "Choose auto, or set model_family.")
        elif kind is not reference.kind:
            limit = f"it is for references of the kind {kind.value}, and this is {reference.kind.value}"
            yield Problem("ip_adapter_id", options.ip_adapter_id, limit, "Choose auto, or change the reference's kind.")


def notes(request: GenerationRequest, options: SharedOptions) -> Iterator[str]:
    """What is sent although a source doubts it."""
    controls = acting_controls(request)
    scale = conditioning_scale(controls, options) if controls else 0.0
    if scale > _USUAL_SCALE:
        yield f"A control strength of {scale:g} is unusual: the documents recommend 0.5 to 1."
    if request.seed >= SEEDS and not options.random_seed:
        yield f"The seed is sent as {request.seed % SEEDS}, its lower 32 bits: the service has no larger ones."
    if steps(request, options) not in _DOCUMENTED_STEPS:
        yield f"{steps(request, options)} steps are sent; documented are 21 and 31, so the service may change them."
    known = {modality.value for modality in Modality}
    for name in listed(options.controlnet_model):
        if name not in known:
            yield f"The ControlNet '{name}' is not a documented one; your account must have it."
