"""What several services cannot express, found before anything is sent, and the small choices they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..core.errors import Problem
from ..core.images import control_image, fit_image, fit_mask, to_rgb
from ..core.request import ControlUnit, Detect, GenerationRequest, ImageReference, Lora, Resize, acting

if TYPE_CHECKING:
    from torch import Tensor


def acting_controls(request: GenerationRequest) -> list[ControlUnit]:
    """The controls that are there: strength 0 leaves one out."""
    return [control for _, control in acting(request.controls)]


def acting_references(request: GenerationRequest) -> list[ImageReference]:
    """The references that are there: scale 0 leaves one out."""
    return [reference for _, reference in acting(request.references)]


def acting_loras(request: GenerationRequest) -> list[Lora]:
    """The LoRAs that are there: strength 0 leaves one out."""
    return [lora for _, lora in acting(request.loras)]


def service_detects(controls: Sequence[ControlUnit]) -> bool:
    """Whether the service makes the maps; all controls agree about it in a request without problems."""
    return any(control.detect is Detect.SERVICE for control in controls)


def plain(value: float) -> str:
    """The shortest exact decimal writing, never with an exponent: 1.0 -> "1", 1e-05 -> "0.00001"."""
    text = format(Decimal(repr(float(value))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def listed(text: str) -> list[str]:
    """The parts of a comma list, trimmed, empty ones left out."""
    return [part.strip() for part in text.split(",") if part.strip()]


def fitted_control(control: ControlUnit, request: GenerationRequest) -> Tensor:
    """[1, height, width, 3]: the control's map, or the picture to make it from, at the size of the generation."""
    if control.detect is Detect.SERVICE:
        return fit_image(to_rgb(control.image), request.width, request.height, control.resize)
    return control_image(control, request.width, request.height)


def fitted_picture(image: Tensor, request: GenerationRequest) -> Tensor:
    """[1, height, width, 3]: an initial image filling the size of the generation."""
    return fit_image(to_rgb(image), request.width, request.height, Resize.CROP)


def fitted_mask(mask: Tensor, picture: Tensor, resize: Resize, request: GenerationRequest) -> Tensor:
    """[1, height, width, 3]: a mask of a picture at the size of the generation, white where it acts."""
    return to_rgb(fit_mask(mask, picture, request.width, request.height, resize))


def batches(request: GenerationRequest, target: str) -> Iterator[Problem]:
    """Controls, initial image and mask that hold several pictures: one body carries one of each."""
    for image in request.images():
        name, count = image.field, image.tensor.shape[0] if image.tensor.ndim else 0
        if count > 1 and not image.is_reference:
            limit = f"{target} takes one for all pictures of a request"
            yield Problem(name, f"a batch of {count}", limit, "Pick one image, and queue once for each.")


def several_pictures(request: GenerationRequest, target: str) -> Iterator[Problem]:
    """Controls that do not show the same: the service has one control image for all of them."""
    numbered = acting(request.controls)
    for index, control in numbered[1:]:
        leader, first = numbered[0]
        if not _same_image(first.image, control.image):
            limit = (
                f"{target} takes one picture for all controls of a request, and this is not that of control {leader}"
            )
            remedy = "Connect the same picture to every control and set detect to service, or keep one control"
            yield Problem(f"control {index} ({control.modality.value}) image", "another", limit, f"{remedy}.")
        elif control.resize is not first.resize and control.image.shape[1:3] != (request.height, request.width):
            limit = f"control {leader} has {first.resize.value}, and {target} takes one picture for all"
            yield Problem(
                f"control {index} ({control.modality.value}) resize", control.resize.value, limit, "Set both the same."
            )


def several_detects(request: GenerationRequest, target: str, field: str) -> Iterator[Problem]:
    """Controls of which the service shall detect some and take others as they are; `field` is its one switch."""
    controls = acting_controls(request)
    if len({control.detect is Detect.SERVICE for control in controls}) > 1:
        value = ", ".join(f"{control.detect.value} for {control.modality.value}" for control in controls)
        limit = f"{target} has one switch ({field}) for all controls"
        yield Problem("detect", value, limit, "Set it to service for all of them, or for none.")


def loras_elsewhere(request: GenerationRequest, target: str) -> Iterator[Problem]:
    """LoRAs that are not named by an id of the service."""
    for index, lora in acting(request.loras):
        remote = lora.remote_id.strip()
        if not remote:
            limit = f"{target} knows its own LoRAs only, not the files here"
            yield Problem(f"lora {index}", f"'{lora.name}'", limit, "Set remote_id to the LoRA's id at the service.")
        elif "," in remote:
            yield Problem(f"lora {index}", f"'{remote}'", "an id has no comma", "Use one LoRA node for each id.")


def web_address(name: str, value: str, secure: bool = False) -> Iterator[Problem]:
    """A text that shall be a public address; "" means that there is none."""
    try:
        parts = urlsplit(value)
        good = parts.scheme in (("https",) if secure else ("http", "https")) and bool(parts.hostname)
    except ValueError:
        good = False
    if value and not (good and value.isascii() and value.isprintable() and " " not in value):
        start = "https://" if secure else "http:// or https://"
        yield Problem(name, f"'{value}'", f"it must be an address that begins with {start}", "Correct or empty it.")


def _same_image(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.shape == other.shape and bool((one == other).all()))
