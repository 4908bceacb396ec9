"""Enlarge images with ComfyUI's upscale models, which spandrel reads as in ComfyUI's own nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelUnreadable, OutOfMemory
from ..models.library import Library
from ..models.weight_files import reading
from .comfy import load_torch_file, stop_if_interrupted, tiled_scale
from .memory import ComfyMemory

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "upscale_models"

# Sizes in pixels: side of a tile, smallest side, and overlap. Smaller tiles show seams and save little memory.
TILE, SMALLEST_TILE, OVERLAP = 512, 128, 32
# ComfyUI's own estimate: bytes of memory per byte of a tile and unit of the scale.
MEMORY_FACTOR = 384


def load_upscaler(library: Library, name: str) -> Callable[[Tensor], Tensor]:
    """A function that enlarges images [batch, h, w, 3] in 0..1 with a model, on ComfyUI's device in tiles.

    Raises ModelNotFound, or ModelUnreadable for a file that is not an upscale model. The function raises OutOfMemory,
    and ComfyUI's own exception when the user stops the run.
    """
    path = library.find(FOLDER, name)
    model = _load(path)
    memory = ComfyMemory()
    managed = memory.manage(model.model)

    def run_tile(planes: Tensor) -> Tensor:
        stop_if_interrupted()
        return model(planes)

    def run_tiled(planes: Tensor, tile: int) -> Tensor:
        memory.load([managed], room=tile * tile * 3 * planes.element_size() * model.scale * MEMORY_FACTOR)
        return tiled_scale(planes, run_tile, tile, tile, OVERLAP, upscale_amount=model.scale)

    def upscale(images: Tensor) -> Tensor:
        planes = images.movedim(-1, 1).to(memory.device)
        return _retry_with_smaller_tiles(lambda tile: run_tiled(planes, tile), path).movedim(1, -1).clamp(0, 1)

    return upscale


def _load(path: Path) -> Any:
    """spandrel's descriptor of the model: it enlarges images [batch, 3, h, w] by the factor `scale`."""
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    with reading(path):
        tensors: Any = load_torch_file(str(path), safe_load=True)
        try:
            model = ModelLoader().load_from_state_dict(tensors).eval()
        except UnsupportedModelError as error:
            raise ModelUnreadable(
                f"{path} is not an upscale model of a known architecture. Choose another upscale model."
            ) from error
    channels = (model.input_channels, model.output_channels)
    if not isinstance(model, ImageModelDescriptor) or channels != (3, 3) or model.scale < 2:
        raise ModelUnreadable(
            f"{path} ({model.architecture.name}, {model.scale}x, {channels[0]} to {channels[1]} channels) does not "
            "enlarge RGB images. Choose an upscale model for RGB images of 2x or more."
        )
    return model


def _retry_with_smaller_tiles(run: Callable[[int], Tensor], path: Path) -> Tensor:
    import torch

    tile = TILE
    while True:
        try:
            return run(tile)
        except torch.OutOfMemoryError as error:
            if tile <= SMALLEST_TILE:
                raise OutOfMemory(
                    f"There is too little memory to enlarge the images with {path.name}, even in tiles of {tile} "
                    "pixels. Lower batch_size or the size, or choose a smaller upscale model."
                ) from error
        tile //= 2  # outside of the except block, whose traceback keeps the tensors of the failed run alive
