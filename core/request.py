"""One description of a generation for every backend.

Images are ComfyUI tensors: float32 [batch, height, width, channel] in 0..1; masks are [batch, height, width] with 1
where they act. The values are immutable, and none of them ever prints the numbers of an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, TypeVar, cast

from .modality import Modality
from .scheduler import SchedulerChoice

if TYPE_CHECKING:
    from torch import Tensor


class Detect(StrEnum):
    """Where the control map is computed. NONE: the image already is a control map."""

    LOCAL = "local"
    SERVICE = "service"
    NONE = "none"


class Resize(StrEnum):
    """How a control map is fitted to an output of another aspect ratio.

    `CROP` fills the output and cuts the rest, `FIT` keeps the whole map and pads with black, `STRETCH` distorts it.
    """

    CROP = "crop"
    FIT = "fit"
    STRETCH = "stretch"


class ReferenceKind(StrEnum):
    """What to take from a reference image."""

    STYLE = "style"
    CHARACTER = "character"
    FACE = "face"


def describe(value: object) -> object:
    """The value as plain JSON data: images as their shapes, enums as their values, without unset fields."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"<image {'x'.join(str(n) for n in shape)}>"
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [describe(item) for item in cast("tuple[object, ...]", value)]
    if is_dataclass(value):
        pairs = ((f.name, getattr(value, f.name)) for f in fields(value))
        return {name: describe(item) for name, item in pairs if item is not None and item != () and item != ""}
    return value


class _Value:
    """Prints an image as its shape: ComfyUI keeps the repr of every input in its history when a node fails."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({describe(self)})"


@dataclass(frozen=True, eq=False, repr=False)
class ControlUnit(_Value):
    """One ControlNet in a stack.

    `image` is the control map. With `detect` SERVICE it is the image from which the service computes the map.
    `strength` is 0..2, `start` and `end` are shares of the steps in 0..1, `mask` limits the control to an area.
    """

    modality: Modality
    image: Tensor
    detect: Detect = Detect.NONE
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    resize: Resize = Resize.CROP
    mask: Tensor | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ImageReference(_Value):
    """A batch of images that guide an IP-Adapter. `scale` is 0..1, `start` and `end` are as in ControlUnit."""

    image: Tensor
    scale: float = 0.9
    kind: ReferenceKind = ReferenceKind.STYLE
    start: float = 0.0
    end: float = 1.0
    mask: Tensor | None = None


def acts_at(unit: ControlUnit | ImageReference, step: int, steps: int) -> bool:
    """Whether step 0, 1, ... of `steps` lies wholly inside the unit's window, which is when diffusers applies it."""
    return unit.start <= step / steps and (step + 1) / steps <= unit.end


@dataclass(frozen=True)
class Lora:
    """A LoRA, either a file among ComfyUI's loras (`name`) or a service's model id (`remote_id`)."""

    name: str = ""
    remote_id: str = ""
    strength: float = 1.0


Weighted = TypeVar("Weighted", ControlUnit, ImageReference, Lora)


def acting(units: Iterable[Weighted]) -> list[tuple[int, Weighted]]:
    """The units whose strength or scale is not 0, each with its number in the stack, counted from 1."""
    return [
        (number, unit)
        for number, unit in enumerate(units, 1)
        if (unit.scale if isinstance(unit, ImageReference) else unit.strength) != 0
    ]


@dataclass(frozen=True, eq=False, repr=False)
class RequestImage(_Value):
    """An image or a mask of a request, with the field's name as it appears in messages."""

    field: str
    tensor: Tensor
    is_mask: bool = False
    """Whether the shape is [batch, height, width] instead of [batch, height, width, channel]."""
    is_reference: bool = False
    """Whether it belongs to a reference, where a batch counts as several references."""


@dataclass(frozen=True, eq=False, repr=False)
class GenerationRequest(_Value):
    """Everything about a generation except where it runs.

    `width` and `height` are in pixels. `steps` counts denoising steps. `denoise` is the share of `init_image` to
    replace, 0..1. `clip_skip` is the number of the text encoder's last layers to skip.
    """

    prompt: str = ""
    negative_prompt: str = ""
    width: int = 512
    height: int = 512
    steps: int = 21
    guidance_scale: float = 7.5
    seed: int = 0
    batch_size: int = 1
    clip_skip: int = 0
    denoise: float = 1.0
    controls: tuple[ControlUnit, ...] = ()
    references: tuple[ImageReference, ...] = ()
    loras: tuple[Lora, ...] = ()
    scheduler: SchedulerChoice = field(default_factory=SchedulerChoice)
    init_image: Tensor | None = None
    mask: Tensor | None = None
    vae: str = ""
    upscale: bool = False

    def images(self) -> Iterator[RequestImage]:
        """Every image and mask that is used."""
        if self.init_image is not None:
            yield RequestImage("init_image", self.init_image)
        if self.mask is not None:
            yield RequestImage("mask", self.mask, is_mask=True)
        for index, control in acting(self.controls):
            yield RequestImage(f"control {index} image", control.image)
            if control.mask is not None:
                yield RequestImage(f"control {index} mask", control.mask, is_mask=True)
        for index, reference in acting(self.references):
            yield RequestImage(f"reference {index} image", reference.image, is_reference=True)
            if reference.mask is not None:
                yield RequestImage(f"reference {index} mask", reference.mask, is_mask=True, is_reference=True)
