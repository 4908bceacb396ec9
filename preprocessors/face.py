"""Faces as coloured contours, found by MediaPipe's face landmarker (its Tasks interface, mediapipe 0.10 and later)."""

from __future__ import annotations

import atexit
import importlib.util
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import DetectorUnavailable, ModelUnreadable
from ..core.modality import Modality
from .detector import Detector, Method
from .frames import each_frame, warn_of_empty
from .host import Host
from .parameters import FloatParameter, IntParameter, Value
from .pixels import to_bytes
from .skeleton import DRAWN_AT, Color
from .weights import Weights, obtain

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# As CrucibleAI's face ControlNet was trained: the contours in this order, then a square on each iris.
_CONTOURS: tuple[tuple[str, Color], ...] = (
    ("FACE_LANDMARKS_FACE_OVAL", (10, 200, 10)),
    ("FACE_LANDMARKS_LEFT_EYE", (10, 200, 180)),
    ("FACE_LANDMARKS_LEFT_EYEBROW", (10, 220, 180)),
    ("FACE_LANDMARKS_RIGHT_EYE", (180, 200, 10)),
    ("FACE_LANDMARKS_RIGHT_EYEBROW", (180, 220, 10)),
    ("FACE_LANDMARKS_LIPS", (10, 180, 10)),
)
_IRISES: tuple[tuple[int, Color], ...] = ((468, (250, 200, 10)), (473, (10, 200, 250)))
_LINE, _IRIS = 2, 2  # a line's width, and half an iris's side, on a picture whose shorter side is 512


class FaceLandmarks(Method):
    """The contours of faces, eyes, brows and lips (MediaPipe, 478 landmarks)."""

    parameters = (
        IntParameter("max_faces", 10, 1, 100, "The most faces that are drawn, the surest first."),
        FloatParameter("min_confidence", 0.5, 0.01, 1.0, "How sure of a face the detector must be."),
    )
    weights = (
        Weights(
            repo="VLAAADYAAA/face-landmarker-task-model",  # Google's own file, which is not on the hub elsewhere
            revision="main",
            file="face_landmarker.task",
            size=3_758_596,
            sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
            names=("face_landmarker.task", "mediapipe/face_landmarker.task"),
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import torch

        if importlib.util.find_spec("mediapipe") is None:
            raise DetectorUnavailable(
                "Face maps need the package mediapipe, which is not installed. Install it with: pip install mediapipe"
            )
        file = obtain(self.weights[0], host)
        landmarker = _open(_Settings(file, int(values["max_faces"]), float(values["min_confidence"])))

        def draw(frame: Tensor, index: int) -> Tensor:
            picture = to_bytes(frame)
            return torch.from_numpy(draw_faces(find_faces(picture, landmarker), *picture.shape[:2])).float() / 255

        maps = each_frame(image, host, draw)
        warn_of_empty(maps, host, "face", "Lower min_confidence, or cut the picture to the face.")
        return maps


def find_faces(picture: np.ndarray, landmarker: Any) -> list[np.ndarray]:
    """The landmarks of every face in a uint8 RGB picture: [478, 2], x and y in pixels."""
    import mediapipe  # pyright: ignore[reportMissingImports]
    import numpy as np

    height, width = picture.shape[:2]
    seen = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
    return [
        np.array([(point.x * width, point.y * height) for point in face], np.float32)
        for face in landmarker.detect(seen).face_landmarks
    ]


def draw_faces(faces: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """The contours on black: uint8 RGB [height, width, 3]. Lines grow with the picture."""
    import cv2
    import numpy as np
    from mediapipe.tasks.python.vision import FaceLandmarksConnections  # pyright: ignore[reportMissingImports]

    canvas = np.zeros((height, width, 3), np.uint8)
    scale = min(height, width) / DRAWN_AT
    line, reach = max(1, round(_LINE * scale)), max(1, round(_IRIS * scale))
    for face in faces:
        pixels = np.floor(face).astype(int)
        for name, color in _CONTOURS:
            for link in getattr(FaceLandmarksConnections, name):
                cv2.line(canvas, pixels[link.start].tolist(), pixels[link.end].tolist(), color, line)
        for number, color in _IRISES:
            x, y = pixels[number].tolist()
            cv2.rectangle(canvas, (x - reach, y - reach), (x + reach - 1, y + reach - 1), color, -1)
    return canvas


@dataclass(frozen=True)
class _Settings:
    file: Path
    max_faces: int
    min_confidence: float


_kept: dict[_Settings, Any] = {}
_lock = threading.Lock()


def _open(settings: _Settings) -> Any:
    """The landmarker with these settings; the one that was used last is kept."""
    from mediapipe.tasks.python import BaseOptions  # pyright: ignore[reportMissingImports]
    from mediapipe.tasks.python.vision import FaceLandmarker, FaceLandmarkerOptions  # pyright: ignore[reportMissingImports]

    with _lock:
        if settings not in _kept:
            _close()
            options = FaceLandmarkerOptions(
                # The bytes and not the path: MediaPipe cannot open every path on Windows.
                base_options=BaseOptions(model_asset_buffer=settings.file.read_bytes()),
                num_faces=settings.max_faces,
                min_face_detection_confidence=settings.min_confidence,
            )
            try:
                _kept[settings] = FaceLandmarker.create_from_options(options)
            except (RuntimeError, ValueError) as error:
                raise ModelUnreadable(
                    f"{settings.file} cannot be read ({str(error).partition(chr(10))[0][:200]}). Move it elsewhere; it "
                    f"is fetched again on the next run."
                ) from error
        return _kept[settings]


@atexit.register
def _close() -> None:
    """While the interpreter is whole: a landmarker that is left over complains when everything else is gone."""
    while _kept:
        _kept.popitem()[1].close()


FACE_DETECTOR = Detector(
    Modality.FACE_DETECTOR, "The contours of faces, eyes, brows and lips, a colour for each.", (FaceLandmarks(),)
)
