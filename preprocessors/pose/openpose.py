"""The skeletons of all people in an image: the body, and optionally hands and face."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.modality import Modality
from ..detector import Detector, Method
from ..frames import each_frame, warn_of_empty
from ..host import Host
from ..networks.controlnet_aux import network_class
from ..networks.runtime import open_network
from ..parameters import FloatParameter, SwitchParameter, Value
from ..resolution import TRAINED_RESOLUTION, Fit, trained_resolution
from ..weights.declarations import annotators_file
from ..weights.store import obtain
from ..weights.tensors import load_state, read_state
from .crops import Box, face_box, face_points, hand_boxes, hand_points
from .part_fields import find_bodies
from .skeleton import STICK, Keypoint, Keypoints, Person, draw_people

if TYPE_CHECKING:
    from torch import Tensor, nn

STICK_WIDTH = FloatParameter(
    "stick_width",
    float(STICK),
    0.5,
    32.0,
    "Half the width of the limbs in pixels, for an image with a shorter side of 512. It scales with the image. 4 "
    "is what "
    "ControlNets were trained on. For SDXL union nets the limbs are widened automatically.",
    step=0.5,
)
NO_PERSON = "Use an image with clearly visible people, or raise resolution to find smaller ones."

_BODY_RESOLUTION = 184  # half of the size in training, as in ControlNet's annotator: it finds large people best
_STRIDE = 8
_GRID = 368  # approximate shorter side of the grid for keypoints, which is finer than the output of the network
_FACE_SIZE = 384
_HAND_SIZES = (184, 368, 552, 736)
_BODY_BYTES_PER_PIXEL, _HAND_BYTES, _FACE_BYTES = 1500, 2 * 2**30, 2**29


class OpenPose(Method):
    """OpenPose (Cao et al. 2017, Simon et al. 2017) as in ControlNet 1.1. For non-commercial use only."""

    parameters = (
        SwitchParameter("hands", False, "Also draw the fingers. Slow without a GPU."),
        SwitchParameter("face", False, "Also draw 70 points of the face."),
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
        """Outputs affinity fields [batch, 38, h, w] and heatmaps [batch, 19, h, w] at 1/8 of the size."""
        return _loaded(network_class("open_pose.model", "bodypose_model")(), files[0])

    @staticmethod
    def build_hand(*files: Path) -> nn.Module:
        """Outputs heatmaps [batch, 22, h, w] at 1/8 of the size."""
        return _loaded(network_class("open_pose.model", "handpose_model")(), files[0])

    @staticmethod
    def build_face(*files: Path) -> nn.Module:
        """Outputs heatmaps [batch, 71, h, w] at 1/8 of the size, as a list with one entry per stage."""
        network = network_class("open_pose.face", "FaceNet")()
        load_state(network, read_state(files[0]), files[0])
        return network

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import torch

        images = image.movedim(-1, 1)
        people = [[Person(body) for body in bodies] for bodies in self.bodies(images, host, int(values["resolution"]))]
        if values["hands"]:
            people = self.with_hands(people, images, host)
        if values["face"]:
            people = self.with_faces(people, images, host)
        height, width = image.shape[1:3]
        stick = float(values["stick_width"])

        def draw(frame: Tensor, index: int) -> Tensor:
            return torch.from_numpy(draw_people(people[index], height, width, stick)).float() / 255

        maps = each_frame(image, host, draw)
        warn_of_empty(maps, host, "person", NO_PERSON)
        return maps

    def bodies(self, images: Tensor, host: Host, resolution: int) -> list[list[Keypoints]]:
        """The bodies in each image of [batch, 3, height, width], in pixels of the image."""
        import torch
        from torch.nn.functional import interpolate

        network = open_network(self.build_body, tuple(obtain(weights, host) for weights in self.body_weights), host)
        height, width = images.shape[-2:]
        fit = Fit(height, width, resolution or trained_resolution(_BODY_RESOLUTION, height, width), _STRIDE)

        def infer(module: nn.Module, part: Tensor) -> Tensor:
            fields, heat = module(_normalized(fit.to_network(part)))[:2]
            return torch.cat((heat, fields), 1)

        frame_bytes = _BODY_BYTES_PER_PIXEL * math.prod(fit.padded)
        refinement = max(1, round(_GRID / max(min(fit.resized), max(fit.resized) / 4)))
        grid_height, grid_width = fit.resized[0] * refinement, fit.resized[1] * refinement
        found: list[list[Keypoints]] = []
        for output in network.run(images, infer, host, frame_bytes):
            grid = interpolate(output[None], scale_factor=_STRIDE * refinement, mode="bicubic")[0]
            grid = grid[:, :grid_height, :grid_width].numpy()
            bodies = find_bodies(grid[:19], grid[19:])
            found.append([_scaled(body, width / grid_width, height / grid_height) for body in bodies])
        return found

    def with_hands(self, people: list[list[Person]], images: Tensor, host: Host) -> list[list[Person]]:
        """The same people with the hands found at the ends of their arms."""
        import torch
        from torch.nn.functional import interpolate

        regions = [
            (index, person, side, box)
            for index, group in enumerate(people)
            for person, found in enumerate(group)
            for side, box in hand_boxes(found.body, *images.shape[-2:])
        ]
        if not regions:
            return people

        def infer(module: nn.Module, crops: Tensor) -> Tensor:
            scales: list[Tensor] = []
            for size in _HAND_SIZES:
                resized = interpolate(crops, (size, size), mode="bilinear", antialias=True)
                scales.append(interpolate(module(_normalized(resized)).float(), (128, 128), mode="bicubic"))
            return torch.stack(scales).mean(0)

        network = open_network(self.build_hand, tuple(obtain(weights, host) for weights in self.hand_weights), host)
        crops = torch.cat([_crop(images[index], box, _HAND_SIZES[-1]) for index, _, _, box in regions])
        result = [list(group) for group in people]
        for (index, person, side, box), heat in zip(regions, network.run(crops, infer, host, _HAND_BYTES), strict=True):
            result[index][person] = replace(result[index][person], **{side: hand_points(heat.numpy(), box)})
        return result

    def with_faces(self, people: list[list[Person]], images: Tensor, host: Host) -> list[list[Person]]:
        """The same people with the faces found around their noses."""
        import torch

        regions = [
            (index, person, box)
            for index, group in enumerate(people)
            for person, found in enumerate(group)
            if (box := face_box(found.body, *images.shape[-2:]))
        ]
        if not regions:
            return people

        def infer(module: nn.Module, crops: Tensor) -> Tensor:
            return module(_normalized(crops))[-1]

        network = open_network(self.build_face, tuple(obtain(weights, host) for weights in self.face_weights), host)
        crops = torch.cat([_crop(images[index], box, _FACE_SIZE) for index, _, box in regions])
        result = [list(group) for group in people]
        for (index, person, box), heat in zip(regions, network.run(crops, infer, host, _FACE_BYTES), strict=True):
            result[index][person] = replace(result[index][person], face=face_points(heat, box))
        return result


def _loaded(network: nn.Module, file: Path) -> nn.Module:
    """A body or hand network with the tensors of a file, whose names lack the first part of the network's names."""
    state = read_state(file)
    names = {name: name.partition(".")[2] for name in network.state_dict()}
    load_state(network, {name: state[short] for name, short in names.items() if short in state}, file)
    return network


def _normalized(images: Tensor) -> Tensor:
    """RGB in 0..1 as BGR in about -0.5..0.5, the input of OpenPose's networks."""
    return images.flip(1) * (255 / 256) - 0.5


def _crop(image: Tensor, box: Box, size: int) -> Tensor:
    """The box of an image [3, height, width], resized to [1, 3, size, size]."""
    from torch.nn.functional import interpolate

    part = image[None, :, box.y : box.y + box.size, box.x : box.x + box.size]
    return interpolate(part, (size, size), mode="bicubic", antialias=True).clamp(0, 1)


def _scaled(points: Sequence[Keypoint | None], x: float, y: float) -> Keypoints:
    return tuple(point and replace(point, x=(point.x + 0.5) * x - 0.5, y=(point.y + 0.5) * y - 0.5) for point in points)


OPENPOSE = Detector(
    Modality.OPENPOSE, "The body skeletons of all people in the image, in the colors of OpenPose.", (OpenPose(),)
)
