"""The whole bodies of everybody in a picture: body, hands and face."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.modality import Modality
from .detector import Detector, Method
from .frames import each_frame, warn_of_empty
from .host import Host
from .onnx_networks import OnnxNetwork, open_onnx
from .openpose import STICK_WIDTH
from .parameters import SwitchParameter, Value
from .pixels import to_bytes
from .skeleton import Person, draw_people
from .weights import Weights, obtain
from .whole_body import detector_input, people_boxes, person_in, pose_input, view_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_REVISION = "1a7144101628d69ee7a3768d1ee3a094070dc388"


class DwPose(Method):
    """DWPose (Yang et al. 2023): YOLOX-L finds people, and a distilled RTMPose-L 133 keypoints of each."""

    parameters = (
        SwitchParameter("hands", True, "Draws the fingers."),
        SwitchParameter("face", True, "Draws 68 points of the face."),
        STICK_WIDTH,
    )
    weights = (
        Weights(
            "yzd-v/DWPose",
            _REVISION,
            "yolox_l.onnx",
            216_746_733,
            "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411",
            names=("yolox_l.onnx", "openpose/yolox_l.onnx"),
        ),
        Weights(
            "yzd-v/DWPose",
            _REVISION,
            "dw-ll_ucoco_384.onnx",
            134_399_116,
            "724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843",
            names=("dw-ll_ucoco_384.onnx", "openpose/dw-ll_ucoco_384.onnx"),
        ),
    )

    def networks(self, host: Host) -> tuple[OnnxNetwork, OnnxNetwork]:
        """The one that finds people and the one that finds their keypoints."""
        on_gpu = host.memory.device.type == "cuda"
        detector, pose = (open_onnx(obtain(weights, host), on_gpu) for weights in self.weights)
        return detector, pose

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import torch

        detector, pose = self.networks(host)
        height, width = image.shape[1:3]

        def draw(frame: Tensor, index: int) -> Tensor:
            people = [
                Person(
                    person.body,
                    person.left_hand if values["hands"] else (),
                    person.right_hand if values["hands"] else (),
                    person.face if values["face"] else (),
                )
                for person in find_people(to_bytes(frame), detector, pose)
            ]
            return torch.from_numpy(draw_people(people, height, width, float(values["stick_width"]))).float() / 255

        maps = each_frame(image, host, draw)
        warn_of_empty(maps, host, "person", "If somebody is there, cut the picture to them.")
        return maps


def find_people(picture: np.ndarray, detector: OnnxNetwork, pose: OnnxNetwork) -> list[Person]:
    """Everybody in a uint8 RGB picture, keypoints in its pixels."""
    people = []
    for box in people_boxes(detector.run(detector_input(picture))[0][0], *picture.shape[:2]):
        view = view_of(box)
        along_x, along_y = pose.run(pose_input(picture, view))[:2]
        people.append(person_in(view, along_x[0], along_y[0]))
    return people


POSE = Detector(
    Modality.POSE, "The skeleton of everybody in the picture with hands and face, in OpenPose's colours.", (DwPose(),)
)
