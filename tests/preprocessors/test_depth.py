"""Depth maps show near as white, keep more than 256 steps, and are what the published networks and scripts give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from controlstack.core.errors import GenerationFailed, ModelUnreadable, OutOfMemory
from controlstack.preprocessors.detector import Detector
from controlstack.preprocessors.detectors.depth import DEPTH, Depth, DepthAnything, Leres, Midas, Zoe
from controlstack.preprocessors.host import PlainHost
from controlstack.preprocessors.networks.controlnet_aux import network_class, network_module
from controlstack.preprocessors.weights.declarations import Weights
from controlstack.tests.preprocessors.fake_network import Shows, hollow, with_network
from controlstack.tests.preprocessors.packaged_networks import FastDepth
from scipy.stats import spearmanr
from skimage import data
from torch import nn
from torchvision import transforms
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

pytestmark = pytest.mark.slow


def depth(method: Depth, image: torch.Tensor, host: PlainHost, **given: object) -> torch.Tensor:
    """The map [batch, height, width] of a detector that has this method only."""
    maps = Detector(DEPTH.modality, DEPTH.summary, (method,)).detect(image, host, given)
    assert maps.shape == image.shape and maps.dtype == torch.float32
    assert torch.equal(maps[..., 0], maps[..., 2])
    return maps[..., 0]


class Ramp(nn.Module):
    """A network that finds the left of every image near: values in units of its own, e.g. 3 to 7."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        width = images.shape[-1]
        return torch.linspace(7, 3, width).expand(len(images), 1, images.shape[-2], width)


def test_depth_of_a_trained_network_agrees_with_the_stereo_measurement(host: PlainHost) -> None:
    left, _, disparity = data.stereo_motorcycle()
    method = with_network(Shows, FastDepth(), trained_at=224)
    near = depth(method, torch.from_numpy(left.copy()).float()[None] / 255, host)[0].numpy()
    known = np.isfinite(disparity)
    assert spearmanr(near[known], disparity[known]).statistic >= 0.5


@pytest.mark.parametrize("size", [(8, 8), (31, 70), (200, 97)])
def test_near_is_white_and_far_is_black_whatever_the_network_s_units(size: tuple[int, int], host: PlainHost) -> None:
    near = depth(with_network(Shows, Ramp()), torch.rand(3, *size, 3), host)
    assert near.amax() == 1 and near.amin() == 0
    assert bool((near.diff(dim=-1) < 0).all())


def test_more_steps_than_a_byte_has_survive(host: PlainHost) -> None:
    near = depth(with_network(Shows, Ramp(), trained_at=1024), torch.rand(1, 8, 1024, 3), host, resolution=8)
    assert len(near[0, 0].unique()) == 1024


