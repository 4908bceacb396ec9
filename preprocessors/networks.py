"""Networks stay loaded between runs, and batches go through them in parts that fit the device's memory."""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..core.errors import OutOfMemory
from ..core.images import to_rgb
from ..core.memory import Managed, is_out_of_memory, size_of
from .detector import Method
from .host import Host
from .parameters import Value
from .shape import Fit
from .weights import obtain

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Infer = Callable[["nn.Module", "Tensor"], "Tensor"]

_KEPT_BYTES = 3 * 2**30  # of the computer's memory; on the device ComfyUI decides
_LARGEST_PART = 16  # frames; more does not make a GPU faster


@dataclass(frozen=True)
class Network:
    """A network, built and under the host's memory management, that computes in `dtype` on `device`."""

    managed: Managed
    device: torch.device
    dtype: torch.dtype

    def run(self, frames: Tensor, infer: Infer, host: Host, frame_bytes: int) -> Tensor:
        """What `infer(module, part)` gives for all `frames`, float32 on the CPU.

        `frames` is [batch, channels, height, width] on the CPU; `part` is some of them on the device, in the
        network's dtype, and the result has one entry for each of them. `frame_bytes` is what a run needs for each
        frame beside the weights. One frame at a time on a CPU, where more do not pay; as many as fit on a GPU, and
        fewer when they did not fit after all. Raises OutOfMemory when one frame is too much, and what
        `host.progress` raises when the user stops the run.
        """
        import torch

        total, (height, width) = len(frames), frames.shape[-2:]
        beside = host.memory.free() - size_of(self.managed.module)
        at_once = min(total, frames_at_once(self.device, beside, frame_bytes))
        try:
            # What `free` counts is free only once it was asked for: other models lie there until then.
            host.memory.load([self.managed], room=at_once * frame_bytes)
        except Exception as error:
            if is_out_of_memory(error):
                raise _too_large(height, width) from error
            raise
        results: list[Tensor] = []
        done = 0
        while done < total:
            host.progress(done, total)
            part = frames[done : done + at_once]
            try:
                with torch.no_grad():
                    result = infer(self.managed.module, part.to(self.device, self.dtype)).float().cpu()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if at_once == 1:
                    raise _too_large(height, width) from error
                at_once = max(1, len(part) // 2)
                continue
            results.append(result)
            done += len(part)
        host.progress(total, total)
        return torch.cat(results)


def frames_at_once(device: torch.device, free: int, frame_bytes: int) -> int:
    """How many frames go through a network together, with `free` bytes on the device beside its weights."""
    return 1 if device.type == "cpu" else min(_LARGEST_PART, max(1, free // max(1, frame_bytes)))


def open_network(build: Callable[..., nn.Module], files: tuple[Path, ...], host: Host, half: bool = False) -> Network:
    """The network that `build(*files)` makes on the CPU, made once for as long as the files stay the same.

    `half` says that it computes well in float16, which it then does on a GPU. `build` is a function of a module, so
    that detectors that use the same network share it.
    """
    import torch

    memory = host.memory
    dtype = torch.float16 if half and memory.device.type == "cuda" else torch.float32
    key = (build, files, tuple(file.stat().st_mtime_ns for file in files), type(memory), str(memory.device), dtype)
    with _lock:
        managed = _kept.get(key)
        if managed is None:
            with torch.inference_mode(False):  # ComfyUI's; what is made in it cannot be moved outside of it
                module = build(*files).eval().requires_grad_(False).to(dtype)
                managed = memory.manage(module)
        _kept[key] = managed
        _kept.move_to_end(key)
        _forget_oldest()
    return Network(managed, memory.device, dtype)


class NetworkMethod(Method):
    """A method whose map is what one network makes of the picture.

    `multiple` is what the sides of its input must be divisible by, `bytes_per_pixel` what a run needs for each pixel
    of it beside the weights (measured on a CPU in float32, and a third more), and `half` is as `open_network` has it.
    """

    multiple: ClassVar[int] = 1
    bytes_per_pixel: ClassVar[int]
    half: ClassVar[bool] = False

    @staticmethod
    @abstractmethod
    def build(*files: Path) -> nn.Module:
        """The network with the tensors of `weights`, which are in `files`, on the CPU."""

    @abstractmethod
    def infer(self, network: nn.Module, pictures: Tensor) -> Tensor:
        """The maps [batch, 1 or 3, height, width] in 0..1 of pictures [batch, 3, height, width] in 0..1."""

    def finish(self, maps: Tensor, **values: Value) -> Tensor:
        """What is done to the maps at the picture's size, as `infer` gives them."""
        return maps

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        files = tuple(obtain(weights, host) for weights in self.weights)
        network = open_network(self.build, files, host, self.half)
        height, width = image.shape[1:3]
        fit = Fit(height, width, int(values["resolution"]), self.multiple)

        def infer(module: nn.Module, pictures: Tensor) -> Tensor:
            maps = fit.leave(self.infer(module, fit.enter(pictures)).float()).clamp(0, 1)
            return self.finish(maps, **values).movedim(1, -1)

        maps = network.run(image.movedim(-1, 1), infer, host, self.bytes_per_pixel * math.prod(fit.padded))
        return to_rgb(maps)


_kept: OrderedDict[Hashable, Managed] = OrderedDict()
_lock = threading.Lock()


def _forget_oldest() -> None:
    """Keep the networks used last, up to the limit; one is always kept."""
    sizes = {key: sum(part.nbytes for part in managed.module.parameters()) for key, managed in _kept.items()}
    while len(_kept) > 1 and sum(sizes.values()) > _KEPT_BYTES:
        oldest, _ = _kept.popitem(last=False)
        del sizes[oldest]


def _too_large(height: int, width: int) -> OutOfMemory:
    return OutOfMemory(
        f"The device has too little memory for this detector on a picture of {width}x{height}. Lower its resolution "
        f"input, use a smaller picture, or free the memory other models take."
    )
