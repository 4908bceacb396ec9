"""Validation finds every problem and says what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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
from controlstack.core.problems import ProblemKind
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

OTHER_STEP_INTERFACE = ProblemKind(
    "other_step_interface", "{value} has another step interface than {target}. Choose {choices}."
)
TARGET = Capabilities(
    target="Test Target",
    prompts=PromptSupport(negative=True),
    ranges={"width": Range(64, 1024, 8), "steps": Range(1, 50)},
    schedulers=SchedulerSupport(
        names=frozenset({SchedulerName.DDIM, SchedulerName.EULER}),
        missing={SchedulerName.KARRAS_VE: OTHER_STEP_INTERFACE},
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


# Each change makes exactly one problem, with its code, its field, a value that resolves it, and its sentence.
ONE_PROBLEM: dict[str, tuple[dict[str, Any], tuple[str, str, object], str]] = {
    "size": (
        {"width": 100},
        ("not_a_multiple", "width", 96),
        "width is 100, but Test Target accepts only multiples of 8 from 64 to 1024. Set it to 96.",
    ),
    "too wide": (
        {"width": 4096},
        ("not_a_multiple", "width", 1024),
        "width is 4096, but Test Target accepts only multiples of 8 from 64 to 1024. Set it to 1024.",
    ),
    "no steps": (
        {"steps": 0},
        ("out_of_range", "steps", 1),
        "steps is 0, but Test Target accepts 1 to 50. Set it to 1.",
    ),
    "clip_skip": (
        {"clip_skip": 3},
        ("unsupported_number", "clip_skip", 0),
        "Test Target does not support clip_skip. Set it to 0.",
    ),
    "scheduler": (
        {"scheduler": SchedulerChoice(SchedulerName.LMS)},
        ("unsupported_scheduler", "scheduler", "default"),
        "Test Target does not support LMSDiscreteScheduler. "
        "Set scheduler to default or to one of DDIMScheduler, EulerDiscreteScheduler.",
    ),
    "scheduler with a reason": (
        {"scheduler": SchedulerChoice(SchedulerName.KARRAS_VE)},
        ("other_step_interface", "scheduler", "default"),
        "KarrasVeScheduler has another step interface than Test Target. Choose DDIMScheduler, EulerDiscreteScheduler.",
    ),
    "karras": (
        {"scheduler": SchedulerChoice(SchedulerName.DDIM, True)},
        ("scheduler_without_karras", "use_karras_sigmas", False),
        "use_karras_sigmas is on, but DDIMScheduler does not support it on Test Target. "
        "Turn it off, or choose one of these schedulers: EulerDiscreteScheduler.",
    ),
    "algorithm": (
        {"scheduler": SchedulerChoice(SchedulerName.EULER, algorithm_type=AlgorithmType.DPMSOLVER)},
        ("unsupported_algorithm_type", "algorithm_type", "default"),
        "algorithm_type is dpmsolver, but EulerDiscreteScheduler supports only dpmsolver++ on Test Target. "
        "Set it to default or to one of these.",
    ),
    "loras": (
        {"loras": (Lora("a"),)},
        ("unsupported_loras", "loras", 0),
        "Test Target does not support LoRAs. Disconnect loras.",
    ),
    "modality": (
        {"controls": (replace(CANNY, modality=Modality.HED),)},
        ("unsupported_modality", "control 1 (hed)", None),
        "Test Target does not support control 1 (hed). It supports canny, depth. Remove it, or use one of these.",
    ),
    "strength": (
        {"controls": (replace(CANNY, strength=3.0),)},
        ("out_of_range", "control 1 (canny) strength", 2),
        "control 1 (canny) strength is 3, but Test Target accepts 0 to 2. Set it to 2.",
    ),
    "strength that is no number": (
        {"controls": (replace(CANNY, strength=float("nan")),)},
        ("out_of_range", "control 1 (canny) strength", 0),
        "control 1 (canny) strength is nan, but Test Target accepts 0 to 2. Set it to 0.",
    ),
    "window": (
        {"controls": (CANNY, replace(CANNY, start=0.5, end=0.5))},
        ("invalid_window", "control 2 (canny) window", "0 to 1"),
        "control 2 (canny) window is 0.5 to 0.5: start_percent must be below end_percent, and both must be from 0 to "
        "1. Use 0 and 1 for the whole run.",
    ),
    "empty window": (
        {"controls": (replace(CANNY, start=0.50, end=0.52),), "steps": 21},
        ("empty_window", "control 1 (canny) window", "0 to 1"),
        "control 1 (canny) window is 0.5 to 0.52, but none of the 21 model evaluations of the run falls inside it. "
        "Widen the window.",
    ),
    "channels": (
        {"controls": (replace(CANNY, image=torch.rand(1, 8, 8, 2)),)},
        ("image_shape", "control 1 image", None),
        "control 1 image has the shape [1, 8, 8, 2]. An image must have the shape [batch, height, width, channels] "
        "with 1, 3 or 4 channels, and no dimension may be 0. Check the node that it comes from.",
    ),
    "steps of a scheduler": (
        {"scheduler": SchedulerChoice(SchedulerName.DDIM), "steps": 41},
        ("too_many_steps", "steps", 40),
        "steps is 41, but DDIMScheduler takes at most 40 steps. Set it to 40.",
    ),
    "steps of no scheduler": (
        {"scheduler": SchedulerChoice(SchedulerName.DDIM), "steps": 60},
        ("too_many_steps", "steps", 40),
        "steps is 60, but DDIMScheduler takes at most 40 steps. Set it to 40.",
    ),
    "too many": (
        {"controls": (CANNY,) * 3},
        ("too_many", "controls", 2),
        "There are 3 controls, but Test Target accepts at most 2. Remove 1.",
    ),
    "service": (
        {"controls": (replace(CANNY, detect=Detect.SERVICE),)},
        ("unsupported_detect", "control 1 (canny) detect", Detect.LOCAL),
        "control 1 (canny) detect is service, but Test Target does not make control maps. Set detect to local or none.",
    ),
    "control mask": (
        {"controls": (replace(CANNY, mask=torch.ones(1, 8, 8)),)},
        ("unsupported_control_mask", "control 1 (canny) mask", None),
        "control 1 (canny) mask is connected, but Test Target cannot limit a control to an area. Disconnect it.",
    ),
    "nan": (
        {"controls": (replace(CANNY, image=IMAGE * float("nan")),)},
        ("not_finite", "control 1 image", None),
        "control 1 image contains NaN or infinite values. "
        "Check the node that it comes from. A VAE in fp16 often causes this.",
    ),
    "no pixels": (
        {"controls": (replace(CANNY, image=torch.rand(0, 8, 8, 3)),)},
        ("image_shape", "control 1 image", None),
        "control 1 image has the shape [0, 8, 8, 3]. An image must have the shape [batch, height, width, channels] "
        "with 1, 3 or 4 channels, and no dimension may be 0. Check the node that it comes from.",
    ),
    "batch": (
        {"controls": (replace(CANNY, image=torch.rand(3, 8, 8, 3)),), "batch_size": 2},
        ("wrong_batch", "control 1 image", None),
        "control 1 image is a batch of 3, but batch_size is 2. Connect a single image, or set batch_size to 3.",
    ),
    "reference kind": (
        {"references": (replace(STYLE, kind=ReferenceKind.FACE),)},
        ("unsupported_reference_kind", "reference 1 kind", "style"),
        "reference 1 kind is face, but Test Target supports only style. Change the kind, or disconnect the reference.",
    ),
    "reference scale": (
        {"references": (replace(STYLE, scale=1.5),)},
        ("out_of_range", "reference 1 scale", 1),
        "reference 1 scale is 1.5, but Test Target accepts 0 to 1. Set it to 1.",
    ),
    "reference window": (
        {"references": (replace(STYLE, end=0.5),)},
        ("unsupported_reference_window", "reference 1 window", "0 to 1"),
        "reference 1 window is 0 to 0.5, but Test Target applies a reference in every step. "
        "Set start_percent to 0 and end_percent to 1.",
    ),
    "references": (
        {"references": (STYLE, STYLE)},
        ("too_many", "references", 1),
        "There are 2 references, but Test Target accepts at most 1. Remove 1.",
    ),
    "init image": (
        {"init_image": IMAGE},
        ("unsupported_init_image", "init_image", None),
        "Test Target cannot start from an image. Disconnect init_image.",
    ),
    "mask": (
        {"mask": torch.zeros(3, 64, 64)},
        ("unsupported_mask", "mask", None),
        "Test Target does not support inpainting. Disconnect mask.",
    ),
    "denoise": (
        {"denoise": 0.5},
        ("unsupported_denoise", "denoise", 1.0),
        "denoise is 0.5, but Test Target cannot start from an image. Set denoise to 1.",
    ),
    "upscale": (
        {"upscale": True},
        ("unsupported_upscale", "upscale", False),
        "Test Target cannot upscale. Turn upscale off, and enlarge the result with an upscale node.",
    ),
    "vae": (
        {"vae": "x.safetensors"},
        ("unsupported_vae", "vae", ""),
        "vae is 'x.safetensors', but Test Target does not let you choose a VAE. Clear vae.",
    ),
}


@pytest.mark.parametrize("case", ONE_PROBLEM)
def test_each_mistake_is_one_sentence_with_field_value_and_remedy(case: str) -> None:
    changes, values, sentence = ONE_PROBLEM[case]
    (problem,) = validate(replace(GOOD, **changes), TARGET)
    assert str(problem) == sentence
    assert (problem.code, problem.field, problem.suggestion) == values


# A table that allows next to nothing.
BARE = Capabilities("Bare", ranges={"denoise": Range(0, 1)})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"controls": (CANNY, CANNY)}, "Bare does not accept controls. Disconnect controls."),
        ({"references": (STYLE, STYLE)}, "Bare does not accept reference images. Disconnect references."),
        ({"loras": (Lora("x"),)}, "Bare does not support LoRAs. Disconnect loras."),
        (
            {"scheduler": SchedulerChoice(SchedulerName.DDIM, True)},
            "Bare does not let you choose a scheduler. Set scheduler to default.",
        ),
        (
            {"scheduler": SchedulerChoice(use_karras_sigmas=True)},
            "Bare does not support use_karras_sigmas. Turn it off.",
        ),
        (
            {"scheduler": SchedulerChoice(algorithm_type=AlgorithmType.DPMSOLVER)},
            "Bare does not let you choose an algorithm type. Set algorithm_type to default.",
        ),
        ({"denoise": -1.0}, "denoise is -1, but Bare accepts 0 to 1. Set it to 0."),
    ],
)
def test_what_a_target_has_none_of_is_said_without_a_list(changes: dict[str, Any], sentence: str) -> None:
    assert messages(GenerationRequest(prompt="a cat", **changes), BARE) == [sentence]


def test_a_model_without_nets_lists_none() -> None:
    bare = replace(TARGET, controls=replace(TARGET.controls, modalities=frozenset(), remedy="Get one."))
    assert messages(GOOD, bare) == ["Test Target does not support control 1 (canny). Get one."]


def test_a_strength_that_cannot_be_changed_names_its_only_value() -> None:
    fixed = replace(TARGET, controls=replace(TARGET.controls, strength=Range(1, 1)))
    (message,) = messages(replace(GOOD, controls=(replace(CANNY, strength=0.5),)), fixed)
    assert message == ("control 1 (canny) strength is 0.5, but Test Target does not let you change it. Set it to 1.")


def test_an_empty_prompt_is_a_problem_only_where_one_is_needed() -> None:
    empty = replace(GOOD, prompt=" ")
    assert messages(empty) == []
    assert "prompt is empty" in messages(empty, replace(TARGET, prompts=PromptSupport(required=True)))[0]


def test_a_mask_needs_an_initial_image() -> None:
    able = replace(TARGET, init_images=InitImageSupport(accepted=True, inpainting=True))
    masked = replace(GOOD, mask=torch.ones(1, 8, 8))
    (message,) = messages(masked, able)
    assert message == ("mask is connected without an init_image. Connect the image to inpaint, or disconnect mask.")
    assert messages(replace(masked, mask=torch.zeros(3, 8, 8)), able) == [message], "one cause, one problem"
    (message,) = messages(replace(GOOD, denoise=0.5), able)
    assert message == "denoise is 0.5, but no init_image is connected. Connect one, or set denoise to 1."
    assert messages(replace(masked, init_image=IMAGE), able) == []


NO_NET_FOR_IMAGES = ProblemKind("no_net_for_images", "{target} has no net for images. Disconnect {field}.")
LATENT = replace(
    TARGET,
    prompts=PromptSupport(),
    schedulers=replace(TARGET.schedulers, needs_init_image=frozenset({SchedulerName.DDIM})),
    references=replace(TARGET.references, windows=True),
    init_images=InitImageSupport(accepted=True, inpainting=True, denoise_unit=DenoiseUnit.STEPS),
    conflicts=(Conflict(("controls", "init_image"), NO_NET_FOR_IMAGES),),
)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"negative_prompt": "blurred"}, ("Test Target does not support negative prompts. Clear negative_prompt.",)),
        (
            {"init_image": IMAGE, "denoise": 0.01},
            ("denoise is 0.01", "so none of the 21 steps would run", "Set it to 0.05 or more."),
        ),
        (
            {"scheduler": SchedulerChoice(SchedulerName.DDIM)},
            ("scheduler is DDIMScheduler", "starts from an image", "Connect init_image"),
        ),
        (
            {"scheduler": SchedulerChoice(SchedulerName.DDIM), "init_image": IMAGE, "mask": IMAGE[..., 0]},
            ("scheduler is DDIMScheduler", "cannot inpaint", "Disconnect mask"),
        ),
        (
            {"init_image": IMAGE, "controls": (CANNY,)},
            ("Test Target has no net for images. Disconnect controls.",),
        ),
        (
            {"init_image": IMAGE, "denoise": 0.2, "references": (replace(STYLE, end=0.1),)},
            ("reference 1 window is 0 to 0.1", "none of the 4 model evaluations", "Widen the window."),
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
            assert message.startswith(
                f"reference 1 mask is a batch of {count}, but the reference has 3 images. Connect"
            )


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
        assert message.startswith("mask is empty, so nothing would be redrawn. Paint a mask")
        (message,) = messages(replace(begun, controls=(replace(inpaint, mask=mask),)), able)
        assert message.startswith("control 1 (inpaint) mask is empty, so nothing would be filled in")
    (message,) = messages(replace(begun, controls=(CANNY, replace(CANNY, mask=zeros))), able)
    assert message.startswith("control 2 (canny) mask is empty, so the control would have no effect")
    assert messages(replace(begun, controls=(replace(CANNY, mask=faint),)), able) == [], "a limit may be faint"
    zeros[-1, 5, 5] = 1
    used = (replace(CANNY, mask=zeros), replace(inpaint, mask=zeros))
    assert messages(replace(begun, mask=zeros, controls=used), able) == [], "one pixel is enough"


def test_an_inpainting_model_asks_for_a_mask() -> None:
    (message,) = messages(
        replace(GOOD, controls=()), replace(LATENT, init_images=replace(LATENT.init_images, mask_required=True))
    )
    assert message.startswith("Test Target is an inpainting model")
    assert "Connect init_image and mask" in message


def test_all_problems_are_raised_at_once() -> None:
    bad = replace(GOOD, width=100, steps=0, controls=(replace(CANNY, modality=Modality.HED, start=0.9, end=0.1),))
    problems = validate(bad, TARGET)
    assert len(problems) == 4
    text = str(InvalidRequest(TARGET.target, problems))
    assert text.startswith("Invalid input. There are 4 problems:")
    assert text.count("\n- ") == 4


def test_printing_a_request_shows_shapes_and_never_pixels() -> None:
    shown = repr(replace(GOOD, init_image=torch.full((1, 4, 4, 3), 0.123456)))
    assert "<image 1x4x4x3>" in shown
    assert "<image 1x16x16x3>" in shown
    assert "0.123" not in shown
    assert "tensor" not in shown


def test_the_documented_modalities_keep_their_places_and_there_are_eighteen_schedulers() -> None:
    documented = (
        "canny depth hed mlsd normal openpose scribble segmentation inpaint softedge lineart shuffle tile "
        "face_detector qrcode blur pose gray low_quality"
    )
    assert [modality.value for modality in Modality][:19] == documented.split()
    assert len(SchedulerName) == 18


def test_resize_names_are_the_documented_ones() -> None:
    assert [mode.value for mode in Resize] == ["crop", "fit", "stretch"]
