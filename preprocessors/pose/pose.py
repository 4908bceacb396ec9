"""The whole-body skeletons of all people in an image: body, hands and face."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.modality import Modality
from ..detector import Detector, Method
from ..frames import each_frame, warn_of_empty
from ..host import Host
from ..networks.onnx import OnnxNetwork, open_onnx
from ..parameters import SwitchParameter, Value
from ..pixels import to_bytes
from ..weights.declarations import Weights
from ..weights.store import obtain
from .openpose import STICK_WIDTH
from .skeleton import Person, draw_people
from .whole_body import detector_input, people_boxes, person_in, pose_input, view_around

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_REVISION = "1a7144101628d69ee7a3768d1ee3a094070dc388"


class DwPose(Method):
    """DWPose (Yang et al. 2023): YOLOX-L finds people, and a distilled RTMPose-L finds 133 keypoints of each."""

    parameters = (
        SwitchParameter("hands", True, "Draw the fingers."),
        SwitchParameter("face", True, "Draw 68 points of the face."),
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
        """The network that finds people, and the one that finds their keypoints."""
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
        warn_of_empty(maps, host, "person", "If there is a person, crop the image to that person.")
        return maps


def find_people(image: np.ndarray, detector: OnnxNetwork, pose: OnnxNetwork) -> list[Person]:
    """All people in a uint8 RGB image, with keypoints in pixels of the image."""
    people: list[Person] = []
    for box in people_boxes(detector.run(detector_input(image))[0][0], *image.shape[:2]):
        view = view_around(box)
        along_x, along_y = pose.run(pose_input(image, view))[:2]
        people.append(person_in(view, along_x[0], along_y[0]))
    return people


POSE = Detector(
    Modality.POSE,
    "The skeletons of all people in the image with hands and face, in the colors of OpenPose.",
    (DwPose(),),
)
