"""People are found where they are, with trained weights on real photos, and as the original decoder finds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from controlstack.preprocessors.detector import Detector
from controlstack.preprocessors.host import PlainHost
from controlstack.preprocessors.networks.controlnet_aux import network_class, network_module
from controlstack.preprocessors.pose.crops import Box, face_box, face_points, hand_boxes, hand_points
from controlstack.preprocessors.pose.openpose import OPENPOSE, OpenPose
from controlstack.preprocessors.pose.skeleton import (
    BODY_COLORS,
    BODY_POINTS,
    LEFT_EAR,
    LEFT_ELBOW,
    LEFT_EYE,
    LEFT_HIP,
    LEFT_SHOULDER,
    LEFT_WRIST,
    NECK,
    NOSE,
    RIGHT_EAR,
    RIGHT_EYE,
    RIGHT_SHOULDER,
    Keypoint,
    Person,
)
from controlstack.tests.preprocessors.fake_network import with_network
from controlstack.tests.preprocessors.packaged_networks import PackagedBody, openpose
from skimage import data
from torch import nn
from torch.nn.functional import avg_pool2d

pytestmark = pytest.mark.slow

# Where they are in scikit-image's astronaut, 512x512, as one sees them. She is seen from the front: her right is left.
ASTRONAUT = {
    NOSE: (226, 122),
    NECK: (205, 262),
    RIGHT_SHOULDER: (100, 272),
    LEFT_SHOULDER: (312, 276),
    RIGHT_EYE: (208, 101),
    LEFT_EYE: (248, 102),
    RIGHT_EAR: (178, 113),
    LEFT_EAR: (278, 115),
}


@pytest.fixture(scope="module")
def trained() -> OpenPose:
    return openpose()


@pytest.fixture(scope="module")
def astronaut() -> torch.Tensor:
    return torch.from_numpy(data.astronaut().copy())[None] / 255


def _constant(network: nn.Module) -> staticmethod:
    return staticmethod(lambda *files: network)


def draw(method: OpenPose, image: torch.Tensor, host: PlainHost, **given: object) -> torch.Tensor:
    maps = Detector(OPENPOSE.modality, "", (method,)).detect(image, host, given)
    assert maps.shape == image.shape and maps.dtype == torch.float32
    return maps


def color_at(map_: torch.Tensor, x: int, y: int) -> tuple[int, ...]:
    return tuple((map_[y, x] * 255).round().int().tolist())


def test_the_astronaut_s_joints_are_where_they_are(trained: OpenPose, astronaut: torch.Tensor, host: PlainHost) -> None:
    (body,) = trained.bodies(astronaut.movedim(-1, 1), host, 0)[0]
    for part, (x, y) in ASTRONAUT.items():
        found = body[part]
        assert found is not None
        assert np.hypot(found.x - x, found.y - y) < 20, (part, found)
    assert body[LEFT_HIP] is None, "the image ends above her hips"


def test_the_map_shows_them_in_their_colors(trained: OpenPose, astronaut: torch.Tensor, host: PlainHost) -> None:
    (body,) = trained.bodies(astronaut.movedim(-1, 1), host, 0)[0]
    map_ = draw(trained, astronaut, host)[0]
    for part in ASTRONAUT:
        assert color_at(map_, round(body[part].x), round(body[part].y)) == BODY_COLORS[part]
    assert not host.warnings


def test_it_finds_what_the_original_decoder_finds(trained: OpenPose, astronaut: torch.Tensor, host: PlainHost) -> None:
    original = object.__new__(network_class("open_pose.body", "Body"))
    original.model = PackagedBody()
    candidates, subset = original((astronaut[0].numpy()[..., ::-1] * 255).round().astype(np.uint8))
    (theirs,) = original.format_body_result(candidates, subset)
    (ours,) = trained.bodies(astronaut.movedim(-1, 1), host, 184)[0]
    for a, b in zip(ours, theirs.keypoints, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert np.hypot(a.x - b.x, a.y - b.y) < 6


def test_a_mirrored_image_gives_the_mirrored_skeleton(
    trained: OpenPose, astronaut: torch.Tensor, host: PlainHost
) -> None:
    (body,) = trained.bodies(astronaut.flip(2).movedim(-1, 1), host, 0)[0]
    mirrored = {RIGHT_EYE: LEFT_EYE, LEFT_EYE: RIGHT_EYE, RIGHT_SHOULDER: LEFT_SHOULDER, LEFT_SHOULDER: RIGHT_SHOULDER}
    for part, original in mirrored.items():
        x, y = ASTRONAUT[original]
        assert np.hypot(body[part].x - (511 - x), body[part].y - y) < 20


@pytest.mark.parametrize("scale", [0.5, 2])
def test_a_image_of_another_size_gives_the_same_skeleton(
    scale: float, trained: OpenPose, astronaut: torch.Tensor, host: PlainHost
) -> None:
    image = nn.functional.interpolate(astronaut.movedim(-1, 1), scale_factor=scale, mode="bilinear", antialias=True)
    (body,) = trained.bodies(image, host, 0)[0]
    for part in (NOSE, RIGHT_EYE, LEFT_EYE):
        x, y = ASTRONAUT[part]
        assert np.hypot(body[part].x / scale - x, body[part].y / scale - y) < 12


def test_two_people_are_two_skeletons(trained: OpenPose, astronaut: torch.Tensor, host: PlainHost) -> None:
    pair = torch.cat((astronaut[:, :, :400], astronaut[:, :, :400]), 2)
    bodies = trained.bodies(pair.movedim(-1, 1), host, 0)[0]
    assert sorted(round(body[NOSE].x / 100) for body in bodies) == [2, 6]


def test_images_without_anybody_are_black_and_named(
    trained: OpenPose, astronaut: torch.Tensor, host: PlainHost
) -> None:
    batch = torch.cat((astronaut, torch.zeros_like(astronaut), torch.full_like(astronaut, 0.5)))
    maps = draw(trained, batch, host)
    assert maps[0].any() and not maps[1:].any()
    assert len(host.warnings) == 1 and host.warnings[0].startswith("No person found in image 2, 3 of 3")


@pytest.mark.parametrize("size", [(8, 8), (31, 57), (640, 8)])
def test_every_size_gives_a_map(size: tuple[int, int], trained: OpenPose, host: PlainHost) -> None:
    draw(trained, torch.rand(2, *size, 3), host)


def test_a_wider_stick_covers_more(trained: OpenPose, astronaut: torch.Tensor, host: PlainHost) -> None:
    thin, wide = (draw(trained, astronaut, host, stick_width=width).any(-1).sum() for width in (4.0, 8.0))
    assert 1.5 < wide / thin < 2.6


# Hands and faces


def body_of(places: Mapping[int, tuple[float, float]]) -> tuple[Keypoint | None, ...]:
    return tuple(Keypoint(*places[part]) if part in places else None for part in range(BODY_POINTS))


def original_body(body: tuple[Keypoint | None, ...]) -> object:
    keypoint, result = network_class("open_pose.body", "Keypoint"), network_class("open_pose.body", "BodyResult")
    return result([at and keypoint(at.x, at.y) for at in body], 1.0, 18)


@pytest.mark.parametrize("seed", range(20))
def test_hands_are_looked_for_where_the_original_looks(seed: int) -> None:
    random = np.random.default_rng(seed)
    body = tuple(Keypoint(*map(float, place)) for place in random.integers(0, 400, (BODY_POINTS, 2)))
    expected = network_module("open_pose.util").handDetect(original_body(body), np.zeros((400, 400, 3)))
    found = [(box.x, box.y, box.size, side == "left_hand") for side, box in hand_boxes(body, 400, 400)]
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):  # left before right
        assert np.abs(np.subtract(ours, theirs)).max() <= 1, "it rounds the size before the corner"
        assert ours[0] + ours[2] <= 400 and ours[1] + ours[2] <= 400


def test_a_face_is_looked_for_around_the_nose() -> None:
    body = body_of({NOSE: (200, 200), LEFT_EYE: (220, 180), RIGHT_EYE: (185, 182), LEFT_EAR: (250, 190)})
    assert face_box(body, 512, 512) == Box(125, 125, 150)
    assert network_module("open_pose.util").faceDetect(original_body(body), np.zeros((512, 512, 3))) == (125, 125, 150)
    assert face_box(body_of({NOSE: (200, 200)}), 512, 512) is None
    assert face_box(body_of({LEFT_EYE: (220, 180)}), 512, 512) is None
    at_the_edge = face_box(body_of({NOSE: (500, 500), LEFT_EYE: (470, 480)}), 512, 512)
    assert at_the_edge is not None and at_the_edge.x + at_the_edge.size <= 512


class Brightest(nn.Module):
    """Takes each third of the colors' sum for a joint: every map is hot where the image is bright."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.place = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return avg_pool2d((images + 0.5).mean(1, keepdim=True), 8).expand(-1, self.channels, -1, -1)