def test_every_image_of_a_batch_has_its_own_range(host: PlainHost) -> None:
    class Brightness(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(1, keepdim=True)

    images = torch.rand(3, 64, 64, 3) * torch.tensor((1.0, 0.1, 0.01)).view(3, 1, 1, 1)
    near = depth(with_network(Shows, Brightness()), images, host)
    assert torch.allclose(near.amax((1, 2)), torch.ones(3)) and torch.allclose(near.amin((1, 2)), torch.zeros(3))


@pytest.mark.parametrize("value", [0.0, 3.7, -1e4])
def test_a_flat_scene_is_gray_and_says_so(value: float, host: PlainHost) -> None:
    class Wall(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full_like(images[:, :1], value)

    near = depth(with_network(Shows, Wall()), torch.zeros(2, 32, 48, 3), host)
    assert bool((near == 0.5).all())
    assert host.warnings == [
        f"The depth is the same everywhere in image {number} of 2: its map is gray." for number in (1, 2)
    ]


def test_numbers_that_are_none_are_an_error_and_not_a_map(host: PlainHost) -> None:
    class Broken(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, :1] * torch.nan

    with pytest.raises(GenerationFailed, match=r"'shows' returned NaN or infinite depths.*choose another method"):
        depth(with_network(Shows, Broken()), torch.rand(1, 16, 16, 3), host)


def test_a_device_that_is_too_small_is_named_as_the_reason(host: PlainHost) -> None:
    class Full(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemory, match="Lower the resolution input"):
        depth(with_network(Shows, Full()), torch.rand(1, 16, 16, 3), host)


def test_the_user_can_stop_between_two_images(host: PlainHost) -> None:
    def stop(done: int, total: int) -> None:
        if done == 1:
            raise InterruptedError

    host.progress = stop  # type: ignore[method-assign]
    with pytest.raises(InterruptedError):
        depth(with_network(Shows, Ramp()), torch.rand(3, 16, 16, 3), host)


# Depth Anything


@pytest.fixture(scope="module")
def tiny_depth_anything() -> DepthAnythingForDepthEstimation:
    torch.manual_seed(1)
    backbone = Dinov2Config(
        hidden_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=24,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        head_hidden_size=4,
    )
    network = DepthAnythingForDepthEstimation(config).eval()
    for parameter in network.parameters():  # as it is made it answers to nothing, and cuts off half of that at 0
        nn.init.normal_(parameter, std=0.2)
    nn.init.constant_(network.head.conv3.bias, 3.0)
    return network


class TinyDepthAnything(DepthAnything):
    """The variants of the published one, with files that a test writes."""

    sizes = {
        "small": (Weights("tiny", "main", "config.json", 1), Weights("tiny", "main", "model.safetensors", 1)),
        "base": (Weights("absent", "main", "model.safetensors", 1),),
        "large": (),
    }


@pytest.fixture
def depth_anything_host(
    host: PlainHost, tiny_depth_anything: DepthAnythingForDepthEstimation, tmp_path: Path
) -> PlainHost:
    tiny_depth_anything.save_pretrained(tmp_path / "tiny")
    host.weight_folders = (tmp_path,)
    return host


def test_depth_anything_gives_what_transformers_gives(
    depth_anything_host: PlainHost, tiny_depth_anything: DepthAnythingForDepthEstimation
) -> None:
    image = torch.rand(2, 56, 84, 3, generator=torch.Generator().manual_seed(0))
    near = depth(TinyDepthAnything(), image, depth_anything_host, resolution=56)

    processor = DPTImageProcessor(
        do_resize=False, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225], do_rescale=False
    )
    pixels = processor(images=[frame.movedim(-1, 0) for frame in image], return_tensors="pt").pixel_values
    with torch.no_grad():
        answer = tiny_depth_anything(pixel_values=pixels)
    for result, ours in zip(processor.post_process_depth_estimation(answer, [(56, 84)] * 2), near, strict=True):
        theirs = result["predicted_depth"]
        theirs = (theirs - theirs.min()) / (theirs.max() - theirs.min())
        assert (ours - theirs).abs().max() < 1 / 255


def test_a_size_that_is_no_multiple_of_its_patches_is_extended_and_not_shifted(
    depth_anything_host: PlainHost, tiny_depth_anything: DepthAnythingForDepthEstimation
) -> None:
    image = torch.rand(1, 60, 63, 3, generator=torch.Generator().manual_seed(0))
    near = depth(TinyDepthAnything(), image, depth_anything_host, resolution=60)
    mean, deviation = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    extended = nn.functional.pad(((image - mean) / deviation).movedim(-1, 1), (0, 7, 0, 10), mode="replicate")
    with torch.no_grad():
        seen = tiny_depth_anything(extended).predicted_depth[0, :60, :63]
    assert (near[0] - (seen - seen.min()) / (seen.max() - seen.min())).abs().max() < 1e-4


@pytest.mark.parametrize("size", [(8, 8), (57, 31), (90, 200)])
def test_depth_anything_takes_every_size(size: tuple[int, int], depth_anything_host: PlainHost) -> None:
    near = depth(TinyDepthAnything(), torch.rand(3, *size, 3), depth_anything_host, resolution=56)
    assert bool(near.isfinite().all())


def test_its_second_run_does_not_read_the_file_again(
    depth_anything_host: PlainHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = torch.rand(1, 28, 28, 3)
    first = depth(TinyDepthAnything(), image, depth_anything_host, resolution=28)

    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("the network was loaded again")

    monkeypatch.setattr(DepthAnythingForDepthEstimation, "from_pretrained", refuse)
    assert torch.equal(depth(TinyDepthAnything(), image, depth_anything_host, resolution=28), first)


def test_a_checkpoint_that_lacks_tensors_is_refused(depth_anything_host: PlainHost, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = tmp_path / "tiny" / "model.safetensors"
    state = load_file(file)
    state.pop("head.conv3.bias")
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ModelUnreadable, match=r"1 tensors are missing.*head\.conv3\.bias"):
        depth(TinyDepthAnything(), torch.rand(1, 28, 28, 3), depth_anything_host)


def test_the_published_sizes_are_the_published_networks() -> None:
    """The configuration that the small file was made with fits its size: 24.8 million numbers of four bytes."""
    backbone = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        out_indices=[3, 6, 9, 12],
        reshape_hidden_states=False,
    )
    with torch.device("meta"):
        network = DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=backbone))
    header = 50_000
    assert 0 < DepthAnything.sizes["small"][1].size - 4 * sum(p.numel() for p in network.parameters()) < header


