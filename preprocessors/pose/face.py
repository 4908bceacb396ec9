"""Faces as colored contours, by MediaPipe's face landmarker (the Tasks API, mediapipe 0.10 and later)."""

from __future__ import annotations

import importlib.util
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.cache import Cache
from ...core.errors import DetectorUnavailable, ModelUnreadable
from ...core.modality import Modality
from ..detector import Detector, Method
from ..frames import each_frame, warn_of_empty
from ..host import Host
from ..parameters import FloatParameter, IntParameter, Value
from ..pixels import to_bytes
from ..weights.declarations import Weights
from ..weights.store import obtain
from .skeleton import DRAWN_AT, Color

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# As for the training of CrucibleAI's face ControlNet: the contours in this order, then a square on each iris.
_CONTOURS: tuple[tuple[str, Color], ...] = (
    ("FACE_LANDMARKS_FACE_OVAL", (10, 200, 10)),
    ("FACE_LANDMARKS_LEFT_EYE", (10, 200, 180)),
    ("FACE_LANDMARKS_LEFT_EYEBROW", (10, 220, 180)),
    ("FACE_LANDMARKS_RIGHT_EYE", (180, 200, 10)),
    ("FACE_LANDMARKS_RIGHT_EYEBROW", (180, 220, 10)),
    ("FACE_LANDMARKS_LIPS", (10, 180, 10)),
)
_IRISES: tuple[tuple[int, Color], ...] = ((468, (250, 200, 10)), (473, (10, 200, 250)))
_LINE, _IRIS = 2, 2  # width of a line, and half the side of an iris, on an image with a shorter side of 512


class FaceLandmarks(Method):
    """The contours of faces, eyes, eyebrows and lips (MediaPipe, 478 landmarks)."""

    parameters = (
        IntParameter(
            "max_faces", 10, 1, 100, "Largest number of faces to draw. Those with the best scores come first."
        ),
        FloatParameter("min_confidence", 0.5, 0.01, 1.0, "Lowest score of a face. Lower values find more faces."),
    )
    weights = (
        Weights(
            repo="VLAAADYAAA/face-landmarker-task-model",  # Google's original file; no other repository has it
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
                "This detector needs the package mediapipe, which is not installed. Install it with: pip install "
                "mediapipe"
            )
        file = obtain(self.weights[0], host)
        landmarker = _open(file, int(values["max_faces"]), float(values["min_confidence"]))

        def draw(frame: Tensor, index: int) -> Tensor:
            pixels = to_bytes(frame)
            return torch.from_numpy(draw_faces(find_faces(pixels, landmarker.task), *pixels.shape[:2])).float() / 255

        maps = each_frame(image, host, draw)
        warn_of_empty(maps, host, "face", "Lower min_confidence, or crop the image to the face.")
        return maps


def find_faces(image: np.ndarray, landmarker: Any) -> list[np.ndarray]:
    """The landmarks of each face in a uint8 RGB image: [478, 2], x and y in pixels."""
    import mediapipe  # pyright: ignore[reportMissingImports]
    import numpy as np

    height, width = image.shape[:2]
    frame = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))
    return [
        np.array([(point.x * width, point.y * height) for point in face], np.float32)
        for face in landmarker.detect(frame).face_landmarks
    ]


def draw_faces(faces: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """The contours on black: uint8 RGB [height, width, 3]. The width of lines scales with the image."""
    import cv2
    import numpy as np
    from mediapipe.tasks.python.vision import FaceLandmarksConnections  # pyright: ignore[reportMissingImports]

    canvas = np.zeros((height, width, 3), np.uint8)
    scale = min(height, width) / DRAWN_AT
    line, radius = max(1, round(_LINE * scale)), max(1, round(_IRIS * scale))
    for face in faces:
        pixels = np.floor(face).astype(int)
        for name, color in _CONTOURS:
            for link in getattr(FaceLandmarksConnections, name):
                cv2.line(canvas, pixels[link.start].tolist(), pixels[link.end].tolist(), color, line)
        for number, color in _IRISES:
            x, y = pixels[number].tolist()
            cv2.rectangle(canvas, (x - radius, y - radius), (x + radius - 1, y + radius - 1), color, -1)
    return canvas


@dataclass(frozen=True, eq=False)
class _Landmarker:
    """MediaPipe's landmarker. It is closed when this is no longer used, or before the interpreter ends."""

    task: Any

    def __post_init__(self) -> None:
        weakref.finalize(self, self.task.close)


_landmarkers: Cache[tuple[Path, int, float], _Landmarker] = Cache(1)


def _open(file: Path, max_faces: int, min_confidence: float) -> _Landmarker:
    """The landmarker with these settings. The one that was used last stays open."""
    from mediapipe.tasks.python import BaseOptions  # pyright: ignore[reportMissingImports]
    from mediapipe.tasks.python.vision import FaceLandmarker, FaceLandmarkerOptions  # pyright: ignore[reportMissingImports]

    def make() -> _Landmarker:
        options = FaceLandmarkerOptions(
            # The bytes and not the path: MediaPipe cannot open every path on Windows.
            base_options=BaseOptions(model_asset_buffer=file.read_bytes()),
            num_faces=max_faces,
            min_face_detection_confidence=min_confidence,
        )
        try:
            return _Landmarker(FaceLandmarker.create_from_options(options))
        except (RuntimeError, ValueError) as error:
            raise ModelUnreadable(
                f"{file} cannot be read ({str(error).partition(chr(10))[0][:200]}). Move it elsewhere. The next run "
                f"downloads it again."
            ) from error

    return _landmarkers.get((file, max_faces, min_confidence), make)


FACE_DETECTOR = Detector(
    Modality.FACE_DETECTOR,
    "The contours of faces, eyes, eyebrows and lips, each in its own color.",
    (FaceLandmarks(),),
)