class Faces(Brightest):
    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [torch.zeros(1), super().forward(images)]


@pytest.fixture
def with_parts(monkeypatch: pytest.MonkeyPatch) -> OpenPose:
    """Sees one person in each image, with an arm from (100, 100) to (200, 200) and the nose at (300, 100)."""
    body = body_of(
        {
            LEFT_SHOULDER: (100, 100),
            LEFT_ELBOW: (150, 150),
            LEFT_WRIST: (200, 200),
            NOSE: (300, 100),
            LEFT_EYE: (320, 90),
            RIGHT_EYE: (280, 90),
        }
    )
    method = with_network(
        OpenPose,
        nn.Identity(),
        hand_weights=(),
        face_weights=(),
        build_hand=_constant(Brightest(22)),
        build_face=_constant(Faces(71)),
    )
    monkeypatch.setattr(type(method), "bodies", lambda self, images, host, resolution: [[body]] * len(images))
    return method


def test_hands_and_faces_are_found_in_the_image(with_parts: OpenPose, host: PlainHost) -> None:
    image = torch.zeros(2, 400, 400, 3)
    image[0, 215:225, 225:235] = 1  # in the square of the hand
    image[1, 95:105, 325:335] = 1  # in the square of the face
    people = with_parts.with_faces(
        with_parts.with_hands(
            [[Person(body) for body in group] for group in with_parts.bodies(image, host, 0)],
            image.movedim(-1, 1),
            host,
        ),
        image.movedim(-1, 1),
        host,
    )
    (with_hand,), (with_face,) = people
    assert len(with_hand.left_hand) == 21 and with_hand.right_hand == ()
    assert all(np.hypot(point.x - 229.5, point.y - 219.5) < 4 for point in with_hand.left_hand if point)
    assert with_face.left_hand == (), "nothing is bright there"
    assert len(with_face.face) == 70, "the background is no point of the face"
    assert all(np.hypot(point.x - 329.5, point.y - 99.5) < 6 for point in with_face.face if point)


