"""Twice the size with ComfyUI's upscale models: from the file to the picture, in words where a file is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from controlstack.core.images import fit_image
from controlstack.core.request import Resize
from controlstack.tests.comfy_server import ComfyServer
from controlstack.tests.server.graphs import Graph, canny_graph
from controlstack.tests.server.probe import probe
from PIL import Image
from safetensors.torch import save_file
from spandrel import ModelLoader
from torch import Tensor


def compact(scale: int, seed: int, colors: int = 3) -> dict[str, Tensor]:
    """A tiny Real-ESRGAN Compact network: it adds random detail to the enlarged picture."""
    random = torch.Generator().manual_seed(seed)
    shapes = {"body.0": (8, colors, 3, 3), "body.2": (8, 8, 3, 3), "body.4": (colors * scale**2, 8, 3, 3)}
    tensors = {f"{name}.weight": torch.randn(shape, generator=random) / 12 for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
    return tensors | {f"body.{index}.weight": torch.full((8,), 0.2) for index in (1, 3)}


@pytest.fixture(scope="module")
def upscale_models(comfy: ComfyServer) -> Iterator[Path]:
    """The folder with one file of each kind, while these tests last: the help pages list what is there."""
    folder = comfy.base / "models" / "upscale_models"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(compact(2, seed=1), folder / "twice.safetensors")
    torch.save({"params_ema": compact(4, seed=2)}, folder / "four_times.pth")
    save_file(compact(1, seed=3), folder / "repairs.safetensors")
    save_file(compact(2, seed=4, colors=1), folder / "gray.safetensors")
    save_file({"x": torch.zeros(1)}, folder / "another_thing.safetensors")
    (folder / "broken.pth").write_bytes(b"not a model")
    yield folder
    shutil.rmtree(folder)


Run = Callable[..., tuple[Image.Image, dict[str, Any]]]


def graph_with(name: str, upscale: bool = True) -> Graph:
    graph = canny_graph(7, upscale=upscale)
    graph["10"]["inputs"] |= {"width": 64, "height": 64}
    graph["21"]["inputs"]["upscale_model"] = name
    graph["31"] = {"class_type": "PreviewAny", "inputs": {"source": ["21", 1]}}
    return graph


@pytest.fixture
def run(comfy: ComfyServer, upscale_models: Path) -> Run:
    def once(name: str, upscale: bool = True) -> tuple[Image.Image, dict[str, Any]]:
        result = comfy.run(graph_with(name, upscale))
        assert result.succeeded, result.error
        (picture,) = comfy.images(result, "22")
        return picture, json.loads("".join(result.outputs["31"]["text"]))

    return once


def pixels(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB")))[None].float() / 255


@pytest.mark.parametrize(
    ("name", "tensors"), [("twice.safetensors", compact(2, seed=1)), ("four_times.pth", compact(4, seed=2))]
)
def test_the_result_is_what_the_chosen_model_makes_of_the_picture_at_exactly_twice_the_size(
    run: Run, name: str, tensors: dict[str, Tensor]
) -> None:
    small, _ = run(name, upscale=False)
    large, info = run(name)
    assert info["upscale_model"] == name
    assert (small.size, large.size) == ((64, 64), (128, 128))
    network: Any = ModelLoader().load_from_state_dict(dict(tensors))
    made = network(pixels(small).movedim(-1, 1)).movedim(1, -1).clone()
    assert (fit_image(made, 128, 128, Resize.STRETCH).clamp(0, 1) - pixels(large)).abs().mean() < 0.004
    plain = fit_image(pixels(small), 128, 128, Resize.STRETCH)
    assert (plain - pixels(large)).abs().mean() > 0.01, "a network that does nothing would show nothing"


def test_without_upscale_in_the_request_no_model_is_used_or_even_read(run: Run) -> None:
    with_model, info = run("broken.pth", upscale=False)
    without, _ = run("none (draw again)", upscale=False)
    assert info["upscale_model"] is None
    assert with_model.tobytes() == without.tobytes()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gone.pth", "'gone.pth' is not in {folder}. Put it there, or choose another file."),
        ("repairs.safetensors", "repairs.safetensors (RealESRGAN Compact, 1x, 3 to 3 channels) does not enlarge"),
        ("gray.safetensors", "gray.safetensors (RealESRGAN Compact, 2x, 1 to 1 channels) does not enlarge"),
        ("another_thing.safetensors", "another_thing.safetensors is not an upscale model of a known architecture."),
        ("broken.pth", "broken.pth cannot be read ("),
    ],
)
def test_what_is_no_upscale_model_is_a_sentence_before_anything_is_drawn(
    comfy: ComfyServer, upscale_models: Path, name: str, sentence: str
) -> None:
    result = comfy.run(graph_with(name))
    assert result.error is not None and result.error["node_id"] == "21"
    assert sentence.format(folder=upscale_models) in result.error["exception_message"]
    assert not [step for node, step, _ in result.progress if node == "21"]


SNIPPETS = {
    "tiles": """
import pack.nodes.upscaling as upscaling
from pathlib import Path
from pack.core.errors import OutOfMemory
from pack.models.library import Library
upscale = upscaling.load_upscaler(Library({"upscale_models": [Path(FOLDER)]}), "twice.safetensors")
model = upscaling._load(Path(FOLDER) / "twice.safetensors")
images = torch.rand(2, 40, 600, 3, generator=torch.Generator().manual_seed(0))
tiled, calls = upscaling.tiled_scale, []
def count(planes, part, width, *rest, **more):
    calls.append(width)
    return tiled(planes, part, width, *rest, **more)
upscaling.tiled_scale = count
whole = model(images.movedim(-1, 1)).movedim(1, -1)
found["difference"] = (upscale(images) - whole).abs().max().item()
found["tiles"] = list(calls)
""",
    "counted": """
found["models"] = [type(known.model.model).__name__ for known in mm.current_loaded_models]
""",
    "too little memory": """
def fails(planes, part, width, *rest, **more):
    calls.append(width)
    if width > enough:
        raise torch.OutOfMemoryError("no")
    return tiled(planes, part, width, *rest, **more)
upscaling.tiled_scale = fails
calls.clear()
enough = 256
found["difference"] = (upscale(images) - whole).abs().max().item()
found["tiles"] = list(calls)
calls.clear()
enough = 0
try:
    upscale(images)
except OutOfMemory as error:
    found["said"] = str(error)
found["all tiles"] = list(calls)
""",
    "stopped": """
upscaling.tiled_scale = tiled
mm.interrupt_current_processing()
try:
    upscale(images)
except mm.InterruptProcessingException:
    found["stopped"] = True
""",
}


def test_large_pictures_are_enlarged_in_tiles_within_the_memory_and_can_be_stopped(upscale_models: Path) -> None:
    first = f"FOLDER = {str(upscale_models)!r}\n" + SNIPPETS["tiles"]
    found = probe({**SNIPPETS, "tiles": first})
    assert found["tiles"]["tiles"] == [512]
    assert found["tiles"]["difference"] < 0.02, "seams that cannot be seen"
    assert found["counted"]["models"] == ["SRVGGNetCompact"], "ComfyUI counts the network among its own"
    assert found["too little memory"]["tiles"] == [512, 256]
    assert found["too little memory"]["difference"] < 0.02
    assert found["too little memory"]["all tiles"] == [512, 256, 128]
    assert found["too little memory"]["said"].startswith(
        "There is too little memory to enlarge the images with twice.safetensors, even in tiles of 128 pixels."
    )
    assert found["stopped"]["stopped"]
