"""Which detector makes the map of which modality."""

from __future__ import annotations

from ..core.modality import Modality
from .blur import BLUR
from .canny import CANNY
from .depth import DEPTH
from .detector import Detector
from .face import FACE_DETECTOR
from .gray import GRAY
from .inpaint import INPAINT
from .lineart import LINEART
from .low_quality import LOW_QUALITY
from .mlsd import MLSD
from .normal import NORMAL
from .openpose import OPENPOSE
from .pose import POSE
from .qrcode import QRCODE
from .scribble import SCRIBBLE
from .segmentation import SEGMENTATION
from .shuffle import SHUFFLE
from .softedge import HED, SOFTEDGE
from .tile import TILE

_ALL = (
    BLUR,
    CANNY,
    DEPTH,
    FACE_DETECTOR,
    GRAY,
    HED,
    INPAINT,
    LINEART,
    LOW_QUALITY,
    MLSD,
    NORMAL,
    OPENPOSE,
    POSE,
    QRCODE,
    SCRIBBLE,
    SEGMENTATION,
    SHUFFLE,
    SOFTEDGE,
    TILE,
)
_DETECTORS: dict[Modality, Detector] = {detector.modality: detector for detector in _ALL}


def detector_for(modality: Modality) -> Detector:
    """The detector of a modality; each has one."""
    return _DETECTORS[modality]
