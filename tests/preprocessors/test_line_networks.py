"""Every method that draws lines with a network: published behavior, any image, no second load, stoppable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from controlstack.core.errors import OutOfMemory
from controlstack.core.memory import PlainMemory
from controlstack.core.modality import Modality
from controlstack.preprocessors.detector import Detector, Method
from controlstack.preprocessors.detectors import scribble
from controlstack.preprocessors.detectors.lineart import LINEART
from controlstack.preprocessors.detectors.mlsd import MLSD, Mlsd
from controlstack.preprocessors.detectors.scribble import SCRIBBLE, strokes
from controlstack.preprocessors.detectors.softedge import HED, SOFTEDGE, quantized
from controlstack.preprocessors.host import PlainHost
from controlstack.preprocessors.networks import runtime as networks
from controlstack.preprocessors.networks.controlnet_aux import network_module
from controlstack.preprocessors.parameters import Value
from controlstack.tests.preprocessors.line_networks import LINE_NETWORKS, LineNetwork
from torch import Tensor

pytestmark = pytest.mark.slow

EVERY = pytest.mark.parametrize("name", LINE_NETWORKS)
SHADES = ["hed", "pidinet", "teed", "realistic", "coarse", "anime"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight folder with random weights of every network."""
    home = tmp_path_factory.mktemp("weights")
    for network in LINE_NETWORKS.values():
        network.save(home)
    return home


@pytest.fixture(scope="module", autouse=True)
def forget() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    networks._networks.clear()


@pytest.fixture
def host(folder: Path) -> PlainHost:
    return PlainHost(PlainMemory(torch.device("cpu")), [folder])


def detect(network: LineNetwork, image: Tensor, host: PlainHost, **values: Value) -> Tensor:
    method = network.random_method()
    own = {parameter.name for parameter in method.parameters}
    size = min(image.shape[1:3]) if network.method is Mlsd else 0  # its own size, not the one it was trained on
    values = {name: value for name, value in {"resolution": size, "safe": False, **values}.items() if name in own}
    return Detector(Modality.SOFTEDGE, "", (method,)).detect(image, host, values)


def photo(batch: int, height: int, width: int) -> Tensor:
    """Something with edges, soft and hard, in the 256 shades of an image file."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    soft = torch.stack((y, x, (x - y).abs()), -1)
    frames = [torch.where((x * (3 + i) % 1 > 0.5)[..., None], soft, 1 - soft) for i in range(batch)]
    return torch.stack(frames).mul(255).round() / 255


def originals_map(network: LineNetwork, image: Tensor, folder: Path, **options: object) -> Tensor:
    """What controlnet_aux's own detector makes of one image, from the same file."""
    module, name = network.original
    weights = network.method.weights[0]
    named = {"coarse_filename": "sk_model2.pth"} if module == "lineart" else {}
    filename = Path(weights.file).name if module != "lineart" else "sk_model.pth"
    detector = getattr(network_module(module), name).from_pretrained(
        str((folder / weights.path).parent), filename=filename, **named
    )
    pixels = image[0].mul(255).round().byte().numpy()
    size = {"detect_resolution": min(pixels.shape[:2])}
    if module != "teed":
        size["image_resolution"] = size["detect_resolution"]
    return torch.from_numpy(np.array(detector(pixels, output_type="np", **size, **options))).float() / 255


# --- as published


@pytest.mark.parametrize("name", [*SHADES, "mlsd"])
def test_maps_are_those_of_controlnet_aux_to_one_of_255_shades(name: str, host: PlainHost, folder: Path) -> None:
    network = LINE_NETWORKS[name]
    image = photo(1, network.smallest, network.smallest * (1 if name == "anime" else 2))
    options = {"safe_steps": 0} if name == "teed" else {"coarse": True} if name == "coarse" else {}
    theirs = originals_map(network, image, folder, **options)
    ours = detect(network, image, host)[0]
    assert theirs.std() > 0.02, "a map of one gray would prove nothing"
    assert (ours - theirs).abs().max() <= 1.001 / 255


def test_safe_maps_have_the_three_shades_of_controlnet_1_1() -> None:
    safe_step = network_module("util").safe_step
    edges = torch.rand(1, 1, 50, 50)
    theirs = torch.from_numpy((safe_step(edges.numpy()) * 255).clip(0, 255).astype(np.uint8)) / 255
    assert (quantized(edges) - theirs).abs().max() <= 1 / 255
    assert quantized(edges).unique().tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("name", ["hed", "pidinet", "teed"])
def test_safe_quantizes_the_map_at_the_images_size(name: str, host: PlainHost) -> None:
    map_ = detect(LINE_NETWORKS[name], photo(1, 40, 56), host, safe=True, resolution=24)
    assert set(map_.unique().tolist()) <= {0, 0.5, 1}


def test_strokes_are_those_of_controlnet_aux(host: PlainHost) -> None:
    import cv2

    blobs = torch.nn.functional.interpolate(
        torch.rand(1, 1, 40, 50, generator=torch.Generator().manual_seed(3)), (512, 640), mode="bicubic"
    )
    edges = blobs.clamp(0, 1).mul(255).floor()[0, 0]
    theirs = network_module("util").nms(edges.byte().numpy(), 127, 3.0)
    theirs = cv2.GaussianBlur(theirs, (0, 0), 3.0) > 4
    ours = strokes((edges / 255)[None, ..., None].expand(1, 512, 640, 3), host)[0, ..., 0]
    assert 0.1 < theirs.mean() < 0.9
    assert torch.equal(ours.bool(), torch.from_numpy(theirs))


