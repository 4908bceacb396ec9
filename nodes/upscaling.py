"""ComfyUI's upscale models, read by spandrel as its own nodes do, for pictures of twice the size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ModelUnreadable, OutOfMemory
from ..local.library import Library
from ..local.weight_files import reading
from .comfy import load_torch_file, stop_if_interrupted, tiled_scale
from .memory import ComfyMemory

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "upscale_models"

# Pixels of a tile's side and of its seam; smaller tiles than the least show more seams than they save memory.
TILE, LEAST_TILE, OVERLAP = 512, 128, 32
# What ComfyUI's node reckons with: bytes that such a network takes for each byte of a tile and step of its scale.
ROOM = 384


def load_upscaler(library: Library, name: str) -> Callable[[Tensor], Tensor]:
    """What enlarges images [batch, h, w, 3] in 0..1 by the model of that name, on ComfyUI's device and in tiles.

    Raises ModelNotFound, or ModelUnreadable for a file that is no upscale model. What it gives raises OutOfMemory, and
    ComfyUI's own exception when the user stops the run.
    """
    path = library.find(FOLDER, name)
    model = _load(path)
    memory = ComfyMemory()
    managed = memory.manage(model.model)

    def part(planes: Tensor) -> Tensor:
        stop_if_interrupted()
        return model(planes)

    def enlarged(planes: Tensor, tile: int) -> Tensor:
        memory.load([managed], room=tile * tile * 3 * planes.element_size() * model.scale * ROOM)
        return tiled_scale(planes, part, tile, tile, OVERLAP, upscale_amount=model.scale)

    def upscale(images: Tensor) -> Tensor:
        planes = images.movedim(-1, 1).to(memory.device)
        return _in_ever_smaller_tiles(lambda tile: enlarged(planes, tile), path).movedim(1, -1).clamp(0, 1)

    return upscale


def _load(path: Path) -> Any:
    """The model as spandrel describes it: called with images [batch, 3, h, w], it gives them `scale` times as large."""
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    with reading(path):
        tensors: Any = load_torch_file(str(path), safe_load=True)
        try:
            model = ModelLoader().load_from_state_dict(tensors).eval()
        except UnsupportedModelError as error:
            raise ModelUnreadable(f"{path} is not an upscale model of a kind known here. Choose another.") from error
    channels = (model.input_channels, model.output_channels)
    if not isinstance(model, ImageModelDescriptor) or channels != (3, 3) or model.scale < 2:
        raise ModelUnreadable(
            f"{path} ({model.architecture.name}, {model.scale}x, {channels[0]} to {channels[1]} channels) does not "
            "enlarge colour pictures. Choose an upscale model of 2x or more."
        )
    return model


def _in_ever_smaller_tiles(run: Callable[[int], Tensor], path: Path) -> Tensor:
    import torch

    tile = TILE
    while True:
        try:
            return run(tile)
        except torch.OutOfMemoryError as error:
            if tile <= LEAST_TILE:
                raise OutOfMemory(
                    f"There is too little memory to enlarge the pictures with {path.name}, even in tiles of {tile} "
                    "pixels. Lower batch_size or the size, or choose a smaller upscale model."
                ) from error
        tile //= 2  # outside of the except block, where the traceback keeps the tensors of the failed run alive
