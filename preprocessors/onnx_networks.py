"""Networks that come as ONNX files, run by onnxruntime where it is installed, otherwise by OpenCV."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..core.errors import DetectorUnavailable, ModelUnreadable

if TYPE_CHECKING:
    import numpy as np


class OnnxNetwork(Protocol):
    """A network with one input."""

    def run(self, values: np.ndarray) -> Sequence[np.ndarray]:
        """All outputs, in the order of the file, for float32 `values`."""
        ...


def open_onnx(file: Path, on_gpu: bool) -> OnnxNetwork:
    """The network of a file, opened once for as long as the file stays the same.

    `on_gpu` lets an onnxruntime that was built for CUDA use it; its memory is its own. Raises ModelUnreadable when the
    file is broken, and DetectorUnavailable when OpenCV cannot run it and onnxruntime is not installed.
    """
    key = (file, file.stat().st_mtime_ns, on_gpu)
    with _lock:
        if key not in _kept:
            for other in [other for other in _kept if other[0] == file]:
                del _kept[other]
            has_runtime = importlib.util.find_spec("onnxruntime") is not None
            _kept[key] = _Runtime(file, on_gpu) if has_runtime else _OpenCv(file)
        return _kept[key]


class _Runtime:
    def __init__(self, file: Path, on_gpu: bool) -> None:
        import onnxruntime

        providers = ["CPUExecutionProvider"]
        if on_gpu and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        try:
            self._session = onnxruntime.InferenceSession(file, providers=providers)
        except Exception as error:  # its classes of errors have no common base
            raise _broken(file, error) from error
        self._input = self._session.get_inputs()[0].name

    def run(self, values: np.ndarray) -> Sequence[np.ndarray]:
        answers: Any = self._session.run(None, {self._input: values})
        return answers


class _OpenCv:
    def __init__(self, file: Path) -> None:
        import cv2
        import numpy as np

        try:
            # Given a path, OpenCV opens it in the code page of Windows, which lacks letters that a path may have.
            self._network = cv2.dnn.readNetFromONNX(np.fromfile(file, np.uint8))
        except cv2.error as error:
            raise _needs_runtime(file, error) from error
        self._file = file
        self._names = self._network.getUnconnectedOutLayersNames()

    def run(self, values: np.ndarray) -> Sequence[np.ndarray]:
        import cv2

        try:
            self._network.setInput(values)
            return self._network.forward(self._names)
        except cv2.error as error:
            raise _needs_runtime(self._file, error) from error


_kept: dict[tuple[Path, int, bool], OnnxNetwork] = {}
_lock = threading.Lock()


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _broken(file: Path, error: Exception) -> ModelUnreadable:
    return ModelUnreadable(
        f"{file} cannot be read ({_reason(error)}). Move it elsewhere; it is fetched again on the next run."
    )


def _needs_runtime(file: Path, error: Exception) -> DetectorUnavailable:
    return DetectorUnavailable(
        f"OpenCV cannot run {file.name} ({_reason(error)}). Install onnxruntime with: pip install onnxruntime"
    )
