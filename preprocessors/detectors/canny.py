"""Edges by the Canny detector."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ...core.images import to_rgb
from ...core.modality import Modality
from ..detector import Detector, Method
from ..frames import warn_of_empty
from ..host import Host
from ..parameters import IntParameter, Value
from ..pixels import to_bytes

if TYPE_CHECKING:
    from torch import Tensor


class Canny(Method):
    """OpenCV's detector (Canny 1986) on the RGB image, as the canny ControlNets were trained on."""

    parameters = (
        IntParameter("low_threshold", 100, 0, 1000, "Drop edges weaker than this. Lower values keep more detail."),
        IntParameter(
            "high_threshold", 200, 0, 1000, "Keep edges stronger than this, and weaker ones that are connected to them."
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import cv2
        import numpy as np
        import torch

        low, high = float(values["low_threshold"]), float(values["high_threshold"])
        edges = np.empty(image.shape[:3], np.uint8)
        maps = np.empty(edges.shape, np.float32)

        threads = min(len(image), cv2.getNumThreads() + 1)  # one more, because one of them waits for memory
        scratch: SimpleQueue[np.ndarray] = SimpleQueue()  # allocating memory per frame would cost as much as filling it
        for _ in range(threads):
            scratch.put(np.empty(image.shape[1:], np.uint8))

        def draw(index: int) -> None:
            pixels = scratch.get()
            try:
                cv2.Canny(to_bytes(image[index], pixels), low, high, edges[index])
            finally:
                scratch.put(pixels)
            np.divide(edges[index], 255, out=maps[index], dtype=np.float32)

        _run_in_threads(draw, len(image), threads, host)
        warn_of_empty(torch.from_numpy(edges), host, "edge", "Lower the thresholds.")
        return to_rgb(torch.from_numpy(maps)[..., None])


def _run_in_threads(work: Callable[[int], None], count: int, threads: int, host: Host) -> None:
    """Call `work(0)` to `work(count - 1)` in threads. It is only faster if they release the GIL, as OpenCV does."""
    host.progress(0, count)
    with ThreadPoolExecutor(threads) as pool:
        frames = [pool.submit(work, index) for index in range(count)]
        try:
            for done, frame in enumerate(frames, start=1):
                frame.result()
                host.progress(done, count)
        except BaseException:  # including ComfyUI's exception when the user stops the run
            pool.shutdown(cancel_futures=True)
            raise


CANNY = Detector(Modality.CANNY, "Thin white lines on black along the edges of the image.", (Canny(),))
