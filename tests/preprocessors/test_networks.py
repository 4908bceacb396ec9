"""Networks are built once, run in parts that fit, and give up with a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from controlstack.core.errors import ModelUnreadable, OutOfMemory
from controlstack.core.memory import Managed, Offload, PlainMemory, size_of
from controlstack.preprocessors.host import PlainHost
from controlstack.preprocessors.networks import runtime as networks
from controlstack.preprocessors.networks.runtime import open_network
from controlstack.preprocessors.weights.tensors import load_state, read_state
from torch import Tensor, nn

pytestmark = pytest.mark.slow

BUILT: list[Path] = []


def build(file: Path) -> nn.Module:
    BUILT.append(file)
    network = nn.Conv2d(3, 1, 3, padding=1)
    load_state(network, read_state(file), file)
    return network


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    BUILT.clear()
    yield
    networks._networks.clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(nn.Conv2d(3, 1, 3, padding=1).state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


@pytest.fixture
def host() -> PlainHost:
    return PlainHost(PlainMemory(torch.device("cpu")))


def test_a_network_is_built_once_and_shared_by_later_runs(file: Path) -> None:
    first, second = (open_network(build, (file,), PlainHost(PlainMemory(torch.device("cpu")))) for _ in range(2))
    assert first.managed is second.managed
    assert len(BUILT) == 1
    assert not any(parameter.requires_grad for parameter in first.managed.module.parameters())


def test_a_file_that_was_replaced_is_read_again(file: Path, host: PlainHost) -> None:
    old = open_network(build, (file,), host)
    torch.save(nn.Conv2d(3, 1, 3, padding=1).state_dict(), file)
    os.utime(file, (1, 1))
    assert open_network(build, (file,), host).managed is not old.managed


def test_networks_that_were_not_used_for_long_are_forgotten(
    tmp_path: Path, host: PlainHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{number}.pth" for number in range(4)]
    for file in files:
        torch.save(nn.Conv2d(3, 1, 3, padding=1).state_dict(), file)
    size = sum(parameter.nbytes for parameter in nn.Conv2d(3, 1, 3).parameters())
    monkeypatch.setattr(networks._networks, "limit", 2 * size)
    for file in (files[0], files[1], files[0], files[2], files[0], files[1]):
        open_network(build, (file,), host)
    assert [file.name for file in BUILT] == ["0.pth", "1.pth", "2.pth", "1.pth"]


def test_a_file_of_another_network_is_named(tmp_path: Path, host: PlainHost) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "net.pth")
    with pytest.raises(ModelUnreadable, match=r"net\.pth holds the weights of another network than Conv2d .*weight"):
        open_network(build, (tmp_path / "net.pth",), host)


def test_on_a_cpu_frames_go_through_one_by_one(file: Path, host: PlainHost) -> None:
    parts: list[int] = []

    def infer(module: nn.Module, part: Tensor) -> Tensor:
        parts.append(len(part))
        return module(part)

    frames = torch.rand(3, 3, 8, 8)
    network = open_network(build, (file,), host)
    result = network.run(frames, infer, host, 1000)
    assert parts == [1, 1, 1]
    assert torch.allclose(result, network.managed.module(frames), atol=1e-6)


def test_a_part_that_does_not_fit_is_halved_and_nothing_is_lost_or_done_twice(
    file: Path, host: PlainHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "frames_at_once", lambda device, free, frame_bytes: 8)
    parts: list[int] = []

    def infer(module: nn.Module, part: Tensor) -> Tensor:
        parts.append(len(part))
        if len(part) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return part[:, :1] * 2

    frames = torch.rand(7, 3, 4, 4)
    assert torch.equal(open_network(build, (file,), host).run(frames, infer, host, 1000), frames[:, :1] * 2)
    assert parts == [7, 3, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_one_frame_too_large_is_a_sentence(file: Path, host: PlainHost, error: Exception) -> None:
    def infer(module: nn.Module, part: Tensor) -> Tensor:
        raise error

    network = open_network(build, (file,), host)
    with pytest.raises(OutOfMemory, match=r"image of 6x4\. Lower the resolution input .*, use a smaller image"):
        network.run(torch.rand(2, 3, 4, 6), infer, host, 1000)


def test_a_failing_network_raises_and_is_not_taken_for_a_full_device(file: Path, host: PlainHost) -> None:
    def infer(module: nn.Module, part: Tensor) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        open_network(build, (file,), host).run(torch.rand(1, 3, 4, 4), infer, host, 1000)


def test_what_is_needed_beside_the_weights_is_asked_for_before_every_run(file: Path, host: PlainHost) -> None:
    asked: list[tuple[int, int]] = []

    class Watched(PlainMemory):
        def load(self, modules, room: int = 0) -> None:
            asked.append((len(modules), room))
            super().load(modules, room)

    host = PlainHost(Watched(torch.device("cpu")))
    for _ in range(2):
        open_network(build, (file,), host).run(torch.rand(1, 3, 4, 4), lambda module, part: part, host, 12345)
    assert asked == [(1, 12345), (1, 12345)]


@dataclass
class Small:
    """A device of few bytes, half full of a model that others left there. Nothing is moved, only counted."""

    device: ClassVar[torch.device] = torch.device("meta")  # where tensors take no room
    offload: ClassVar[Offload] = Offload.AUTO
    size: int = 20_000
    there: dict[int, Managed] = field(default_factory=dict)

    def manage(self, module: nn.Module) -> Managed:
        return PlainMemory(self.device).manage(module)

    def load(self, modules: Sequence[Managed], room: int = 0) -> None:
        wanted = {id(managed): managed for managed in modules}
        taken = sum(size_of(managed.module) for managed in wanted.values())
        for key in [key for key in self.there if key not in wanted]:
            if self.spare() >= taken + room:
                break
            del self.there[key]
        self.there |= wanted

    def unload(self, modules: Sequence[Managed]) -> None:
        for managed in modules:
            self.there.pop(id(managed), None)

    def spare(self) -> int:
        return self.size - sum(size_of(managed.module) for managed in self.there.values())

    def free(self) -> int:
        return self.size


@pytest.mark.parametrize(("count", "parts"), [(3, [3]), (12, [7, 5])])
def test_models_that_are_not_needed_make_way_for_all_frames_that_go_out_together(
    file: Path, count: int, parts: list[int]
) -> None:
    memory = Small()
    memory.load([memory.manage(nn.Linear(50, 80))])
    assert memory.spare() < 5000, "without eviction there is room for one frame"
    host, frame_bytes, gone = PlainHost(memory), 2800, []

    def infer(module: nn.Module, part: Tensor) -> Tensor:
        assert memory.spare() >= len(part) * frame_bytes
        gone.append(len(part))
        return torch.zeros(len(part), 1)

    network = open_network(build, (file,), host)
    assert len(network.run(torch.rand(count, 3, 4, 4), infer, host, frame_bytes)) == count
    assert gone == parts, "seven frames and the network fill the device"


@pytest.mark.parametrize(
    ("free", "frame", "expected"), [(10_000, 1000, 10), (10**9, 1000, 16), (10, 1000, 1), (10, 0, 10)]
)
def test_a_gpu_takes_as_many_frames_as_are_free(free: int, frame: int, expected: int) -> None:
    assert networks.frames_at_once(torch.device("cuda"), free, frame) == expected


# In a process of its own: what an import changes cannot be seen where everything is imported already.
ALONE = """
import sys, types
import timm
mediapipe = types.ModuleType("mediapipe")  # a current one, without `solutions`: importing controlnet_aux fails
sys.modules["mediapipe"] = mediapipe
before = {name: timm.models.model_entrypoint(name).__module__ for name in timm.list_models("tiny_vit*")}
from controlstack.preprocessors.networks.controlnet_aux import network_class
network_class("hed", "ControlNetHED_Apache2")()
network_class("teed.ted", "TED")()
network_class("mlsd.models.mbv2_mlsd_large", "MobileV2_MLSD_Large")()
assert before == {name: timm.models.model_entrypoint(name).__module__ for name in before}, "timm was changed"
print(*sorted(name for name in sys.modules if name.startswith(("controlnet_aux", "_controlstack_controlnet_aux."))))
"""


def test_networks_come_without_the_package_they_are_in() -> None:
    result = subprocess.run([sys.executable, "-I", "-c", ALONE], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert {loaded.split(".")[1] for loaded in result.stdout.split()} == {"hed", "teed", "mlsd", "util"}
    assert "Warning" not in result.stderr
