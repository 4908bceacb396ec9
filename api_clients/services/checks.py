"""Rules and small conversions that several services share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ...core.images import control_image, fit_image, fit_mask, to_rgb
from ...core.problems import Problem, ProblemKind
from ...core.request import ControlUnit, Detect, GenerationRequest, ImageReference, Lora, Resize, acting

if TYPE_CHECKING:
    from torch import Tensor

SEVERAL_IMAGES = ProblemKind(
    "several_images",
    "{field} is a batch of {value} images. {target} accepts one image for all results of a request. Select one image, "
    "for example with ImageFromBatch, or queue the graph once for each.",
)
DIFFERENT_IMAGES = ProblemKind(
    "different_control_images",
    "{field} differs from the image of control {leader}. {target} accepts one image for all controls of a request. "
    "Connect the same image to every control and set detect to service, or keep one control.",
)
DIFFERENT_RESIZE = ProblemKind(
    "different_control_resize",
    "{field} is {value}, but control {leader} has {suggestion}. {target} accepts one image for all controls of a "
    "request. Set both to {suggestion}.",
)
MIXED_DETECT = ProblemKind(
    "mixed_detect",
    "detect is {value}. {target} has one switch ({switch}) for all controls. Set detect to service for all of them or "
    "for none.",
)
LORA_WITHOUT_ID = ProblemKind(
    "lora_without_remote_id",
    "{field} ('{value}') has no remote_id. {target} can use only LoRAs that are stored at the service. Set remote_id "
    "to the id of one of those, or remove the LoRA.",
)
LORA_ID_WITH_COMMA = ProblemKind(
    "lora_id_with_comma", "{field} has the remote_id '{value}'. An id contains no comma. Use one LoRA node for each id."
)
NOT_AN_ADDRESS = ProblemKind(
    "not_an_address",
    "{field} is '{value}'. It must be an address that begins with http:// or https://. Correct or clear it.",
)
NOT_A_SECURE_ADDRESS = ProblemKind(
    "not_a_secure_address",
    "{field} is '{value}'. It must be an address that begins with https://. Correct or clear it.",
)


def acting_controls(request: GenerationRequest) -> list[ControlUnit]:
    """The controls whose strength is not 0."""
    return [control for _, control in acting(request.controls)]


def acting_references(request: GenerationRequest) -> list[ImageReference]:
    """The references whose scale is not 0."""
    return [reference for _, reference in acting(request.references)]


def acting_loras(request: GenerationRequest) -> list[Lora]:
    """The LoRAs whose strength is not 0."""
    return [lora for _, lora in acting(request.loras)]


def service_detects(controls: Sequence[ControlUnit]) -> bool:
    """Whether the service computes the control maps; the same for all controls of a request without problems."""
    return any(control.detect is Detect.SERVICE for control in controls)


def plain(value: float) -> str:
    """The shortest exact decimal notation without an exponent: 1.0 -> "1", 1e-05 -> "0.00001"."""
    text = format(Decimal(repr(float(value))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def listed(text: str) -> list[str]:
    """The parts of a comma-separated list, trimmed and without empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]


def fitted_control(control: ControlUnit, request: GenerationRequest) -> Tensor:
    """[1, height, width, 3]: the control map, or the image to compute it from, at the size of the generation."""
    if control.detect is Detect.SERVICE:
        return fit_image(to_rgb(control.image), request.width, request.height, control.resize)
    return control_image(control, request.width, request.height)


def fitted_image(image: Tensor, request: GenerationRequest) -> Tensor:
    """[1, height, width, 3]: an initial image, cropped to the size of the generation."""
    return fit_image(to_rgb(image), request.width, request.height, Resize.CROP)


def fitted_mask(mask: Tensor, image: Tensor, resize: Resize, request: GenerationRequest) -> Tensor:
    """[1, height, width, 3]: the mask of an image at the size of the generation, white where it acts."""
    return to_rgb(fit_mask(mask, image, request.width, request.height, resize))


def several_images(request: GenerationRequest, target: str) -> Iterator[Problem]:
    """Controls, initial image and mask that are batches of several images. A request body carries one of each."""
    named = [("init_image", request.init_image), ("mask", request.mask)]
    for index, control in acting(request.controls):
        named += [(f"control {index} image", control.image), (f"control {index} mask", control.mask)]
    for name, image in named:
        if image is not None and image.ndim and image.shape[0] > 1:
            yield SEVERAL_IMAGES(name, image.shape[0], target=target)


def different_images(request: GenerationRequest, target: str) -> Iterator[Problem]:
    """Controls with another image than the first, for a service that accepts one control image for all controls."""
    numbered = acting(request.controls)
    for index, control in numbered[1:]:
        leader, first = numbered[0]
        name = f"control {index} ({control.modality.value})"
        if not _same_image(first.image, control.image):
            yield DIFFERENT_IMAGES(f"{name} image", leader=leader, target=target)
        elif control.resize is not first.resize and control.image.shape[1:3] != (request.height, request.width):
            suggestion = first.resize.value
            yield DIFFERENT_RESIZE(f"{name} resize", control.resize.value, suggestion, leader=leader, target=target)


def mixed_detect(request: GenerationRequest, target: str, switch: str) -> Iterator[Problem]:
    """Controls of which the service shall detect some and not others; `switch` is its one field for all of them."""
    controls = acting_controls(request)
    if len({control.detect is Detect.SERVICE for control in controls}) > 1:
        value = ", ".join(f"{control.detect.value} for {control.modality.value}" for control in controls)
        yield MIXED_DETECT("detect", value, target=target, switch=switch)


def lora_ids(request: GenerationRequest, target: str) -> Iterator[Problem]:
    """LoRAs without one id at the service."""
    for index, lora in acting(request.loras):
        remote = lora.remote_id.strip()
        if not remote:
            yield LORA_WITHOUT_ID(f"lora {index}", lora.name, target=target)
        elif "," in remote:
            yield LORA_ID_WITH_COMMA(f"lora {index}", remote)


def web_address(name: str, value: str, secure: bool = False) -> Iterator[Problem]:
    """A text that is neither empty nor a public address (https only, with `secure`)."""
    try:
        parts = urlsplit(value)
        good = parts.scheme in (("https",) if secure else ("http", "https")) and bool(parts.hostname)
    except ValueError:
        good = False
    if value and not (good and value.isascii() and value.isprintable() and " " not in value):
        yield (NOT_A_SECURE_ADDRESS if secure else NOT_AN_ADDRESS)(name, value, "")


def _same_image(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.shape == other.shape and bool((one == other).all()))
