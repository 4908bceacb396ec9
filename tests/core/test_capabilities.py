"""The less usual columns of a target's table, each of which validation knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from controlstack.core.capabilities import (
    Capabilities,
    ControlSupport,
    InitImageSupport,
    LoraSupport,
    Range,
    SchedulerSupport,
)
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, Detect, GenerationRequest, ImageReference, Lora
from controlstack.core.scheduler import AlgorithmType, SchedulerChoice, SchedulerName
from controlstack.core.validate import validate

ANY = Capabilities(
    "Any",
    schedulers=SchedulerSupport(names=frozenset(SchedulerName)),
    controls=ControlSupport(modalities=frozenset(Modality), maximum=4),
    loras=LoraSupport(maximum=4),
    init_images=InitImageSupport(accepted=True, inpainting=True),
)
IMAGE, MASK = torch.rand(1, 16, 16, 3), torch.ones(1, 16, 16)
CANNY = ControlUnit(Modality.CANNY, IMAGE)
PLAIN = GenerationRequest(prompt="a cat")


def with_schedulers(**columns: Any) -> Capabilities:
    return replace(ANY, schedulers=replace(ANY.schedulers, **columns))


def complaints(table: Capabilities, request: GenerationRequest = PLAIN) -> str:
    return "\n".join(str(problem) for problem in validate(request, table))


@pytest.mark.parametrize(
    ("value", "inside"), [(64, True), (72, True), (1024, True), (65, False), (56, False), (1032, False)]
)
def test_a_range_holds_its_ends_and_its_multiples(value: int, inside: bool) -> None:
    assert (value in Range(64, 1024, multiple=8)) is inside


def test_fixed_sizes_are_refused_as_a_pair_and_the_nearest_shape_is_offered() -> None:
    table = replace(ANY, sizes=((1024, 1024), (720, 1280), (1280, 720)))
    assert complaints(table, replace(PLAIN, width=720, height=1280)) == ""
    told = complaints(table, replace(PLAIN, width=1280, height=1024))
    assert told.startswith("The size is 1280x1024, but Any generates only 720x1280, 1024x1024, 1280x720.")
    assert told.endswith("Set width to 1024 and height to 1024.")
    assert "Set width to 720 and height to 1280." in complaints(table, replace(PLAIN, width=512, height=910))


def test_a_target_may_need_a_control_and_one_of_strength_0_does_not_count() -> None:
    table = replace(ANY, controls=replace(ANY.controls, required=True))
    assert complaints(table, replace(PLAIN, controls=(CANNY,))) == ""
    for controls in ((), (replace(CANNY, strength=0.0),)):
        assert "Any needs a control whose strength is not 0." in complaints(table, replace(PLAIN, controls=controls))


def test_the_default_scheduler_decides_about_options_where_none_is_chosen() -> None:
    karras = SchedulerChoice(use_karras_sigmas=True)
    able = with_schedulers(karras_sigmas=frozenset({SchedulerName.EULER}))
    assert "no scheduler is chosen" in complaints(able, replace(PLAIN, scheduler=karras))
    euler = replace(able, schedulers=replace(able.schedulers, default=SchedulerName.EULER))
    assert complaints(euler, replace(PLAIN, scheduler=karras)) == ""
    ddim = replace(able, schedulers=replace(able.schedulers, default=SchedulerName.DDIM))
    wrong = complaints(ddim, replace(PLAIN, scheduler=karras))
    assert "DDIMScheduler does not support it on Any." in wrong
    assert "choose one of these schedulers: EulerDiscreteScheduler." in wrong


def test_algorithm_types_belong_to_their_schedulers() -> None:
    table = with_schedulers(algorithm_types={SchedulerName.DPM_MULTISTEP: frozenset({AlgorithmType.DPMSOLVER_PP})})
    fine = SchedulerChoice(SchedulerName.DPM_MULTISTEP, algorithm_type=AlgorithmType.DPMSOLVER_PP)
    assert complaints(table, replace(PLAIN, scheduler=fine)) == ""
    told = complaints(table, replace(PLAIN, scheduler=replace(fine, name=SchedulerName.EULER)))
    assert "algorithm_type is dpmsolver++, but EulerDiscreteScheduler has no algorithm types." in told


def test_some_schedulers_take_fewer_steps_than_the_range_allows() -> None:
    table = replace(with_schedulers(max_steps={SchedulerName.LCM: 50}), ranges={"steps": Range(1, 150)})
    lcm = replace(PLAIN, scheduler=SchedulerChoice(SchedulerName.LCM), steps=50)
    assert complaints(table, lcm) == ""
    assert complaints(table, replace(lcm, steps=51)) == (
        "steps is 51, but LCMScheduler takes at most 50 steps. Set it to 50."
    )
    assert complaints(table, replace(PLAIN, steps=51)) == ""


def test_a_mask_may_be_a_part_of_a_kind_of_control_alone() -> None:
    table = replace(ANY, controls=replace(ANY.controls, masked_modalities=frozenset({Modality.INPAINT})))
    inpaint = ControlUnit(Modality.INPAINT, IMAGE, mask=MASK)
    assert complaints(table, replace(PLAIN, controls=(inpaint,))) == ""
    told = complaints(table, replace(PLAIN, controls=(replace(CANNY, mask=MASK),)))
    assert told.startswith("control 1 (canny) mask is connected, but Any cannot limit a control to an area.")
    able = replace(table, controls=replace(table.controls, masks=True))
    assert complaints(able, replace(PLAIN, controls=(replace(CANNY, mask=MASK),))) == ""


def test_the_strength_of_a_lora_has_a_range_that_0_need_not_be_in() -> None:
    table = replace(ANY, loras=LoraSupport(maximum=4, strength=Range(0.1, 1)))
    assert complaints(table, replace(PLAIN, loras=(Lora("x", strength=1.0), Lora("y", strength=0.0)))) == ""
    told = complaints(table, replace(PLAIN, loras=(Lora("x"), Lora("y", strength=1.5))))
    assert told == "lora 2 strength is 1.5, but Any accepts 0.1 to 1. Set it to 1."
    assert "at most 4" in complaints(table, replace(PLAIN, loras=(Lora("x"),) * 5))


def test_a_table_that_says_nothing_denies_everything() -> None:
    """A field that is added to GenerationRequest, or to a table, must not be open by default."""
    bare = Capabilities("Bare")
    assert complaints(bare) == ""
    asked: dict[str, Any] = {
        "negative_prompt": "blurred",
        "clip_skip": 1,
        "scheduler": SchedulerChoice(SchedulerName.DDIM),
        "controls": (CANNY,),
        "references": (ImageReference(IMAGE),),
        "loras": (Lora("x"),),
        "init_image": IMAGE,
        "upscale": True,
        "vae": "x.safetensors",
    }
    for name, value in asked.items():
        assert complaints(bare, replace(PLAIN, **{name: value})), name
    one = replace(bare, controls=ControlSupport(modalities=frozenset({Modality.CANNY}), maximum=1))
    assert complaints(one, replace(PLAIN, controls=(CANNY,))) == ""
    for change in ({"start": 0.5}, {"mask": MASK}, {"detect": Detect.SERVICE}):
        assert complaints(one, replace(PLAIN, controls=(replace(CANNY, **change),))), change
