"""The safety check: images that Stable Diffusion's safety checker flags are pixelated beyond recognition.

The checker compares CLIP's embedding of an image with those of twenty concepts, each with a threshold (Rando et al.
2022, https://arxiv.org/abs/2210.04610). It was made for SD 1, but sees only images, so it works for every family.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import OutOfMemory
from ...core.memory import Managed, Memory, is_out_of_memory
from ...core.problems import Problem, ProblemKind
from ...models.library import Library
from ...models.weight_files import reading, weight_files
from ..files.diffusers_folder import load_network
from ..model.local_model import LocalModel
from ..pil_images import to_pil

if TYPE_CHECKING:
    from torch import Tensor

# The checker's folder among ComfyUI's models, and its repository on huggingface.co.
FOLDER, CHECKER = "diffusers", "stable-diffusion-safety-checker"
PUBLISHED = "CompVis/stable-diffusion-safety-checker"

# Squares along the longer side of a flagged image. They keep its colors, and nothing of what it shows.
SQUARES = 8

CHECKER_MISSING = ProblemKind(
    "safety_checker_missing",
    "safety_check is on, but {places} does not contain the diffusers folder {folder}. Download {published} from "
    "huggingface.co into a folder of that name there, or switch safety_check off.",
)


@dataclass(frozen=True, eq=False)
class SafetyCheck:
    """`checker` is diffusers' StableDiffusionSafetyChecker, managed; `processor` prepares images for it."""

    memory: Memory
    checker: Managed
    processor: Any

    def flagged(self, images: Tensor) -> tuple[int, ...]:
        """The indices of the flagged ones among images [batch, height, width, 3] in 0..1, each checked alone.

        Raises OutOfMemory.
        """
        try:
            self.memory.load([self.checker])
            with _warning_muted():
                return tuple(index for index, image in enumerate(images) if self._flags(image))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(
                f"{self.memory.device} has too little memory for the safety check. Close other programs that use it, "
                "or switch safety_check off."
            ) from error

    def _flags(self, image: Tensor) -> bool:
        pixels = self.processor(to_pil(image), return_tensors="pt").pixel_values
        # The checker blackens the image in place, so it gets a copy.
        _, (flagged,) = self.checker.module(pixels.to(self.memory.device), [image.clone()])
        return flagged


@contextmanager
def _warning_muted() -> Generator[None]:
    """diffusers warns that flagged images are returned black, which is not true here."""
    from diffusers.pipelines.stable_diffusion import safety_checker

    def reject(_: object) -> bool:
        return False

    safety_checker.logger.addFilter(reject)
    try:
        yield
    finally:
        safety_checker.logger.removeFilter(reject)


def checker_problems(source: Path, library: Library) -> Iterator[Problem]:
    """What is missing to check the images of the model at `source`."""
    if not _has_own(source) and not library.has(FOLDER, CHECKER):
        places = library.places(FOLDER)
        yield CHECKER_MISSING("safety_check", True, False, folder=CHECKER, places=places, published=PUBLISHED)


def find_checker(source: Path, library: Library) -> Path:
    """The folder of the model's own checker, or of the library's. Raises ModelNotFound."""
    return _own(source) if _has_own(source) else library.find(FOLDER, CHECKER)


def _own(source: Path) -> Path:
    return source / "safety_checker"


def _has_own(source: Path) -> bool:
    return bool(weight_files(_own(source)))


def load_safety_check(model: LocalModel) -> SafetyCheck:
    """The safety check with the model's own checker, or the library's. Raises ModelNotFound or ModelUnreadable."""
    folder = find_checker(model.source, model.library)
    checker = model.networks.from_file(folder, lambda: load_checker(folder))
    return SafetyCheck(model.memory, checker, load_processor(folder))


def load_checker(folder: Path) -> Any:
    """diffusers' network, always in fp32, so that the same image gets the same verdict with every model.

    Raises ModelNotFound or ModelUnreadable.
    """
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    return load_network(StableDiffusionSafetyChecker, folder, torch.float32)


def load_processor(folder: Path) -> Any:
    """The image processor of the checker in `folder`: in the same folder, or beside it in a model's folder.

    Raises ModelUnreadable.
    """
    from transformers import CLIPImageProcessor

    in_folder = (folder / "preprocessor_config.json").is_file()
    place = folder if in_folder else folder.parent / "feature_extractor"
    with reading(place):
        return CLIPImageProcessor.from_pretrained(place, local_files_only=True)


def pixelate(images: Tensor) -> Tensor:
    """Images [batch, height, width, 3] as a few large squares of their mean color, in the same dtype and size."""
    from torch.nn import functional

    height, width = images.shape[1:3]
    side = max(height, width) / SQUARES
    counts = max(1, round(height / side)), max(1, round(width / side))
    squares = functional.adaptive_avg_pool2d(images.movedim(-1, 1).float(), counts)
    return functional.interpolate(squares, (height, width), mode="nearest").movedim(1, -1).to(images.dtype)


def flagged_note(flagged: Sequence[int], count: int) -> str:
    """What the user is told about the flagged images (indices from 0) out of `count`."""
    numbers = ", ".join(str(index + 1) for index in flagged)
    which = f"Image{'s' if len(flagged) > 1 else ''} {numbers} of {count}"
    was = "were" if len(flagged) > 1 else "was"
    return (
        f"{which} {was} flagged by the safety check and pixelated. Change the prompt or the seed, or switch "
        "safety_check off."
    )
