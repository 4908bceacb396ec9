"""Validation finds every problem and says what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from controlstack.core.capabilities import (
    Capabilities,
    Conflict,
    ControlSupport,
    DenoiseUnit,
    InitImageSupport,
    PromptSupport,
    Range,
    ReferenceSupport,
    SchedulerSupport,
)
from controlstack.core.errors import InvalidRequest
from controlstack.core.modality import Modality
from controlstack.core.request import (
    ControlUnit,
    Detect,
    GenerationRequest,
    ImageReference,
    Lora,
    ReferenceKind,
    Resize,
)
from controlstack.core.scheduler import AlgorithmType, SchedulerChoice, SchedulerName
from controlstack.core.validate import validate

TARGET = Capabilities(
    target="Test Target",
    prompts=PromptSupport(negative=True),
    ranges={"width": Range(64, 1024, 8), "steps": Range(1, 50)},
    schedulers=SchedulerSupport(
        names=frozenset({SchedulerName.DDIM, SchedulerName.EULER}),
        missing={SchedulerName.KARRAS_VE: "it has another step interface"},
        karras_sigmas=frozenset({SchedulerName.EULER}),
        algorithm_types={SchedulerName.EULER: frozenset({AlgorithmType.DPMSOLVER_PP})},
        max_steps={SchedulerName.DDIM: 40},
    ),
    controls=ControlSupport(
        modalities=frozenset({Modality.CANNY, Modality.DEPTH}), maximum=2, strength=Range(0, 2), windows=True
    ),
    references=ReferenceSupport(kinds=frozenset({ReferenceKind.STYLE}), maximum=1, scale=Range(0, 1)),
)
IMAGE = torch.rand(1, 16, 16, 3)
CANNY = ControlUnit(Modality.CANNY, IMAGE)
STYLE = ImageReference(IMAGE)
GOOD = GenerationRequest(prompt="a cat", controls=(CANNY,), references=(STYLE,))


def messages(request: GenerationRequest, target: Capabilities = TARGET) -> list[str]:
    return [str(problem) for problem in validate(request, target)]


def test_a_good_request_has_no_problems() -> None:
    assert messages(GOOD) == []


# Each change makes exactly one problem, whose sentence holds the field, the value and the way out.
ONE_PROBLEM = {
    "size": ({"width": 100}, ("width is 100", "a multiple of 8 from 64 to 1024", "Set it to 96.")),
    "too wide": ({"width": 4096}, ("width is 4096", "Set it to 1024.")),
    "no steps": ({"steps": 0}, ("steps is 0", "from 1 to 50", "Set it to 1.")),
    "scheduler": (
        {"scheduler": SchedulerChoice(SchedulerName.KARRAS_VE)},
        ("scheduler is KarrasVeScheduler", "another step interface", "DDIMScheduler, EulerDiscreteScheduler"),
    ),
    "karras": (
        {"scheduler": SchedulerChoice(SchedulerName.DDIM, True)},
        ("use_karras_sigmas is on", "not DDIMScheduler"),
    ),
    "algorithm": (
        {"scheduler": SchedulerChoice(SchedulerName.EULER, algorithm_type=AlgorithmType.DPMSOLVER)},
        ("algorithm_type is dpmsolver:", "EulerDiscreteScheduler has dpmsolver++", "Choose default."),
    ),
    "loras": ({"loras": (Lora("a"),)}, ("loras is 1", "Test Target has none", "Disconnect loras.")),
    "modality": (
        {"controls": (replace(CANNY, modality=Modality.HED),)},
        ("control 1 (hed) is not available", "has canny, depth"),
    ),
    "strength": ({"controls": (replace(CANNY, strength=3.0),)}, ("control 1 (canny) strength is 3", "Set it to 2.")),
    "window": (
        {"controls": (CANNY, replace(CANNY, start=0.5, end=0.5))},
        ("control 2 (canny) window is 0.5 to 0.5", "start_percent must be below end_percent"),
    ),
    "empty window": (
        {"controls": (replace(CANNY, start=0.50, end=0.52),), "steps": 21},
        ("control 1 (canny) window is 0.5 to 0.52", "none of the 21 steps lies in it", "Widen it."),
    ),
    "channels": (
        {"controls": (replace(CANNY, image=torch.rand(1, 8, 8, 2)),)},
        ("control 1 image is of shape [1, 8, 8, 2]", "1, 3 or 4 channels"),
    ),
    "steps of a scheduler": (
        {"scheduler": SchedulerChoice(SchedulerName.DDIM), "steps": 41},
        ("steps is 41", "DDIMScheduler takes at most 40", "Set it to 40."),
    ),
    "too many": ({"controls": (CANNY,) * 3}, ("controls is 3", "at most 2", "Remove 1.")),
    "service": ({"controls": (replace(CANNY, detect=Detect.SERVICE),)}, ("detect is service", "local or none")),
    "control mask": (
        {"controls": (replace(CANNY, mask=torch.ones(1, 8, 8)),)},
        ("mask is connected", "Disconnect it."),
    ),
    "nan": (
        {"controls": (replace(CANNY, image=IMAGE * float("nan")),)},
        ("control 1 image is broken", "NaN"),
    ),
    "no pixels": ({"controls": (replace(CANNY, image=torch.rand(0, 8, 8, 3)),)}, ("control 1 image is of shape",)),
    "batch": (
        {"controls": (replace(CANNY, image=torch.rand(3, 8, 8, 3)),), "batch_size": 2},
        ("control 1 image is a batch of 3", "takes 1 or 2"),
    ),
    "reference kind": ({"references": (replace(STYLE, kind=ReferenceKind.FACE),)}, ("kind is face", "has style")),
    "reference scale": ({"references": (replace(STYLE, scale=1.5),)}, ("reference 1 scale is 1.5", "Set it to 1.")),
    "reference window": ({"references": (replace(STYLE, end=0.5),)}, ("applies it at every step",)),
    "references": ({"references": (STYLE, STYLE)}, ("references is 2", "at most 1")),
    "init image": ({"init_image": IMAGE}, ("init_image is connected", "cannot start from an image")),
    "denoise": ({"denoise": 0.5}, ("denoise is 0.5", "there is none", "Set it to 1")),
    "upscale": ({"upscale": True}, ("upscale is on",)),
    "vae": ({"vae": "x.safetensors"}, ("vae is 'x.safetensors'",)),
}


@pytest.mark.parametrize("case", ONE_PROBLEM)
def test_each_mistake_is_one_sentence_with_field_value_and_remedy(case: str) -> None:
    changes, parts = ONE_PROBLEM[case]
    (message,) = messages(replace(GOOD, **changes))
    for part in parts:
        assert part in message


def test_an_empty_prompt_is_a_problem_only_where_one_is_needed() -> None:
    empty = replace(GOOD, prompt=" ")
    assert messages(empty) == []
    assert "prompt is empty" in messages(empty, replace(TARGET, prompts=PromptSupport(required=True)))[0]


def test_a_mask_needs_an_initial_image() -> None:
    able = replace(TARGET, init_images=InitImageSupport(accepted=True, inpainting=True))
    masked = replace(GOOD, mask=torch.ones(1, 8, 8))
    assert "Connect init_image" in messages(masked, able)[0]
    assert messages(replace(masked, init_image=IMAGE), able) == []


LATENT = replace(
    TARGET,
    prompts=PromptSupport(),
    schedulers=replace(TARGET.schedulers, needs_init_image=frozenset({SchedulerName.DDIM})),
    references=replace(TARGET.references, windows=True),
    init_images=InitImageSupport(accepted=True, inpainting=True, denoise_unit=DenoiseUnit.STEPS),
    conflicts=(Conflict(("controls", "init_image"), "it has no net for pictures", "Disconnect one of them."),),
)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"negative_prompt": "blurred"}, ("negative_prompt is set", "Test Target has none", "Leave it empty.")),
        ({"init_image": IMAGE, "denoise": 0.01}, ("denoise is 0.01", "leaves none", "Set it to 0.05 or more.")),
        (
            {"scheduler": SchedulerChoice(SchedulerName.DDIM)},
            ("scheduler is DDIMScheduler", "begins with a picture", "Connect init_image"),
        ),
        (
            {"scheduler": SchedulerChoice(SchedulerName.DDIM), "init_image": IMAGE, "mask": IMAGE[..., 0]},
            ("scheduler is DDIMScheduler", "cannot inpaint", "Disconnect the mask"),
        ),
        (
            {"init_image": IMAGE, "controls": (CANNY,)},
            ("controls with init_image is connected", "no net for pictures", "Disconnect one of them."),
        ),
        (
            {"init_image": IMAGE, "denoise": 0.2, "references": (replace(STYLE, end=0.1),)},
            ("reference 1 window is 0 to 0.1", "none of the 4 steps lies in it", "Widen it."),
        ),
    ],
)
def test_what_a_latent_model_lacks_is_said(changes: dict[str, object], parts: tuple[str, ...]) -> None:
    (message,) = messages(replace(GOOD, **{"controls": (), **changes}), LATENT)
    assert all(part in message for part in parts), message


def test_a_reference_takes_one_mask_or_one_for_each_image() -> None:
    able = replace(TARGET, references=replace(TARGET.references, masks=True))
    for count in range(1, 5):
        reference = replace(STYLE, image=torch.rand(3, 16, 16, 3), mask=torch.ones(count, 16, 16))
        found = messages(replace(GOOD, references=(reference,)), able)
        if count in (1, 3):
            assert found == []
        else:
            (message,) = found
            assert message.startswith(f"reference 1 mask is a batch of {count}: the reference has 3 images. Connect")


def test_controls_of_strength_zero_conflict_with_nothing() -> None:
    request = replace(GOOD, init_image=IMAGE, controls=(replace(CANNY, strength=0.0),))
    assert messages(request, LATENT) == []


@pytest.mark.parametrize("batch", [1, 2])
def test_an_empty_mask_is_no_mask(batch: int) -> None:
    """ComfyUI's Load Image gives 64x64 zeros for a picture without transparency."""
    zeros, faint = torch.zeros(batch, 64, 64), torch.full((batch, 64, 64), 0.4)
    able = replace(
        TARGET,
        controls=replace(TARGET.controls, modalities=frozenset(Modality), masks=True),
        init_images=InitImageSupport(accepted=True, inpainting=True),
    )
    begun = replace(GOOD, init_image=IMAGE, batch_size=batch)
    inpaint = ControlUnit(Modality.INPAINT, IMAGE)
    for mask in (zeros, faint):
        (message,) = messages(replace(begun, mask=mask), able)
        assert message.startswith("mask is empty: nothing would be redrawn. Paint one")
        (message,) = messages(replace(begun, controls=(replace(inpaint, mask=mask),)), able)
        assert message.startswith("control 1 (inpaint) mask is empty: nothing would be filled in")
    (message,) = messages(replace(begun, controls=(CANNY, replace(CANNY, mask=zeros))), able)
    assert message.startswith("control 2 (canny) mask is empty: the control would act nowhere")
    assert messages(replace(begun, controls=(replace(CANNY, mask=faint),)), able) == [], "a limit may be faint"
    zeros[-1, 5, 5] = 1
    used = (replace(CANNY, mask=zeros), replace(inpaint, mask=zeros))
    assert messages(replace(begun, mask=zeros, controls=used), able) == [], "one pixel is enough"