def test_hands_and_face_are_drawn_only_on_demand(with_parts: OpenPose, host: PlainHost) -> None:
    image = torch.zeros(1, 400, 400, 3)
    image[0, 215:225, 225:235] = 1
    image[0, 95:105, 325:335] = 1
    plain = draw(with_parts, image, host)[0]
    full = draw(with_parts, image, host, hands=True, face=True)[0]
    assert color_at(plain, 230, 220) == color_at(plain, 330, 100) == (0, 0, 0)
    assert color_at(full, 230, 220) == (0, 0, 255)
    assert bool((full[94:107, 324:337] == 1).all(-1).any())


def test_a_hand_s_points_are_those_of_the_original(host: PlainHost) -> None:
    """On the same heatmaps: twenty-one blobs at places of their own."""
    random = np.random.default_rng(0)
    middles = random.integers(15, 113, (21, 2))
    y, x = np.mgrid[0:128, 0:128]
    heat = np.stack([np.exp(-((x - a) ** 2 + (y - b) ** 2) / 50) for a, b in middles]).astype(np.float32)
    points = hand_points(heat, Box(1000, 2000, 256))
    assert all(
        abs(point.x - (1000 + 2 * a + 0.5)) < 1 and abs(point.y - (2000 + 2 * b + 0.5)) < 1
        for point, (a, b) in zip(points, middles, strict=True)
    )
    assert hand_points(np.zeros((21, 128, 128), np.float32), Box(0, 0, 100)) == ()
    lone = hand_points(np.where(np.arange(21)[:, None, None] == 7, heat, 0), Box(0, 0, 128))
    assert [number for number, point in enumerate(lone) if point] == [7]


def test_a_face_without_features_has_no_points() -> None:
    assert face_points(torch.zeros(71, 48, 48), Box(0, 0, 100)) == ()


def test_the_nets_are_filled_from_the_published_files(tmp_path: Path) -> None:
    """Body and hand files call the tensors without the block they are in; the face's calls them as they are."""
    for name, build, module, net in (
        ("body", OpenPose.build_body, "open_pose.model", "bodypose_model"),
        ("hand", OpenPose.build_hand, "open_pose.model", "handpose_model"),
        ("face", OpenPose.build_face, "open_pose.face", "FaceNet"),
    ):
        state = network_class(module, net)().state_dict()
        published = {
            key if name == "face" else key.partition(".")[2]: torch.full((1,), 0.25 + number).expand(value.shape)
            for number, (key, value) in enumerate(state.items())
        }
        torch.save(published, tmp_path / f"{name}.pth")
        filled = build(tmp_path / f"{name}.pth").state_dict()
        assert [float(value.flatten()[0]) for value in filled.values()] == [0.25 + n for n in range(len(state))]
