"""Each scheduler follows the control and the prompt on the demo model as well as DPMSolverMultistep does.

Each scheduler gets its `RECOMMENDED_STEPS`, which the node tells the user. LCM loses colors on models that were not
made for it, which the node says too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from controlstack.core.modality import Modality
from controlstack.core.scheduler import SchedulerChoice, SchedulerName
from controlstack.local.model.local_model import LocalModel
from controlstack.local.schedulers.factory import NOTES, RECOMMENDED_STEPS
from controlstack.tools.demo_figures import (
    HELD_OUT,
    control,
    edge_f1,
    picture_of,
    request_for,
    shape_color,
    to_tensor,
)
from controlstack.tools.demo_scenes import draw_scene

pytestmark = pytest.mark.slow

SCENES = [draw_scene(HELD_OUT + number, objects=1, person=False) for number in range(3)]
START = draw_scene(HELD_OUT + 500)  # what DDIMInverse starts from: another image


@dataclass(frozen=True)
class Figures:
    """Edge F1 against the control, and the share of images whose shape has the color of the prompt."""

    control: float
    color: float


def figures_of(demo: LocalModel, name: SchedulerName, steps: int) -> Figures:
    scores, hits = [], []
    for seed, scene in enumerate(SCENES):
        request = replace(
            request_for(scene, seed),
            controls=(control(Modality.CANNY, scene),),
            scheduler=SchedulerChoice(name),
            steps=steps,
            init_image=to_tensor(START.image) if name is SchedulerName.DDIM_INVERSE else None,
        )
        image = picture_of(demo, request)
        scores.append(edge_f1(image, scene.canny))
        hits.append(shape_color(image) == scene.palette.colors[0])
    return Figures(float(np.mean(scores)), float(np.mean(hits)))


@pytest.fixture(scope="module")
def reference(demo: LocalModel) -> Figures:
    return figures_of(demo, SchedulerName.DPM_MULTISTEP, 21)


@pytest.mark.parametrize("name", sorted(set(SchedulerName) - {SchedulerName.DPM_MULTISTEP}))
def test_control_and_prompt_are_followed_as_with_the_default(
    demo: LocalModel, reference: Figures, name: SchedulerName
) -> None:
    figures = figures_of(demo, name, RECOMMENDED_STEPS.get(name, 21))
    assert figures.control >= 0.9 * reference.control
    if name is not SchedulerName.LCM:
        assert figures.color >= 0.9 * reference.color


def test_the_tooltip_says_which_schedulers_need_more_steps() -> None:
    assert set(RECOMMENDED_STEPS) | {SchedulerName.LCM, SchedulerName.DDIM_INVERSE} == set(NOTES)
