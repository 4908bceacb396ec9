"""The kinds of control map."""

from __future__ import annotations

from enum import StrEnum


class Modality(StrEnum):
    """What a control map shows: the name that the services document, and its facts.

    title: the name shown to users, e.g. "Soft Edge".
    thin_lines: the map has lines so thin that averaging would wash them out when it is scaled down.

    `OPENPOSE` is the skeleton of the body, `POSE` that of the whole body with hands and face.
    """

    CANNY = "canny", "Canny", True
    DEPTH = "depth", "Depth"
    HED = "hed", "HED"
    MLSD = "mlsd", "MLSD", True
    NORMAL = "normal", "Normal"
    OPENPOSE = "openpose", "OpenPose", True
    SCRIBBLE = "scribble", "Scribble", True
    SEGMENTATION = "segmentation", "Segmentation"
    INPAINT = "inpaint", "Inpaint"
    SOFTEDGE = "softedge", "Soft Edge"
    LINEART = "lineart", "Lineart", True
    SHUFFLE = "shuffle", "Shuffle"
    TILE = "tile", "Tile"
    FACE_DETECTOR = "face_detector", "Face Detector", True
    QRCODE = "qrcode", "QR Code"
    BLUR = "blur", "Blur"
    POSE = "pose", "Pose", True
    GRAY = "gray", "Gray"
    LOW_QUALITY = "low_quality", "Low Quality"

    title: str  # pyright: ignore[reportIncompatibleMethodOverride]  # hides str.title, which nobody needs here
    thin_lines: bool

    def __new__(cls, name: str, title: str = "", thin_lines: bool = False) -> Modality:
        member = str.__new__(cls, name)
        member._value_ = name
        member.title = title
        member.thin_lines = thin_lines
        return member

    @property
    def node_id(self) -> str:
        """The id of its control node, e.g. "ControlStackSoftEdge". It is saved in graphs: never change a title."""
        return f"ControlStack{self.title.replace(' ', '')}"
