"""The nineteen kinds of control map."""

from __future__ import annotations

from enum import StrEnum


class Modality(StrEnum):
    """What a control map shows, spelled as the services document it.

    `OPENPOSE` is the body skeleton, `POSE` the whole body with hands and face.
    """

    CANNY = "canny"
    DEPTH = "depth"
    HED = "hed"
    MLSD = "mlsd"
    NORMAL = "normal"
    OPENPOSE = "openpose"
    SCRIBBLE = "scribble"
    SEGMENTATION = "segmentation"
    INPAINT = "inpaint"
    SOFTEDGE = "softedge"
    LINEART = "lineart"
    SHUFFLE = "shuffle"
    TILE = "tile"
    FACE_DETECTOR = "face_detector"
    QRCODE = "qrcode"
    BLUR = "blur"
    POSE = "pose"
    GRAY = "gray"
    LOW_QUALITY = "low_quality"

    @property
    def title(self) -> str:
        """The plain name shown to users, e.g. "Soft Edge"."""
        return _TITLES.get(self, self.value.replace("_", " ").title())

    @property
    def thin_lines(self) -> bool:
        """Whether the map is made of lines so thin that averaging would wash them out when it is reduced."""
        return self in _THIN_LINES


_TITLES = {
    Modality.HED: "HED",
    Modality.MLSD: "MLSD",
    Modality.OPENPOSE: "OpenPose",
    Modality.SOFTEDGE: "Soft Edge",
    Modality.QRCODE: "QR Code",
}
_THIN_LINES = {
    Modality.CANNY,
    Modality.MLSD,
    Modality.OPENPOSE,
    Modality.SCRIBBLE,
    Modality.LINEART,
    Modality.FACE_DETECTOR,
    Modality.POSE,
}
