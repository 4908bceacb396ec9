"""The pack's networks lie in ComfyUI's memory management: counted, evicted, freed on request, loaded again."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import requests
from controlstack.tests.comfy_server import ComfyServer
from controlstack.tests.server.graphs import canny_graph
from controlstack.tests.server.probe import probe

pytestmark = pytest.mark.server

DROPPED = "ControlStack drops"

SNIPPETS = {
    "a life": """
managed = memory.manage(network())
found["before"] = loaded(managed), managed.patcher.loaded_size()
memory.load([managed])
found["loaded"] = loaded(managed), managed.patcher.loaded_size()
memory.load([managed])
found["entries"] = len(mm.current_loaded_models)
mm.unload_all_models()
found["evicted"] = loaded(managed), managed.patcher.loaded_size()
memory.load([managed])
found["again"] = loaded(managed), managed.patcher.loaded_size()
memory.unload([managed])
found["unloaded"] = loaded(managed), managed.patcher.loaded_size()
memory.load([managed])
del managed
gc.collect()
mm.cleanup_models()
found["dropped"] = len(mm.current_loaded_models)
""",
    "let go": """
import weakref
module = network()
gone = weakref.ref(module)
managed = memory.manage(module)
memory.load([managed])
gc.collect()
gc.disable()
del module, managed
found["gone"] = gone() is None
gc.enable()
""",
    "modes": """
for state in mm.VRAMState:
    mm.vram_state = state
    found[state.name] = memory.offload.value
""",
    "free": """
mm.get_free_memory = lambda device=None, torch_free_too=False: 10**9
mm.extra_reserved_memory = lambda: 10**8
found["without"] = memory.free()
managed = memory.manage(network(10**6))
memory.load([managed])
found["with"] = memory.free() - found["without"]
""",
    # `meta` stands for a GPU: modules can be moved to it without one.
    "devices": """
import pack.nodes.memory
mm.get_free_memory = lambda device=None, torch_free_too=False: (1000, 0) if torch_free_too else 1000
pack.nodes.memory.device = lambda: torch.device("meta")
for state in (mm.VRAMState.NORMAL_VRAM, mm.VRAMState.LOW_VRAM, mm.VRAMState.NO_VRAM, mm.VRAMState.HIGH_VRAM):
    mm.vram_state = state
    managed = memory.manage(network())
    memory.load([managed])
    found[state.name] = sorted({str(tensor.device) for tensor in managed.module.parameters()})
    mm.current_loaded_models.clear()
""",
    # A Mac as ComfyUI sees it; nothing is computed there.
    "precision": """
from pack.core.errors import InvalidRequest
from pack.models.families import Family
from pack.nodes.load_model import Precision, _dtype

def automatic(device):
    return [str(_dtype(Precision.AUTO, family, torch.device(device))) for family in (Family.SDXL, Family.FLUX_DEV)]

found["cpu"] = automatic("cpu")
for release in (13, 14):
    mm.mac_version = lambda: (release, 0)
    found[f"macOS {release}"] = automatic("mps")
try:
    _dtype(Precision.FP8, Family.FLUX_DEV, torch.device("mps"))
except InvalidRequest as error:
    found["fp8"] = str(error)
mm.FORCE_FP32 = True
found["--force-fp32"] = automatic("mps")
""",
}


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    return probe(SNIPPETS)


def test_a_network_is_counted_evicted_and_loaded_again(found: dict[str, dict[str, Any]]) -> None:
    size = 1002 * 4
    assert found["a life"] == {
        "before": [False, 0],
        "loaded": [True, size],
        "entries": 1,
        "evicted": [False, 0],
        "again": [True, size],
        "unloaded": [False, 0],
        "dropped": 0,
    }


def test_the_memory_of_a_network_is_free_as_soon_as_nobody_keeps_it(found: dict[str, dict[str, Any]]) -> None:
    assert found["let go"] == {"gone": True}


def test_the_start_options_say_how_much_lies_on_the_device(found: dict[str, dict[str, Any]]) -> None:
    assert found["modes"] == {
        "DISABLED": "auto",  # --cpu
        "NO_VRAM": "sequential",
        "LOW_VRAM": "model",
        "NORMAL_VRAM": "auto",
        "HIGH_VRAM": "none",  # --highvram, --gpu-only
        "SHARED": "auto",
    }


def test_a_network_is_loaded_whole_or_not_at_all(found: dict[str, dict[str, Any]]) -> None:
    assert list(found["devices"]) == ["NORMAL_VRAM", "LOW_VRAM", "NO_VRAM", "HIGH_VRAM"]
    assert all(devices == ["meta"] for devices in found["devices"].values())


def test_automatic_precision_is_what_comfyui_says_works_on_the_device(found: dict[str, dict[str, Any]]) -> None:
    fp32, fp16, bf16 = "torch.float32", "torch.float16", "torch.bfloat16"
    refusal = found["precision"].pop("fp8")
    assert "precision is fp8, but Apple GPUs do not support fp8. Set precision to auto." in refusal
    assert found["precision"] == {
        "cpu": [fp32, fp32],
        "macOS 13": [fp16, fp32],
        "macOS 14": [fp16, bf16],
        "--force-fp32": [fp32, fp32],
    }


def test_what_could_be_evicted_counts_as_free(found: dict[str, dict[str, Any]]) -> None:
    assert found["free"] == {"without": 9 * 10**8, "with": (10**6 + 2) * 4}


def loads(comfy: ComfyServer, network: str) -> int:
    """How often ComfyUI has loaded a network of this class so far."""
    return comfy.log.count(f"Requested to load {network}")


def run(comfy: ComfyServer, seed: int) -> Any:
    graph = copy.deepcopy(canny_graph(seed))
    result = comfy.run(graph)
    assert result.succeeded, result.error
    return result


def free(comfy: ComfyServer, **flags: bool) -> None:
    requests.post(f"{comfy.url}/free", json={"unload_models": True, **flags}, timeout=10).raise_for_status()


NETWORKS = ("UNet2DConditionModel", "ControlNetModel", "AutoencoderTiny")


def test_free_unloads_the_networks_and_the_next_run_loads_them(comfy: ComfyServer) -> None:
    run(comfy, 7001)
    first = {name: loads(comfy, name) for name in NETWORKS}
    assert min(first.values()) >= 1
    run(comfy, 7002)
    assert {name: loads(comfy, name) for name in NETWORKS} == first, "a second run finds them loaded"
    free(comfy)
    for seed in (7003, 7004):  # the executor looks at the flag before the first of them, or else after it
        run(comfy, seed)
    assert {name: loads(comfy, name) for name in NETWORKS} == {name: count + 1 for name, count in first.items()}


def test_after_free_memory_the_next_run_asks_for_the_model_again(comfy: ComfyServer) -> None:
    run(comfy, 7005)
    assert "20" in run(comfy, 7006).cached
    freed = comfy.log.count(DROPPED)
    free(comfy, free_memory=True)
    assert any("20" in run(comfy, seed).executed for seed in (7007, 7008))
    assert comfy.log.count(DROPPED) == freed + 1, "and its weights are not there any more"


def test_a_graph_that_loads_no_model_lets_the_models_go(comfy: ComfyServer) -> None:
    run(comfy, 7009)
    freed = comfy.log.count(DROPPED)
    empty = {"width": 8, "height": 8, "batch_size": 1, "color": 1}
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    assert comfy.run(graph).succeeded
    assert comfy.log.count(DROPPED) == freed + 1