# The networks of controlnet_aux


def original(module: str, name: str, *parts: object) -> object:
    return getattr(network_module(module), name)(*parts)


def test_midas_gives_what_the_original_gives(host: PlainHost) -> None:
    torch.manual_seed(0)
    network = network_class("midas.midas.dpt_depth", "DPTDepthModel")(backbone="vitb_rn50_384").eval()
    rgb = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    theirs = original("midas", "MidasDetector", network)(rgb, detect_resolution=64, image_resolution=64)
    assert theirs.std() > 10
    ours = depth(with_network(Midas, network), torch.from_numpy(rgb)[None] / 255, host, resolution=64)
    assert np.abs(ours[0].numpy() - theirs[..., 0] / 255).max() <= 1 / 255 + 1e-6


def test_leres_gets_what_it_was_trained_on_and_the_far_becomes_black(host: PlainHost) -> None:
    """As its authors' script does it. controlnet_aux feeds it BGR, and 255 times too bright."""
    torch.manual_seed(0)
    network = network_class("leres.leres.multi_depth_model_woauxi", "RelDepthModel")(backbone="resnext101").eval()
    rgb = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    prepare = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )
    with torch.no_grad():
        far = network.depth_model(prepare(rgb)[None])[0, 0]
    ours = depth(with_network(Leres, network), torch.from_numpy(rgb)[None] / 255, host, resolution=64)
    assert (ours[0] - (far.max() - far) / (far.max() - far.min())).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("method", "module", "name", "options", "wrap"),
    [
        (Midas, "midas.midas.dpt_depth", "DPTDepthModel", {"backbone": "vitb_rn50_384"}, lambda state: state),
        (
            Leres,
            "leres.leres.multi_depth_model_woauxi",
            "RelDepthModel",
            {"backbone": "resnext101"},
            lambda state: {"depth_model": {f"module.{name}": tensor for name, tensor in state.items()}},
        ),
    ],
)
def test_the_published_files_fit(
    method: type[Depth], module: str, name: str, options: dict, wrap: Callable[[dict], dict], tmp_path: Path
) -> None:
    with torch.device("meta"):
        state = network_class(module, name)(**options).state_dict()
    file = tmp_path / "published.pth"
    torch.save(wrap(hollow(state)), file)
    assert all(
        float(tensor.max()) == 0.25 for tensor in method.build(file).state_dict().values() if tensor.is_floating_point()
    )


def test_zoe_shows_metres_as_the_original_does(host: PlainHost) -> None:
    """The network itself takes half a minute for an image and has no part in this."""

    class Metres(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Parameter(torch.zeros(1))

        def infer(self, images: torch.Tensor) -> torch.Tensor:
            return 1 + 9 * images.mean(1, keepdim=True) ** 3

    rgb = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    theirs = original("zoe", "ZoeDetector", Metres())(rgb, detect_resolution=64, image_resolution=64)
    ours = depth(with_network(Zoe, Metres()), torch.from_numpy(rgb)[None] / 255, host, resolution=64)
    assert np.abs(ours[0].numpy() - theirs[..., 0] / 255).max() <= 1 / 255 + 1e-6
