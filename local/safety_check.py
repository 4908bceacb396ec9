"""The safety check: pictures that Stable Diffusion's own checker flags are handed on, but cannot be recognised.

The checker compares CLIP's embedding of a picture with those of twenty concepts, each with a threshold (Rando et al.
2022, https://arxiv.org/abs/2210.04610). It was made for SD 1, but looks at pictures, so it serves every family.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import OutOfMemory, Problem
from ..core.memory import Managed, Memory, is_out_of_memory
from .diffusers_folder import load_part
from .library import Library
from .pictures import to_picture
from .weight_files import reading, weight_files

if TYPE_CHECKING:
    from torch import Tensor

# Where it lies in ComfyUI's folders, and who publishes it on huggingface.co.
FOLDER, CHECKER = "diffusers", "stable-diffusion-safety-checker"
PUBLISHED = "CompVis/stable-diffusion-safety-checker"

# Along the longer side of a flagged picture: its colours are left, and nothing of what it shows.
SQUARES = 8


@dataclass(frozen=True, eq=False)
class SafetyCheck:
    """`checker` is diffusers' StableDiffusionSafetyChecker under management; `processor` prepares pictures for it."""

    memory: Memory
    checker: Managed
    processor: Any

    def flagged(self, images: Tensor) -> tuple[int, ...]:
        """Which of the images [batch, height, width, 3] in 0..1 are flagged, counted from 0; each by itself.

        Raises OutOfMemory.
        """
        try:
            self.memory.load([self.checker])
            with _without_its_warning():
                return tuple(index for index, image in enumerate(images) if self._flags(image))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(
                f"{self.memory.device} has too little memory for the safety check. Close other programs that use it, "
                "or switch safety_check off."
            ) from error

    def _flags(self, image: Tensor) -> bool:
        pixels = self.processor(to_picture(image), return_tensors="pt").pixel_values
        # It would blacken the picture that it is given.
        _, (flagged,) = self.checker.module(pixels.to(self.memory.device), [image.clone()])
        return flagged


@contextmanager
def _without_its_warning() -> Iterator[None]:
    """diffusers logs that flagged pictures are returned black, which is not so here."""
    from diffusers.pipelines.stable_diffusion import safety_checker

    def says_nothing(_: object) -> bool:
        return False

    safety_checker.logger.addFilter(says_nothing)
    try:
        yield
    finally:
        safety_checker.logger.removeFilter(says_nothing)


def checker_problems(source: Path, library: Library) -> Iterator[Problem]:
    """What is missing for checking the pictures of the model that came from `source`."""
    if not _has_own(source) and not library.has(FOLDER, CHECKER):
        limit = f"it needs the diffusers folder {CHECKER}, and there is none in {library.places(FOLDER)}"
        remedy = f"Put {PUBLISHED} of huggingface.co there under that name, or switch safety_check off."
        yield Problem("safety_check", "on", limit, remedy)


def find_checker(source: Path, library: Library) -> Path:
    """The folder of the model's own checker, else of the library's. Raises ModelNotFound."""
    return _own(source) if _has_own(source) else library.find(FOLDER, CHECKER)


def _own(source: Path) -> Path:
    return source / "safety_checker"


def _has_own(source: Path) -> bool:
    return bool(weight_files(_own(source)))


def load_checker(folder: Path) -> Any:
    """diffusers' network, in fp32 whatever the model computes in: the same picture always gets the same verdict.

    Raises ModelNotFound or ModelUnreadable.
    """
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    return load_part(StableDiffusionSafetyChecker, folder, torch.float32)


def load_processor(folder: Path) -> Any:
    """What prepares pictures for the checker in `folder`: it lies there, or beside it in a model's folder.

    Raises ModelUnreadable.
    """
    from transformers import CLIPImageProcessor

    together = (folder / "preprocessor_config.json").is_file()
    place = folder if together else folder.parent / "feature_extractor"
    with reading(place):
        return CLIPImageProcessor.from_pretrained(place, local_files_only=True)


def unrecognisable(images: Tensor) -> Tensor:
    """Images [batch, height, width, 3] as a few large squares, each of its mean colour, in the same format and size."""
    from torch.nn import functional

    height, width = images.shape[1:3]
    side = max(height, width) / SQUARES
    counts = max(1, round(height / side)), max(1, round(width / side))
    squares = functional.adaptive_avg_pool2d(images.movedim(-1, 1).float(), counts)
    return functional.interpolate(squares, (height, width), mode="nearest").movedim(1, -1).to(images.dtype)


def flagged_sentence(flagged: Sequence[int], count: int) -> str:
    """What the user is told about the flagged ones (counted from 0) of `count` pictures."""
    numbers = ", ".join(str(index + 1) for index in flagged)
    which = f"Picture{'s' if len(flagged) > 1 else ''} {numbers} of {count}"
    was = "were" if len(flagged) > 1 else "was"
    return (
        f"{which} {was} flagged by the safety check and made unrecognisable. Change the prompt or the seed, or switch "
        "safety_check off."
    )
