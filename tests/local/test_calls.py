"""The number of calls of the network in the tables is that of the pipelines, for all steps and denoise values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from controlstack.core.errors import InvalidRequest
from controlstack.core.request import GenerationRequest, ImageReference
from controlstack.core.scheduler import SchedulerChoice, SchedulerName
from controlstack.core.validate import calls_of
from controlstack.local.engine.check import family_capabilities, problems
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.model.capabilities import TABLES
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.pipelines import Task, pipeline_kind
from controlstack.local.schedulers.factory import make_scheduler
from controlstack.models.families import FACTS, Family
from controlstack.tests.local.stocked import SIZE, random_image
from controlstack.tests.local.tiny_models import scheduler as own_scheduler

pytestmark = pytest.mark.slow

STEPS = (1, 2, 3, 4, 5, 8, 15, 20, 21, 28, 30, 31, 50)
SHARES = [hundredth / 100 for hundredth in range(101)]
INIT_IMAGE = random_image(3)
FROM_IMAGE = [(task, controlled) for task in (Task.IMAGE_TO_IMAGE, Task.INPAINT) for controlled in (False, True)]


def samplers(family: Family) -> Iterator[tuple[SchedulerName | None, Any]]:
    """Every scheduler of a family, and the default one."""
    own = own_scheduler(family)
    config = {**own.config, "_class_name": type(own).__name__}
    for name in (None, *sorted(TABLES[family].schedulers.names - {SchedulerName.DDIM_INVERSE})):
        yield name, make_scheduler(SchedulerChoice(name), config)


def begin(sampler: Any, family: Family, steps: int) -> int:
    """Sets the schedule like the pipelines, and returns the number of steps that they then use."""
    if not FACTS[family].flow:
        sampler.set_timesteps(steps, device="cpu")
        return steps
    sampler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=0.8, device="cpu")
    return len(sampler.timesteps)


@pytest.mark.parametrize("family", list(FACTS))
def test_the_calls_of_a_run_are_those_of_the_pipelines(family: Family) -> None:
    schedulers = TABLES[family].schedulers
    default = SchedulerName.PNDM if family is Family.SD15 else None
    table = replace(TABLES[family], schedulers=replace(schedulers, default=default))
    kinds = [getattr(diffusers, pipeline_kind(family, *kind).name) for kind in FROM_IMAGE]
    for name, sampler in samplers(family):
        pipeline = SimpleNamespace(scheduler=sampler)
        for steps in STEPS:
            taken = begin(sampler, family, steps)
            request = GenerationRequest(steps=steps, scheduler=SchedulerChoice(name))
            assert calls_of(request, table) == len(sampler.timesteps), (name, steps)
            for share in SHARES:
                begun = replace(request, init_image=INIT_IMAGE, denoise=share)
                ours = calls_of(begun, table)
                for kind in kinds:
                    left, count = kind.get_timesteps(pipeline, taken, share, "cpu")
                    # Where no step is left, the pipelines refuse to run.
                    assert ours == (len(left) if count >= 1 else 0), (kind.__name__, name, steps, share)


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL, Family.FLUX_DEV])
@pytest.mark.parametrize("steps", [3, 30])
def test_the_smallest_denoise_in_the_error_is_the_smallest_that_runs(
    stocked: Callable[[Family], LocalModel], family: Family, steps: int
) -> None:
    model = stocked(family)
    request = GenerationRequest(width=SIZE, height=SIZE, steps=steps, init_image=INIT_IMAGE, denoise=0.0)
    (problem,) = problems(model, request, inventory_of(model))
    assert problem.code == "denoise_too_low"
    least = problem.suggestion
    assert least == {(3, False): 0.34, (30, False): 0.04}.get((steps, model.facts.flow), 0.01)
    calls: list[tuple[int, int]] = []
    generate(model, replace(request, denoise=least), lambda step: calls.append((step.number, step.total)))
    total = calls_of(replace(request, denoise=least), family_capabilities(model))
    assert calls == [(number, total) for number in range(1, total + 1)]
    with pytest.raises(InvalidRequest, match="denoise is"):
        generate(model, replace(request, denoise=least - 0.01))


def test_a_window_is_a_share_of_the_calls(stocked: Callable[[Family], LocalModel]) -> None:
    """Three steps of PNDM, the default, are four calls. The middle third holds none, the first quarter one."""
    model = stocked(Family.SD15)
    request = GenerationRequest("a red circle", width=SIZE, height=SIZE, steps=3, seed=3)
    early = ImageReference(random_image(1), end=0.25)
    middle = replace(early, start=1 / 3, end=2 / 3)
    with pytest.raises(InvalidRequest, match=r"window is 0\.333333 to 0\.666667, but none of the 4 model evaluations"):
        generate(model, replace(request, references=(middle,)))
    assert not torch.equal(
        generate(model, replace(request, references=(early,))).images, generate(model, request).images
    )
