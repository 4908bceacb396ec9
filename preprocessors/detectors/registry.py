"""The detector of each modality."""

from __future__ import annotations

from collections.abc import Mapping

from ...core.modality import Modality
from ..detector import Detector
from ..pose.face import FACE_DETECTOR
from ..pose.openpose import OPENPOSE
from ..pose.pose import POSE
from .canny import CANNY
from .depth import DEPTH
from .filters import BLUR, GRAY, LOW_QUALITY, TILE
from .inpaint import INPAINT
from .lineart import LINEART
from .mlsd import MLSD
from .normal import NORMAL
from .qrcode import QRCODE
from .scribble import SCRIBBLE
from .segmentation import SEGMENTATION
from .shuffle import SHUFFLE
from .softedge import HED, SOFTEDGE

DETECTORS: Mapping[Modality, Detector] = {
    detector.modality: detector
    for detector in (
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
}


def detector_for(modality: Modality) -> Detector:
    """The detector of a modality. Each modality has one."""
    return DETECTORS[modality]
