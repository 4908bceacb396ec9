"""Canny edges."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ..core.images import to_rgb
from ..core.modality import Modality
from .detector import Detector, Method
from .frames import warn_of_empty
from .host import Host
from .parameters import IntParameter, Value
from .pixels import to_bytes

if TYPE_CHECKING:
    from torch import Tensor


class Canny(Method):
    """Thin white edges on black (Canny 1986), as the canny ControlNets were trained on: OpenCV on the RGB picture."""

    parameters = (
        IntParameter("low_threshold", 100, 0, 1000, "Edges weaker than this are dropped. Lower it to see more detail."),
        IntParameter(
            "high_threshold", 200, 0, 1000, "Edges stronger than this are kept, with the weaker ones they lead to."
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        import cv2
        import numpy as np
        import torch

        low, high = float(values["low_threshold"]), float(values["high_threshold"])
        edges = np.empty(image.shape[:3], np.uint8)
        maps = np.empty(edges.shape, np.float32)

        threads = min(len(image), cv2.getNumThreads() + 1)  # one waits for memory while the others count
        scratch: SimpleQueue[np.ndarray] = SimpleQueue()  # fresh memory for each frame would cost as much as filling it
        for _ in range(threads):
            scratch.put(np.empty(image.shape[1:], np.uint8))

        def draw(index: int) -> None:
            pixels = scratch.get()
            try:
                cv2.Canny(to_bytes(image[index], pixels), low, high, edges[index])
            finally:
                scratch.put(pixels)
            np.divide(edges[index], 255, out=maps[index], dtype=np.float32)

        _side_by_side(draw, len(image), threads, host)
        warn_of_empty(torch.from_numpy(edges), host, "edge", "Lower the thresholds.")
        return to_rgb(torch.from_numpy(maps)[..., None])


def _side_by_side(work: Callable[[int], None], count: int, threads: int, host: Host) -> None:
    """Run `work(0)` to `work(count - 1)` on threads; what it calls must let go of the interpreter for that to pay."""
    host.progress(0, count)
    with ThreadPoolExecutor(threads) as pool:
        frames = [pool.submit(work, index) for index in range(count)]
        try:
            for done, frame in enumerate(frames, start=1):
                frame.result()
                host.progress(done, count)
        except BaseException:  # the user's stop, for one
            pool.shutdown(cancel_futures=True)
            raise


CANNY = Detector(Modality.CANNY, "Thin white lines on black where the picture has edges.", (Canny(),))
