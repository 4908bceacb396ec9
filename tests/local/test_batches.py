"""Every image of a batch can be made alone from its seed, in every family and task; large images decode in tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from controlstack.core.memory import PlainMemory
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest, ImageReference
from controlstack.core.scheduler import AlgorithmType, SchedulerChoice, SchedulerName
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.engine.run import Run
from controlstack.local.memory import autoencoders
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.pipelines import Task
from controlstack.local.schedulers.factory import FLOW_UNSUPPORTED
from controlstack.models.families import Family
from controlstack.tests.local.stocked import SIZE, random_image
from controlstack.tests.local.tiny_models import tiny_model
from torch import Tensor

pytestmark = pytest.mark.slow

Models = Callable[[Family], LocalModel]

LEFT = (torch.arange(SIZE) < SIZE // 2).float().expand(1, SIZE, SIZE)
STARTS: dict[Task, dict[str, Any]] = {
    Task.TEXT_TO_IMAGE: {"references": (ImageReference(random_image(4), scale=0.6),)},
    Task.IMAGE_TO_IMAGE: {"init_image": random_image(3, batch=2), "denoise": 0.7},
    Task.INPAINT: {"init_image": random_image(3), "mask": torch.cat([LEFT, 1 - LEFT]), "denoise": 0.9},
}


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL, Family.FLUX_DEV])
def test_each_image_of_a_batch_can_be_made_alone(stocked: Models, family: Family, task: Task) -> None:
    model = stocked(family)
    controls = (
        ControlUnit(Modality.CANNY, 0.4 * random_image(1, batch=2), mask=torch.cat([LEFT, 1 - LEFT])),
        ControlUnit(Modality.DEPTH, random_image(2), mask=LEFT),
    )
    both = GenerationRequest(
        "a red circle",
        width=SIZE,
        height=SIZE,
        steps=3,
        guidance_scale=3.5,
        seed=11,
        batch_size=2,
        controls=controls,
        **STARTS[task],
    )
    result = generate(model, both)
    assert result.seeds == (11, 12)

    def second(image: torch.Tensor | None) -> torch.Tensor | None:
        return image[1:] if image is not None and image.shape[0] == 2 else image

    alone = replace(
        both,
        seed=12,
        batch_size=1,
        controls=tuple(replace(c, image=second(c.image), mask=second(c.mask)) for c in controls),
        init_image=second(both.init_image),
        mask=second(both.mask),
    )
    assert (generate(model, alone).images[0] - result.images[1]).abs().max() < 2e-3
    assert (result.images[0] - result.images[1]).abs().max() > 0.02


@pytest.mark.parametrize("start", [{}, {"init_image": random_image(3)}, {"init_image": random_image(3), "mask": LEFT}])
def test_a_union_net_of_flux_serves_every_image_of_a_batch(stocked: Models, start: dict[str, Any]) -> None:
    model = stocked(Family.FLUX_DEV)
    tile = ControlUnit(Modality.TILE, random_image(2))
    assert inventory_of(model).nets[Modality.TILE].mode is not None
    request = GenerationRequest("a red circle", width=SIZE, height=SIZE, steps=2, controls=(tile,), **start)
    both = generate(model, replace(request, seed=3, batch_size=2)).images
    assert (generate(model, replace(request, seed=4)).images[0] - both[1]).abs().max() < 2e-3


FLUX_CHOICES = [
    *(SchedulerChoice(name) for name in sorted(set(SchedulerName) - set(FLOW_UNSUPPORTED))),
    SchedulerChoice(SchedulerName.DPM_MULTISTEP, algorithm_type=AlgorithmType.SDE_DPMSOLVER_PP),
]


@pytest.mark.parametrize("choice", FLUX_CHOICES, ids=lambda c: f"{c.name.value} {c.algorithm_type or ''}".strip())
def test_the_seed_alone_decides_with_every_scheduler_of_flux(stocked: Models, choice: SchedulerChoice) -> None:
    model = stocked(Family.FLUX_DEV)
    request = GenerationRequest("a red circle", width=SIZE, height=SIZE, steps=3, guidance_scale=3.5, scheduler=choice)
    torch.manual_seed(1)
    both = generate(model, replace(request, seed=3, batch_size=2)).images
    torch.manual_seed(2)
    alone = generate(model, replace(request, seed=4)).images
    assert torch.allclose(both[1:], alone, atol=1e-4)
    assert not torch.allclose(both[:1], alone, atol=1e-4)


def test_an_image_too_large_for_the_memory_is_decoded_in_tiles_and_that_is_reported(
    stocked: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stocked(Family.SD15)
    request = GenerationRequest("a red circle", width=2 * SIZE, height=2 * SIZE, steps=2, guidance_scale=3.5)
    whole = generate(model, request)
    assert whole.notes == ()
    vae = model.components["vae"]
    tiled_calls = []
    decode = vae.tiled_decode
    monkeypatch.setattr(vae, "tiled_decode", lambda *a, **k: tiled_calls.append(1) or decode(*a, **k))
    monkeypatch.setattr(autoencoders, "TILES", (SIZE,))
    monkeypatch.setattr(PlainMemory, "free", lambda self: 1)
    tiled = generate(model, request)
    assert tiled_calls == [1]
    assert "decoded in tiles" in tiled.notes[0]
    assert not vae.use_tiling
    assert (tiled.images - whole.images).abs().mean() < 0.05


def test_running_out_of_memory_while_sdxl_decodes_in_fp32_leaves_the_model_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model(Family.SDXL)
    for part in model.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(torch.float16)
    half = replace(model, dtype=torch.float16)
    vae = half.components["vae"]
    vae.register_to_config(force_upcast=True)
    request = GenerationRequest("a red circle", width=SIZE, height=SIZE, steps=1, guidance_scale=1)
    whole = generate(half, request)
    failures = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")]
    decode = vae.decoder.forward

    def fails_once(*values: Tensor) -> Tensor:
        assert values[0].dtype == torch.float32
        if failures:
            raise failures.pop()
        return decode(*values)

    monkeypatch.setattr(vae.decoder, "forward", fails_once)
    assert torch.equal(generate(half, request).images, whole.images)
    assert failures == []
    assert vae.dtype == torch.float16


def test_the_decoding_estimate_in_fp32_is_that_of_fp32() -> None:
    request = GenerationRequest("a red circle", width=SIZE, height=SIZE)
    model = tiny_model(Family.SDXL)
    vae = model.components["vae"].to(torch.float16)
    rooms = []
    for upcast in (False, True):
        vae.register_to_config(force_upcast=upcast)
        rooms.append(Run(model, request, inventory_of(model)).decoding_bytes())
    assert rooms[1] == 2 * rooms[0]
