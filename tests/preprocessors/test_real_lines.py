"""With really trained weights on real photos, the maps show what they should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from controlstack.core.memory import PlainMemory
from controlstack.core.modality import Modality
from controlstack.preprocessors.detector import Detector, Method
from controlstack.preprocessors.detectors.mlsd import Mlsd
from controlstack.preprocessors.detectors.scribble import HedScribble
from controlstack.preprocessors.detectors.softedge import Hed
from controlstack.preprocessors.host import PlainHost
from controlstack.preprocessors.networks import runtime as networks
from controlstack.preprocessors.parameters import Value
from controlstack.tests.preprocessors.packaged_networks import PackagedMlsd
from controlstack.tests.preprocessors.real_hed import real_hed_file
from skimage import data
from torch import nn

pytestmark = pytest.mark.slow

SIZE = 256
PHOTOS = {"astronaut": data.astronaut, "camera": data.camera, "coffee": data.coffee}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    yield
    networks._networks.clear()


def photo(name: str) -> np.ndarray:
    pixels = PHOTOS[name]()
    pixels = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, -1)
    return cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def detect(method: Method, pixels: np.ndarray, folder: Path, **values: Value) -> tuple[np.ndarray, list[str]]:
    host = PlainHost(PlainMemory(torch.device("cpu")), [folder])
    image = torch.from_numpy(pixels).float()[None] / 255
    return Detector(Modality.HED, "", (method,)).detect(image, host, values)[0, ..., 0].numpy(), host.warnings


def trained(method: type[Method], file: Path) -> Method:
    """The method with a file of ours instead of the published one."""
    weights = tuple(replace(weights, sha256="", names=(file.name,)) for weights in method.weights)
    return type(f"Trained{method.__name__}", (method,), {"weights": weights})()


def gradient(pixels: np.ndarray) -> np.ndarray:
    """How steeply the image changes, in the channel where it does most."""
    smooth = cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), 1.5)
    return np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)).max(-1)


def near(mask: np.ndarray, distance: float) -> np.ndarray:
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) <= distance


@pytest.mark.parametrize("name", PHOTOS)
def test_hed_draws_edges_where_the_photo_changes_steeply(name: str) -> None:
    file, pixels = real_hed_file(), photo(name)
    edges, _ = detect(trained(Hed, file), pixels, file.parent, safe=False, resolution=0)
    steepness = gradient(pixels)
    steep = near(steepness > np.percentile(steepness, 80), 2)
    assert steep.mean() < 0.5
    assert steep[edges > 0.6].mean() > 0.9, "a sure edge lies where the photo is steep"
    assert (edges > 0.3)[steepness > np.percentile(steepness, 97)].mean() > 0.98, "the steepest places are edges"


def test_hed_scribbles_are_strokes_along_those_edges() -> None:
    file, pixels = real_hed_file(), photo("camera")
    strokes, warnings = detect(trained(HedScribble, file), pixels, file.parent, resolution=0)
    edges, _ = detect(trained(Hed, file), pixels, file.parent, safe=False, resolution=0)
    assert set(np.unique(strokes)) == {0, 1} and not warnings
    assert near(edges > 0.5, 8)[strokes > 0].all()
    assert 0.02 < strokes.mean() < 0.4


def test_scribbles_of_a_small_photo_do_not_fill_it() -> None:
    """With the pen of an image of 512 pixels six tenths of this one were white."""
    file = real_hed_file()
    small = cv2.resize(photo("astronaut"), (128, 128), interpolation=cv2.INTER_AREA)
    strokes, _ = detect(trained(HedScribble, file), small, file.parent, resolution=0)
    assert 0.1 < strokes.mean() < 0.35


class TrainedMlsd(Mlsd):
    weights = ()

    @staticmethod
    def build(*files: Path) -> nn.Module:
        return PackagedMlsd()


def test_mlsd_finds_the_lines_of_a_checkerboard(tmp_path: Path) -> None:
    square = 25 * 3
    rgb = np.full((768, 768, 3), 128, np.uint8)  # larger than the network's 512: lines are scaled to it
    rgb[84:684, 84:684] = np.kron(data.checkerboard(), np.ones((3, 3), np.uint8))[..., None]
    grid = np.zeros((768, 768), bool)
    for line in range(84, 685, square):
        grid[84:684, line - (line == 684)] = grid[line - (line == 684), 84:684] = True
    lines, _ = detect(TrainedMlsd(), rgb, tmp_path, resolution=512)
    assert near(lines > 0, 5)[grid].mean() > 0.95, "every line is found"
    assert near(grid, 5)[lines > 0].mean() > 0.75, "what is drawn are those lines"
    assert near(grid, 5).mean() < 0.3


def test_mlsd_finds_nothing_in_fog_and_says_so(tmp_path: Path) -> None:
    lines, warnings = detect(TrainedMlsd(), np.full((512, 512, 3), 128, np.uint8), tmp_path, resolution=512)
    assert lines.max() == 0
    assert warnings == ["No straight line found in the image: the map is black there. Lower score_threshold."]
