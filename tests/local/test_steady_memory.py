"""A long session: memory does not grow, and unchanged inputs are not computed again."""

from __future__ import annotations

import gc
from dataclasses import replace

import psutil
import pytest
import torch
from controlstack.core.memory import PlainMemory
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest, ImageReference
from controlstack.local.engine.generate import generate
from controlstack.local.files.load import load_model
from controlstack.local.model.source import DEMO_MODEL, source_of
from controlstack.tools.demo_scenes import draw_scene

pytestmark = pytest.mark.slow

RUNS = 50
WARM = 10
MEGABYTE = 2**20
SCENE = draw_scene(7, person=True)
CANNY = ControlUnit(Modality.CANNY, torch.from_numpy(SCENE.canny).float()[None] / 255)
STYLE = ImageReference(torch.from_numpy(draw_scene(8).image).float()[None] / 255)
# Each of the three differs from the others in its prompt; the reference is always the same.
REQUESTS = [
    GenerationRequest(f"a {color} star", width=128, height=128, steps=2, controls=(CANNY,), references=(STYLE,))
    for color in ("red", "blue", "green")
]


def resident() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / MEGABYTE


def test_fifty_generations_on_two_alternating_models_use_constant_memory_and_their_caches() -> None:
    memory = PlainMemory(torch.device("cpu"))
    models = [load_model(source_of(DEMO_MODEL), f"copy {number}", memory, torch.float32) for number in (1, 2)]
    sizes = []
    for number in range(RUNS):
        request = replace(REQUESTS[number % 3], seed=number)
        generate(models[number % 2], request, lambda step: step.preview())
        sizes.append(resident())
    grown = max(sizes[-5:]) - max(sizes[WARM : WARM + 5])
    assert grown < 8, f"{grown:.1f} MB in {RUNS - WARM} runs: {[round(size) for size in sizes[::5]]}"
    for model in models:
        # Made once: three prompts, the empty negative one, the reference, the preview; and the adapter.
        assert (model.results.misses, model.adapter_sets.misses) == (6, 1)
        # Wanted in each of 25 runs: two prompts, the reference; the preview in each of their steps; and the adapter.
        assert model.results.hits + model.results.misses == 25 * (3 + 2)
        assert model.adapter_sets.hits + model.adapter_sets.misses == 25
