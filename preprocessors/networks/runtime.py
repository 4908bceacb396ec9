"""Run batches through networks, in parts that fit the device's memory. Networks stay in memory between runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.cache import Cache
from ...core.errors import OutOfMemory
from ...core.memory import Managed, is_out_of_memory, size_of
from ..host import Host

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Infer = Callable[["nn.Module", "Tensor"], "Tensor"]

_LARGEST_PART = 16  # frames; more does not make a GPU faster
# Up to 3 GiB of parameters stay in the computer's memory. ComfyUI decides what stays on the device.
_networks: Cache[Hashable, Managed] = Cache(
    3 * 2**30, lambda managed: sum(parameter.nbytes for parameter in managed.module.parameters())
)


@dataclass(frozen=True)
class Network:
    """A network under the host's memory management, which computes in `dtype` on `device`."""

    managed: Managed
    device: torch.device
    dtype: torch.dtype

    def run(self, frames: Tensor, infer: Infer, host: Host, frame_bytes: int) -> Tensor:
        """The results of `infer(module, part)` for all `frames`, as float32 on the CPU.

        `frames` is [batch, channels, height, width] on the CPU. `part` is some of them on the device in the network's
        dtype, and `infer` returns one result for each of them. `frame_bytes` is the memory that a run needs per frame,
        without the weights. A CPU gets one frame at a time, because more are no faster. A GPU gets as many as fit, and
        fewer if they turn out not to fit. Raises OutOfMemory when a single frame does not fit, and what
        `host.progress` raises when the user stops the run.
        """
        import torch

        total, (height, width) = len(frames), frames.shape[-2:]
        beside = host.memory.free() - size_of(self.managed.module)
        at_once = min(total, frames_at_once(self.device, beside, frame_bytes))
        try:
            # `free` counts memory that other models still occupy. They are moved off only when it is asked for.
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
    """How many frames go through a network together, with `free` bytes on the device besides its weights."""
    return 1 if device.type == "cpu" else min(_LARGEST_PART, max(1, free // max(1, frame_bytes)))


def open_network(build: Callable[..., nn.Module], files: tuple[Path, ...], host: Host, half: bool = False) -> Network:
    """The network that `build(*files)` makes on the CPU. It is built once as long as the files stay the same.

    `half`: it computes accurately in float16, which it then does on a GPU. `build` is a function of a module, so that
    detectors with the same network share it.
    """
    import torch

    memory = host.memory
    dtype = torch.float16 if half and memory.device.type == "cuda" else torch.float32

    def make() -> Managed:
        with torch.inference_mode(False):  # ComfyUI enables it, and tensors made in it cannot be moved outside of it
            return memory.manage(build(*files).eval().requires_grad_(False).to(dtype))

    modified = tuple(file.stat().st_mtime_ns for file in files)
    managed = _networks.get((build, files, type(memory), str(memory.device), dtype), make, version=modified)
    return Network(managed, memory.device, dtype)


def _too_large(height: int, width: int) -> OutOfMemory:
    return OutOfMemory(
        f"The device has too little memory for this detector on an image of {width}x{height}. Lower the resolution "
        f"input of the detector if it has one, use a smaller image, or free the memory that other models use."
    )
