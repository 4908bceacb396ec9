"""Which detector makes the map of which modality on this machine."""

from __future__ import annotations

from ..core.errors import DetectorUnavailable
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


def find_detector(modality: Modality) -> Detector | None:
    """The detector of a modality, or None where there is none."""
    return _DETECTORS.get(modality)


def detector_for(modality: Modality) -> Detector:
    """The detector of a modality; raises DetectorUnavailable where there is none."""
    if detector := find_detector(modality):
        return detector
    raise DetectorUnavailable(
        f"detect is 'local', but this version cannot make {modality.title} maps itself. "
        f"Make the map with another node, connect it as image and set detect to 'none'."
    )
