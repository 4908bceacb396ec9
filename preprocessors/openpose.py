"""The skeletons of everybody in a picture: the body, and on demand hands and face."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.modality import Modality
from .controlnet_aux_networks import network_class
from .detector import Detector, Method
from .frames import each_frame, warn_of_empty
from .host import Host
from .measuring import TRAINED_RESOLUTION, trained_resolution
from .networks import open_network
from .openpose_crops import Box, face_box, face_points, hand_boxes, hand_points
from .parameters import FloatParameter, SwitchParameter, Value
from .part_fields import find_bodies
from .shape import Fit
from .skeleton import STICK, Keypoint, Keypoints, Person, draw_people
from .weights import annotators_file, load_state, obtain, read_state

if TYPE_CHECKING:
    from torch import Tensor, nn

STICK_WIDTH = FloatParameter(
    "stick_width",
    float(STICK),
    0.5,
    32.0,
    "Half the width of the limbs, in pixels of a picture whose shorter side is 512; it grows with the picture. 4 is "
    "what the nets know; for SDXL union nets the limbs are widened where the map is used.",
    step=0.5,
)
NO_PERSON = "The nets were trained on people that can be seen well; a higher resolution finds smaller ones."

_SEEN_AT = 184  # half of what it was trained on, as ControlNet's annotator: large people are found best
_STRIDE = 8
_GRID = 368  # keypoints are looked for on a finer grid than the net's, of about this shorter side
_FACE_SIZE = 384
_HAND_SIZES = (184, 368, 552, 736)
_BODY_BYTES_PER_PIXEL, _HAND_BYTES, _FACE_BYTES = 1500, 2 * 2**30, 2**29


class OpenPose(Method):
    """OpenPose's nets (Cao et al. 2017, Simon et al. 2017) as ControlNet 1.1 uses them; for non-commercial use only."""

    parameters = (
        SwitchParameter("hands", False, "Draws the fingers too; takes long without a GPU."),
        SwitchParameter("face", False, "Draws 70 points of the face too."),
        STICK_WIDTH,
        TRAINED_RESOLUTION,
    )
    body_weights = (
        annotators_file(
            "openpose",
            "body_pose_model.pth",
            209_267_595,
            "25a948c16078b0f08e236bda51a385d855ef4c153598947c28c0d47ed94bb746",
        ),
    )
    hand_weights = (
        annotators_file(
            "openpose",
            "hand_pose_model.pth",
            147_341_049,
            "b76b00d1750901abd07b9f9d8c98cc3385b8fe834a26d4b4f0aad439e75fc600",
        ),
    )
    face_weights = (
        annotators_file(
            "openpose", "facenet.pth", 153_718_792, "8beb52e548624ffcc4aed12af7aee7dcbfaeea420c75609fee999fe7add79d43"
        ),
    )
    weights = body_weights + hand_weights + face_weights

    @staticmethod
    def build_body(*files: Path) -> nn.Module:
        """Gives affinity fields [batch, 38, h, w] and heatmaps [batch, 19, h, w] at an eighth of the size."""
        return _filled(network_class("open_pose.model", "bodypose_model")(), files[0])

    @staticmethod
    def build_hand(*files: Path) -> nn.Module:
        """Gives heatmaps [batch, 22, h, w] at an eighth of the size."""
        return _filled(network_class("open_pose.model", "handpose_model")(), files[0])

    @staticmethod
    def build_face(*files: Path) -> nn.Module:
        """Gives heatmaps [batch, 71, h, w] at an eighth of the size, one list entry per stage."""
        network = network_class("open_pose.face", "FaceNet")()
        load_state(network, read_state(files[0]), files[0])
        return network

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import torch

        pictures = image.movedim(-1, 1)
        people = [
            [Person(body) for body in bodies] for bodies in self.bodies(pictures, host, int(values["resolution"]))
        ]
        if values["hands"]:
            people = self.with_hands(people, pictures, host)
        if values["face"]:
            people = self.with_faces(people, pictures, host)
        height, width = image.shape[1:3]
        stick = float(values["stick_width"])

        def draw(frame: Tensor, index: int) -> Tensor:
            return torch.from_numpy(draw_people(people[index], height, width, stick)).float() / 255

        maps = each_frame(image, host, draw)
        warn_of_empty(maps, host, "person", NO_PERSON)
        return maps

    def bodies(self, pictures: Tensor, host: Host, resolution: int) -> list[list[Keypoints]]:
        """The bodies in each of [batch, 3, height, width], in pixels of the picture."""
        import torch
        from torch.nn.functional import interpolate

        network = open_network(self.build_body, tuple(obtain(weights, host) for weights in self.body_weights), host)
        height, width = pictures.shape[-2:]
        fit = Fit(height, width, resolution or trained_resolution(_SEEN_AT, height, width), _STRIDE)

        def infer(module: nn.Module, part: Tensor) -> Tensor:
            fields, heat = module(_as_trained(fit.enter(part)))[:2]
            return torch.cat((heat, fields), 1)

        room = _BODY_BYTES_PER_PIXEL * math.prod(fit.padded)
        finer = max(1, round(_GRID / max(min(fit.seen), max(fit.seen) / 4)))
        grid_height, grid_width = fit.seen[0] * finer, fit.seen[1] * finer
        found = []
        for answer in network.run(pictures, infer, host, room):
            grid = interpolate(answer[None], scale_factor=_STRIDE * finer, mode="bicubic")[0]
            grid = grid[:, :grid_height, :grid_width].numpy()
            bodies = find_bodies(grid[:19], grid[19:])
            found.append([_stretched(body, width / grid_width, height / grid_height) for body in bodies])
        return found

    def with_hands(self, people: list[list[Person]], pictures: Tensor, host: Host) -> list[list[Person]]:
        """The same people with the hands that are found at the ends of their arms."""
        import torch
        from torch.nn.functional import interpolate

        wanted = [
            (picture, person, side, box)
            for picture, group in enumerate(people)
            for person, seen in enumerate(group)
            for side, box in hand_boxes(seen.body, *pictures.shape[-2:])
        ]
        if not wanted:
            return people

        def infer(module: nn.Module, crops: Tensor) -> Tensor:
            scales = []
            for size in _HAND_SIZES:
                seen = interpolate(crops, (size, size), mode="bilinear", antialias=True)
                scales.append(interpolate(module(_as_trained(seen)).float(), (128, 128), mode="bicubic"))
            return torch.stack(scales).mean(0)

        network = open_network(self.build_hand, tuple(obtain(weights, host) for weights in self.hand_weights), host)
        crops = torch.cat([_crop(pictures[picture], box, _HAND_SIZES[-1]) for picture, _, _, box in wanted])
        result = [list(group) for group in people]
        for (picture, person, side, box), heat in zip(
            wanted, network.run(crops, infer, host, _HAND_BYTES), strict=True
        ):
            result[picture][person] = replace(result[picture][person], **{side: hand_points(heat.numpy(), box)})
        return result

    def with_faces(self, people: list[list[Person]], pictures: Tensor, host: Host) -> list[list[Person]]:
        """The same people with the faces that are found around their noses."""
        import torch

        wanted = [
            (picture, person, box)
            for picture, group in enumerate(people)
            for person, seen in enumerate(group)
            if (box := face_box(seen.body, *pictures.shape[-2:]))
        ]
        if not wanted:
            return people

        def infer(module: nn.Module, crops: Tensor) -> Tensor:
            return module(_as_trained(crops))[-1]

        network = open_network(self.build_face, tuple(obtain(weights, host) for weights in self.face_weights), host)
        crops = torch.cat([_crop(pictures[picture], box, _FACE_SIZE) for picture, _, box in wanted])
        result = [list(group) for group in people]
        for (picture, person, box), heat in zip(wanted, network.run(crops, infer, host, _FACE_BYTES), strict=True):
            result[picture][person] = replace(result[picture][person], face=face_points(heat, box))
        return result