def test_an_inpainting_model_asks_for_a_mask() -> None:
    (message,) = messages(
        replace(GOOD, controls=()), replace(LATENT, init_images=replace(LATENT.init_images, mask_required=True))
    )
    assert "mask is not connected" in message
    assert "Connect init_image and mask" in message


def test_all_problems_are_raised_at_once() -> None:
    bad = replace(GOOD, width=100, steps=0, controls=(replace(CANNY, modality=Modality.HED, start=0.9, end=0.1),))
    problems = validate(bad, TARGET)
    assert len(problems) == 4
    text = str(InvalidRequest(TARGET.target, problems))
    assert text.startswith("Test Target cannot use this, for 4 reasons:")
    assert text.count("\n- ") == 4


def test_printing_a_request_shows_shapes_and_never_pixels() -> None:
    shown = repr(replace(GOOD, init_image=torch.full((1, 4, 4, 3), 0.123456)))
    assert "<image 1x4x4x3>" in shown
    assert "<image 1x16x16x3>" in shown
    assert "0.123" not in shown
    assert "tensor" not in shown


def test_there_are_nineteen_modalities_and_eighteen_schedulers() -> None:
    assert len(Modality) == 19
    assert len(SchedulerName) == 18


def test_resize_names_are_the_documented_ones() -> None:
    assert [mode.value for mode in Resize] == ["crop", "fit", "stretch"]
