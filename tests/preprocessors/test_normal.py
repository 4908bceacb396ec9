"""Normal maps are blue towards the viewer, red to the left and green up, by network and by slope."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from controlstack.preprocessors.detector import Detector
from controlstack.preprocessors.detectors.depth import DEPTH
from controlstack.preprocessors.detectors.normal import NORMAL, NormalBae, NormalFromDepth, slopes
from controlstack.preprocessors.host import PlainHost
from controlstack.preprocessors.networks.controlnet_aux import network_class, network_module
from controlstack.tests.preprocessors.fake_network import hollow, with_network
from skimage import data
from torch import nn

pytestmark = pytest.mark.slow

RED, GREEN, BLUE = range(3)


def sphere(size: int = 201) -> tuple[torch.Tensor, torch.Tensor]:
    """The depth map of half a sphere that fills the image, and its true normals as (left, up, to the viewer)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    towards = (1 - x**2 - y**2).clamp(min=0).sqrt()
    return towards, torch.stack((-x, -y, towards), -1)


def test_a_sphere_has_the_normals_of_a_sphere() -> None:
    near, true = sphere()
    # A sphere is half as deep as it is wide.
    found = slopes(near[None], 0.5)[0] * 2 - 1
    inside = near > 0.4
    angle = torch.rad2deg((found * true).sum(-1).clamp(-1, 1).acos())[inside]
    assert angle.mean() < 2
    assert (found.norm(dim=-1) - 1).abs().max() < 1e-4


def test_the_left_of_a_sphere_is_red_its_top_green_and_its_middle_blue() -> None:
    map_ = slopes(sphere()[0][None], 0.5)[0]
    left, right, top, bottom, middle = map_[100, 30], map_[100, 170], map_[30, 100], map_[170, 100], map_[100, 100]
    assert left[RED] > 0.8 and right[RED] < 0.2
    assert top[GREEN] > 0.8 and bottom[GREEN] < 0.2
    assert middle[BLUE] > 0.99 and abs(middle[RED] - 0.5) < 0.02 and abs(middle[GREEN] - 0.5) < 0.02


def test_the_floor_of_a_measured_scene_faces_up() -> None:
    """In scikit-image's stereo pair the workshop's floor takes the lower edge of the image."""
    disparity = data.stereo_motorcycle()[2]
    known = np.isfinite(disparity)
    near = np.where(known, disparity, np.nanmedian(disparity[known]))
    near = torch.from_numpy((near - near.min()) / (near.max() - near.min())).float()
    map_ = slopes(near[None], 1.0)[0].numpy()
    floor = map_[440:, 560:700][known[440:, 560:700]]
    assert np.median(floor[:, GREEN]) > 0.6
    assert abs(np.median(floor[:, RED]) - 0.5) < 0.1


def test_more_relief_is_steeper() -> None:
    near = sphere()[0][None]
    blue = [slopes(near, relief)[0, 60, 100, BLUE] for relief in (0.1, 0.5, 3.0)]
    assert blue[0] > blue[1] > blue[2]


@pytest.mark.parametrize("size", [(8, 8), (33, 70)])
def test_a_flat_scene_faces_the_viewer(size: tuple[int, int]) -> None:
    map_ = slopes(torch.full((2, *size), 0.5), 1.0)
    assert torch.allclose(map_, torch.tensor((0.5, 0.5, 1.0)).expand(2, *size, 3))


def test_normals_come_from_the_chosen_depth_network(host: PlainHost, monkeypatch: pytest.MonkeyPatch) -> None:
    near = sphere(64)[0]

    def detect(detector: Detector, image: torch.Tensor, host: PlainHost, given: dict[str, object]) -> torch.Tensor:
        assert detector is DEPTH and given == {"method": "leres", "resolution": 96}
        return near[None, ..., None].expand(len(image), 64, 64, 3)

    monkeypatch.setattr(Detector, "detect", detect)
    map_ = NormalFromDepth().detect(
        torch.rand(2, 64, 64, 3), None, host, depth_method="leres", resolution=96, relief=0.5
    )
    assert torch.equal(map_, slopes(near[None].expand(2, 64, 64), 0.5))


class Facing(nn.Module):
    """NormalBae's answer for a wall that everywhere faces the same way."""

    def __init__(self, *direction: float) -> None:
        super().__init__()
        self.direction = torch.tensor(direction)

    def forward(self, images: torch.Tensor) -> tuple[list[torch.Tensor], None]:
        normals = self.direction.view(1, 3, 1, 1).expand(len(images), 3, *images.shape[-2:])
        return [torch.cat((normals, normals[:, :1]), 1)], None


@pytest.mark.parametrize("size", [(8, 8), (57, 31), (64, 96)])
def test_normalbae_shows_directions_as_colors(size: tuple[int, int], host: PlainHost) -> None:
    method = with_network(NormalBae, Facing(1.0, 0.0, -1.0))
    map_ = Detector(NORMAL.modality, "", (method,)).detect(torch.rand(3, *size, 3), host, {"resolution": 64})
    assert map_.shape == (3, *size, 3)
    assert torch.allclose(map_, torch.tensor((1.0, 0.5, 0.0)).expand_as(map_), atol=1e-5)


def test_normalbae_gives_what_the_original_gives(host: PlainHost) -> None:
    torch.manual_seed(0)
    options = type("Options", (), {"architecture": "BN", "sampling_ratio": 0.4, "importance_ratio": 0.7})
    network = network_class("normalbae.nets.NNET", "NNET")(options).eval()
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    original = network_module("normalbae").NormalBaeDetector(network)
    theirs = original(rgb, detect_resolution=64, image_resolution=64, output_type="np")
    assert theirs.std() > 10
    method = with_network(NormalBae, network)
    ours = Detector(NORMAL.modality, "", (method,)).detect(torch.from_numpy(rgb)[None] / 255, host, {"resolution": 64})
    assert np.abs(ours[0].numpy() - theirs / 255).max() <= 1 / 255 + 1e-6


def test_the_published_file_fits(tmp_path: Path) -> None:
    options = type("Options", (), {"architecture": "BN", "sampling_ratio": 0.4, "importance_ratio": 0.7})
    with torch.device("meta"):
        state = network_class("normalbae.nets.NNET", "NNET")(options).state_dict()
    file = tmp_path / "scannet.pt"
    torch.save({"model": {f"module.{name}": tensor for name, tensor in hollow(state).items()}}, file)
    filled = NormalBae.build(file).state_dict().values()
    assert all(float(tensor.max()) == 0.25 for tensor in filled if tensor.is_floating_point())