def _filled(network: nn.Module, file: Path) -> nn.Module:
    """A body or hand net with the tensors of a file, where they are called without the part of the net they are in."""
    state = read_state(file)
    names = {name: name.partition(".")[2] for name in network.state_dict()}
    load_state(network, {name: state[short] for name, short in names.items() if short in state}, file)
    return network


def _as_trained(pictures: Tensor) -> Tensor:
    """RGB in 0..1 as OpenPose's nets know it."""
    return pictures.flip(1) * (255 / 256) - 0.5


def _crop(picture: Tensor, box: Box, size: int) -> Tensor:
    """[1, 3, size, size] for a box in a picture [3, height, width]."""
    from torch.nn.functional import interpolate

    part = picture[None, :, box.y : box.y + box.size, box.x : box.x + box.size]
    return interpolate(part, (size, size), mode="bicubic", antialias=True).clamp(0, 1)


def _stretched(points: Sequence[Keypoint | None], x: float, y: float) -> Keypoints:
    return tuple(point and replace(point, x=(point.x + 0.5) * x - 0.5, y=(point.y + 0.5) * y - 0.5) for point in points)


OPENPOSE = Detector(
    Modality.OPENPOSE, "The skeleton of everybody in the picture, in OpenPose's colours.", (OpenPose(),)
)