@pytest.mark.parametrize("side", [64, 96, 128, 256, 384, 512, 1024])
def test_the_pen_is_as_thin_as_the_image_is_small(side: int, host: PlainHost) -> None:
    """The published scribbles were drawn at 512, and a net sees a smaller map enlarged."""
    across, radius = torch.arange(side) - side / 2, side / 3
    from_line = torch.hypot(across[:, None], across) - radius
    soft_circle = (-(from_line**2) / (2 * 4.0**2)).exp()  # HED's edges are as wide at every size
    drawn = strokes(soft_circle[None, ..., None].expand(1, side, side, 3), host)[0, ..., 0]
    assert not drawn[from_line.abs() > 10].any()
    assert abs(float(drawn.sum()) / (2 * torch.pi * radius) - 12.4 * min(side, 512) / 512) < 1.5


@pytest.mark.parametrize("name", ["scribble-hed", "scribble-pidinet"])
def test_scribbles_are_the_strokes_of_controlnet_aux(
    name: str, host: PlainHost, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scribble, "_DRAWN_AT", 64)  # with their pen for an image of this size
    network, image = LINE_NETWORKS[name], photo(1, 64, 128)
    theirs = originals_map(network, image, folder, scribble=True)
    # A shade that rounds the other way can move a ridge, and with it the rim of a stroke.
    assert (detect(network, image, host)[0] != theirs).float().mean() < 0.01


# --- any image


@EVERY
@pytest.mark.parametrize("size", [(37, 53), (8, 8)], ids=["odd", "tiny"])
def test_any_size_keeps_its_size_and_each_frame_of_a_batch_is_as_alone(
    name: str, size: tuple[int, int], host: PlainHost
) -> None:
    images = photo(3, *size)
    maps = detect(LINE_NETWORKS[name], images, host)
    assert maps.shape == images.shape and maps.dtype == torch.float32
    assert maps.min() >= 0 and maps.max() <= 1 and maps.isfinite().all()
    alone = torch.cat([detect(LINE_NETWORKS[name], image[None], host) for image in images])
    assert torch.equal(maps, alone)


@EVERY
@pytest.mark.parametrize("shade", [0.0, 0.5])
def test_a_image_of_one_shade_is_no_trouble(name: str, shade: float, host: PlainHost) -> None:
    maps = detect(LINE_NETWORKS[name], torch.full((1, 24, 32, 3), shade), host)
    assert maps.shape == (1, 24, 32, 3) and maps.isfinite().all()


@EVERY
def test_resolution_changes_what_the_network_sees_and_not_the_maps_size(name: str, host: PlainHost) -> None:
    image = photo(1, 90, 60)
    own, coarser = (detect(LINE_NETWORKS[name], image, host, resolution=resolution) for resolution in (60, 30))
    assert coarser.shape == image.shape
    assert not torch.equal(own, coarser)


def test_no_line_is_a_black_map_and_a_warning(host: PlainHost) -> None:
    maps = detect(LINE_NETWORKS["mlsd"], photo(2, 32, 32), host, score_threshold=1.0)
    assert maps.max() == 0
    assert host.warnings == [
        "No straight line found in image 1, 2 of 2: the map is black there. Lower score_threshold."
    ]


# --- kept, stopped, too large


@EVERY
def test_a_second_run_reads_no_file(name: str, host: PlainHost, monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = LINE_NETWORKS[name], photo(1, 16, 16)
    detect(network, image, host)
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("the weights were read again"))
    detect(network, image, host)


@EVERY
def test_the_user_can_stop_between_two_frames(name: str, folder: Path) -> None:
    class Stopped(Exception):
        pass

    class Impatient(PlainHost):
        def progress(self, done: int, total: int) -> None:
            seen.append((done, total))
            if done == 1:
                raise Stopped

    seen: list[tuple[int, int]] = []
    with pytest.raises(Stopped):
        detect(LINE_NETWORKS[name], photo(3, 16, 16), Impatient(PlainMemory(torch.device("cpu")), [folder]))
    assert seen == [(0, 3), (1, 3)]


@EVERY
def test_too_little_memory_is_a_sentence(name: str, host: PlainHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    network, image = LINE_NETWORKS[name], photo(1, 16, 24)
    detect(network, image, host)
    monkeypatch.setattr(torch.nn.Conv2d, "forward", full)
    monkeypatch.setattr(torch.nn.functional, "conv2d", full)
    with pytest.raises(OutOfMemory, match=r"too little memory for this detector on an image of 24x16\. Lower"):
        detect(network, image, host)


# --- as the user finds them


def test_the_first_methods_are_those_the_nets_were_trained_on() -> None:
    names: dict[Modality, list[str]] = {}
    for detector in (HED, SOFTEDGE, SCRIBBLE, LINEART, MLSD):
        names[detector.modality] = [method.name for method in detector.methods]
    assert names == {
        Modality.HED: ["hed"],
        Modality.SOFTEDGE: ["pidinet", "hed", "teed"],
        Modality.SCRIBBLE: ["hed", "pidinet", "xdog"],
        Modality.LINEART: ["realistic", "coarse", "anime", "standard"],
        Modality.MLSD: ["mlsd", "opencv"],
    }


def test_published_files_are_pinned() -> None:
    methods: list[Method] = [m for d in (HED, SOFTEDGE, SCRIBBLE, LINEART, MLSD) for m in d.methods]
    for weights in (weights for method in methods for weights in method.weights):
        assert len(weights.sha256) == 64
        assert weights.size > 200_000
