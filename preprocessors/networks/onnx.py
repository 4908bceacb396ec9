"""Run ONNX files with onnxruntime if it is installed, otherwise with OpenCV."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...core.cache import Cache
from ...core.errors import DetectorUnavailable, ModelUnreadable

if TYPE_CHECKING:
    import numpy as np


class OnnxNetwork(Protocol):
    """A network with one input."""

    def run(self, values: np.ndarray) -> Sequence[np.ndarray]:
        """All outputs in the order of the file, for an input of float32 `values`."""
        ...


_networks: Cache[tuple[Path, bool], OnnxNetwork] = Cache(4)  # the two of DWPose, on a CPU and on a GPU


def open_onnx(file: Path, on_gpu: bool) -> OnnxNetwork:
    """The network of a file. It is opened once as long as the file stays the same.

    `on_gpu` lets an onnxruntime that was built for CUDA use the GPU, with memory that ComfyUI does not manage. Raises
    ModelUnreadable when the file is broken, and DetectorUnavailable when OpenCV cannot run it and onnxruntime is not
    installed.
    """

    def make() -> OnnxNetwork:
        has_runtime = importlib.util.find_spec("onnxruntime") is not None
        return _OnnxRuntime(file, on_gpu) if has_runtime else _OpenCv(file)

    return _networks.get((file, on_gpu), make, version=file.stat().st_mtime_ns)


class _OnnxRuntime:
    def __init__(self, file: Path, on_gpu: bool) -> None:
        import onnxruntime

        providers = ["CPUExecutionProvider"]
        if on_gpu and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        try:
            self._session = onnxruntime.InferenceSession(file, providers=providers)
        except Exception as error:  # its errors have no common base class
            raise _broken(file, error) from error
        self._input = self._session.get_inputs()[0].name

    def run(self, values: np.ndarray) -> Sequence[np.ndarray]:
        outputs: Any = self._session.run(None, {self._input: values})
        return outputs


class _OpenCv:
    def __init__(self, file: Path) -> None:
        import cv2
        import numpy as np

        try:
            # The bytes and not the path: on Windows OpenCV cannot open a path with letters outside of the code page.
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


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _broken(file: Path, error: Exception) -> ModelUnreadable:
    return ModelUnreadable(
        f"{file} cannot be read ({_reason(error)}). Move it elsewhere. The next run downloads it again."
    )


def _needs_runtime(file: Path, error: Exception) -> DetectorUnavailable:
    return DetectorUnavailable(
        f"OpenCV cannot run {file.name} ({_reason(error)}). Install onnxruntime with: pip install onnxruntime"
    )
