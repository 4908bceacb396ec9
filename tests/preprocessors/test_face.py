"""Faces are drawn where they are, with MediaPipe's trained landmarker on a real photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from controlstack.core.errors import DetectorUnavailable, ModelUnreadable
from controlstack.core.memory import PlainMemory
from controlstack.preprocessors.host import PlainHost
from controlstack.preprocessors.pose import face
from controlstack.preprocessors.pose.face import FACE_DETECTOR, FaceLandmarks
from controlstack.preprocessors.pose.skeleton import LEFT_EYE, LEFT_SHOULDER, NOSE, RIGHT_EYE, RIGHT_SHOULDER
from controlstack.preprocessors.weights.declarations import Weights
from controlstack.tests.preprocessors.packaged_mediapipe import face_task, mediapipe, pose_task  # noqa: F401
from controlstack.tests.preprocessors.packaged_networks import openpose
from skimage import data
from torch.nn.functional import interpolate

pytestmark = pytest.mark.slow

RIGHT_IRIS, LEFT_IRIS, LIPS, OVAL = (250, 200, 10), (10, 200, 250), (10, 180, 10), (10, 200, 10)


@pytest.fixture
def host(mediapipe: None) -> PlainHost:  # noqa: F811
    """Finds the landmarker's file as a user may have it: under its own name in a weight folder."""
    return PlainHost(PlainMemory(torch.device("cpu")), [face_task().parent])


@pytest.fixture(scope="module")
def astronaut() -> torch.Tensor:
    return torch.from_numpy(data.astronaut().copy())[None] / 255


def draw(image: torch.Tensor, host: PlainHost, **given: object) -> torch.Tensor:
    maps = FACE_DETECTOR.detect(image, host, given)
    assert maps.shape == image.shape and maps.dtype == torch.float32
    return maps


def middle_of(map_: torch.Tensor, color: tuple[int, int, int]) -> tuple[float, float]:
    ys, xs = torch.nonzero(((map_ * 255).round() == torch.tensor(color)).all(-1), as_tuple=True)
    assert len(xs), f"nothing is drawn in {color}"
    return float(xs.float().mean()), float(ys.float().mean())


def test_the_astronaut_s_eyes_mouth_and_chin_are_where_they_are(astronaut: torch.Tensor, host: PlainHost) -> None:
    map_ = draw(astronaut, host)[0]
    for color, (x, y) in {RIGHT_IRIS: (203, 101), LEFT_IRIS: (246, 103), LIPS: (223, 143)}.items():
        found = middle_of(map_, color)
        assert np.hypot(found[0] - x, found[1] - y) < 6, (color, found)
    ys, xs = torch.nonzero(map_.any(-1), as_tuple=True)
    assert 160 < xs.min() < 190 and 255 < xs.max() < 285 and 60 < ys.min() < 85 and 165 < ys.max() < 190
    assert not host.warnings


def test_two_nets_of_other_makers_see_the_same_eyes(astronaut: torch.Tensor, host: PlainHost) -> None:
    map_ = draw(astronaut, host)[0]
    (body,) = openpose().bodies(astronaut.movedim(-1, 1), host, 0)[0]
    for color, part in ((RIGHT_IRIS, RIGHT_EYE), (LEFT_IRIS, LEFT_EYE)):
        x, y = middle_of(map_, color)
        assert np.hypot(body[part].x - x, body[part].y - y) < 10


def test_openpose_s_shoulders_are_where_mediapipe_s_body_landmarker_sees_them(
    astronaut: torch.Tensor, host: PlainHost
) -> None:
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions
    from mediapipe.tasks.python.vision import PoseLandmarker, PoseLandmarkerOptions

    options = PoseLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(pose_task())))
    with PoseLandmarker.create_from_options(options) as landmarker:
        rgb = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(data.astronaut()))
        (theirs,) = landmarker.detect(rgb).pose_landmarks
    (body,) = openpose().bodies(astronaut.movedim(-1, 1), host, 0)[0]
    for part, number in ((NOSE, 0), (LEFT_SHOULDER, 11), (RIGHT_SHOULDER, 12)):
        distance = np.hypot(body[part].x - theirs[number].x * 512, body[part].y - theirs[number].y * 512)
        assert distance < 40, (part, distance)


def test_a_mirrored_face_keeps_its_colors_on_its_own_sides(astronaut: torch.Tensor, host: PlainHost) -> None:
    map_ = draw(astronaut.flip(2), host)[0]
    assert abs(middle_of(map_, LEFT_IRIS)[0] - (511 - 203)) < 6
    assert abs(middle_of(map_, RIGHT_IRIS)[0] - (511 - 246)) < 6


def test_as_many_faces_are_drawn_as_are_asked_for(astronaut: torch.Tensor, host: PlainHost) -> None:
    near = astronaut[:, :256, 96:352]
    pair = torch.cat((near, near), 2)
    both = draw(pair, host)[0].any(-1)
    assert both[:, :256].any() and both[:, 256:].any()
    one = draw(pair, host, max_faces=1)[0].any(-1)
    assert bool(one[:, :256].any()) != bool(one[:, 256:].any())


def test_lines_grow_with_the_image(astronaut: torch.Tensor, host: PlainHost) -> None:
    large = interpolate(astronaut.movedim(-1, 1), scale_factor=2, mode="bilinear").movedim(1, -1)
    small_share, large_share = (draw(image, host).any(-1).float().mean() for image in (astronaut, large))
    assert 0.75 < large_share / small_share < 1.25, "one pixel wide they would cover half as much"


def test_images_without_a_face_are_black_and_named(astronaut: torch.Tensor, host: PlainHost) -> None:
    batch = torch.cat((torch.zeros_like(astronaut), astronaut, torch.full_like(astronaut, 0.5)))
    maps = draw(batch, host)
    assert maps[1].any() and not maps[0].any() and not maps[2].any()
    assert len(host.warnings) == 1 and host.warnings[0].startswith("No face found in image 1, 3 of 3")


@pytest.mark.parametrize("size", [(8, 8), (31, 57), (640, 8)])
def test_every_size_gives_a_map(size: tuple[int, int], host: PlainHost) -> None:
    draw(torch.rand(2, *size, 3), host)


def test_the_second_run_does_not_open_the_file_again(
    astronaut: torch.Tensor, host: PlainHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = draw(astronaut, host)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read again"))
    assert torch.equal(draw(astronaut, host), first)


def test_the_user_can_stop_between_two_images(astronaut: torch.Tensor, host: PlainHost) -> None:
    def stop(done: int, total: int) -> None:
        if done == 1:
            raise InterruptedError

    host.progress = stop  # type: ignore[method-assign]
    with pytest.raises(InterruptedError):
        draw(astronaut.expand(2, -1, -1, -1), host)


def test_a_broken_file_is_named(mediapipe: None, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "face_landmarker.task").write_bytes(b"no landmarker")

    class Broken(FaceLandmarks):
        weights = (Weights("tiny", "main", "x", 1, names=("face_landmarker.task",)),)

    host = PlainHost(PlainMemory(torch.device("cpu")), [tmp_path])
    with pytest.raises(ModelUnreadable, match=r"face_landmarker\.task cannot be read.*downloads it again"):
        Broken().detect(torch.zeros(1, 16, 16, 3), None, host, max_faces=1, min_confidence=0.5)


def test_without_mediapipe_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face.importlib.util, "find_spec", lambda name: None)
    host = PlainHost(PlainMemory(torch.device("cpu")))
    with pytest.raises(DetectorUnavailable, match="pip install mediapipe"):
        FACE_DETECTOR.detect(torch.zeros(1, 16, 16, 3), host, {})
