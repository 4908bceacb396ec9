"""The parts of the GPU benchmarks work without a GPU, with tiny networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from controlstack.benchmarks import bench_gpu
from controlstack.benchmarks.batched_stacks import batched_stacks
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.files.request_networks import control_network
from controlstack.local.model.local_model import LocalModel
from controlstack.models.families import Family
from controlstack.tests.local.stocked import SIZE, random_image

pytestmark = pytest.mark.slow

Models = Callable[[Family], LocalModel]

LEFT = (torch.arange(SIZE) < SIZE // 2).float().expand(1, SIZE, SIZE)


def test_the_gpu_benchmark_compares_every_family_with_every_number_of_nets(capsys: pytest.CaptureFixture[str]) -> None:
    bench_gpu.main(["--rehearse"])
    table = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    rows = table[2:]
    assert [tuple(row[:2]) for row in rows] == [
        (f"{family.value} 64x64", str(nets)) for family in bench_gpu.FAMILIES for nets in (0, 1, 3)
    ]
    assert {row[-1] for row in rows} == {"yes"}, "the engine makes the plain pipeline's image"


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL, Family.FLUX_DEV])
def test_batching_the_controls_of_one_net_changes_rounding_only(stocked: Models, family: Family) -> None:
    model = stocked(family)
    controls = (
        ControlUnit(Modality.CANNY, 0.4 * random_image(1), strength=0.7, mask=LEFT),
        ControlUnit(Modality.DEPTH, random_image(2)),
        ControlUnit(Modality.CANNY, 0.4 * random_image(3), strength=1.2, end=0.5),
    )
    request = GenerationRequest(
        "a red circle", width=SIZE, height=SIZE, steps=4, guidance_scale=3.5, seed=3, controls=controls
    )
    calls: Counter[str] = Counter()
    net = control_network(model, inventory_of(model).nets[Modality.CANNY]).module
    hook = net.register_forward_hook(lambda *_: calls.update(["net"]))
    try:
        apart = generate(model, request).images
        alone = calls.pop("net")
        with batched_stacks():
            together = generate(model, request).images
    finally:
        hook.remove()
    assert calls["net"] < alone
    assert (together - apart).abs().max() < 1e-4
    swapped = replace(request, controls=(replace(controls[0], strength=1.2), controls[1], controls[2]))
    assert (generate(model, swapped).images - apart).abs().max() > 1e-3
