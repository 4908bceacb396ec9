"""The safety check: diffusers' own verdict, on each finished image alone, and no black images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from controlstack.core.errors import InvalidRequest, ModelUnreadable, OutOfMemory
from controlstack.core.images import fit_image
from controlstack.core.memory import PlainMemory
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest, Resize
from controlstack.local.engine.generate import Generation, generate
from controlstack.local.engine.options import Options
from controlstack.local.engine.run import Step
from controlstack.local.extras.safety_check import CHECKER, SQUARES, load_safety_check, pixelate
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.network_cache import NetworkCache
from controlstack.models.library import Library
from controlstack.tests.local.stocked import random_image
from controlstack.tests.local.test_offload import SmallMemory
from controlstack.tests.local.tiny_checker import FLAGS_ALL, FLAGS_NONE, tiny_checker, write_checker
from controlstack.tests.local.tiny_models import CPU, image_processor
from diffusers.image_processor import VaeImageProcessor
from safetensors.torch import load_file, save_file
from torch import Tensor

pytestmark = pytest.mark.slow

REQUEST = GenerationRequest("a red circle", width=64, height=64, steps=2, guidance_scale=3.5, seed=3)
CHECKED = Options(safety_check=True)

# One model with the checker of a threshold in ComfyUI's diffusers folder.
WithChecker = Callable[..., LocalModel]


@pytest.fixture
def with_checker(demo: LocalModel, tmp_path: Path) -> WithChecker:
    def made(threshold: float, special: float = FLAGS_NONE, **fields: Any) -> LocalModel:
        folder = tmp_path / f"diffusers {threshold} {special}"
        write_checker(folder / CHECKER, tiny_checker(threshold, special))
        return replace(demo, library=Library({"diffusers": [folder]}), **fields)

    return made


def made(model: LocalModel, **changes: Any) -> Generation:
    return generate(model, replace(REQUEST, **changes), options=CHECKED)


def verdicts(images: Tensor, threshold: float, special: float = FLAGS_NONE) -> list[bool]:
    """The verdicts that diffusers' pipelines get from the checker."""
    pil_images = VaeImageProcessor.numpy_to_pil(images.numpy())
    pixels = image_processor()(pil_images, return_tensors="pt").pixel_values
    return tiny_checker(threshold, special)(clip_input=pixels, images=images.numpy().copy())[1]


def nearness(image: Tensor) -> float:
    """The highest threshold at which an image [1, h, w, 3] is flagged, to the checker's three digits."""
    low, high = -1.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if verdicts(image, middle)[0] else (low, middle)
    return low


def colors(image: Tensor) -> int:
    return len(torch.unique(image.flatten(0, -2), dim=0))


def test_an_image_that_is_not_flagged_is_unchanged(with_checker: WithChecker) -> None:
    model = with_checker(FLAGS_NONE)
    result = made(model)
    assert result.flagged == ()
    assert result.notes == ()
    assert torch.equal(result.images, generate(model, REQUEST).images)


def test_a_flagged_image_keeps_its_colors_and_loses_what_it_shows(with_checker: WithChecker) -> None:
    model = with_checker(FLAGS_ALL)
    result = made(model, height=96)
    before = generate(model, replace(REQUEST, height=96)).images
    assert result.flagged == (0,)
    assert result.images.shape == before.shape
    assert 1 < colors(result.images[0]) <= SQUARES**2
    assert (result.images.mean((1, 2)) - before.mean((1, 2))).abs().max() < 0.02
    assert result.images.max() > 0.1, "not black"
    assert result.notes == (
        "Image 1 of 1 was flagged by the safety check and pixelated. Change the prompt or the seed, or "
        "switch safety_check off.",
    )


def test_the_verdict_is_that_of_diffusers_and_each_image_has_its_own(with_checker: WithChecker) -> None:
    plain = generate(with_checker(FLAGS_NONE), replace(REQUEST, batch_size=4)).images
    near = sorted(nearness(image[None]) for image in plain)
    threshold = (near[1] + near[2]) / 2
    expected = verdicts(plain, threshold)
    assert sum(expected) == 2
    result = made(with_checker(threshold), batch_size=4)
    assert result.flagged == tuple(index for index, flagged in enumerate(expected) if flagged)
    for index, flagged in enumerate(expected):
        assert torch.equal(result.images[index], plain[index]) is not flagged
    assert result.notes[0].startswith(f"Images {result.flagged[0] + 1}, {result.flagged[1] + 1} of 4 were flagged")


def test_near_a_special_concept_the_threshold_is_lower(with_checker: WithChecker) -> None:
    plain = generate(with_checker(FLAGS_NONE), REQUEST).images
    just_above = nearness(plain) + 0.005
    for special, flagged in ((FLAGS_NONE, ()), (FLAGS_ALL, (0,))):
        assert verdicts(plain, just_above, special) == [bool(flagged)]
        assert made(with_checker(just_above, special)).flagged == flagged


def test_the_upscaled_image_is_checked(with_checker: WithChecker) -> None:
    small = generate(with_checker(FLAGS_NONE), REQUEST).images
    other = random_image(9, size=128)
    near, far = nearness(fit_image(small, 128, 128, Resize.STRETCH)), nearness(other)
    assert abs(near - far) > 0.01
    model = with_checker((near + far) / 2)
    for upscaler, flagged in ((None, near > far), (lambda images: other, far > near)):
        options = Options(upscaler=upscaler, safety_check=True)
        request = replace(REQUEST, upscale=upscaler is not None)
        assert bool(generate(model, request, options=options).flagged) is flagged


def test_previews_are_pixelated_before_the_check(with_checker: WithChecker) -> None:
    previews: list[Tensor] = []

    def note(step: Step) -> None:
        previews.append(step.preview())

    model, request = with_checker(FLAGS_NONE), replace(REQUEST, width=128, height=128)
    generate(model, request, note)
    generate(model, request, note, CHECKED)
    open_previews, hidden = previews[:2], previews[2:]
    assert all(colors(preview) > SQUARES**2 for preview in open_previews)
    for preview, shown in zip(hidden, open_previews, strict=True):
        assert preview.dtype == shown.dtype
        assert colors(preview) <= SQUARES**2
        assert torch.equal(preview, pixelate(shown[None])[0])


@pytest.mark.parametrize("size", [(8, 8), (1, 3), (100, 61), (64, 512)])
def test_any_size_can_be_pixelated(size: tuple[int, int]) -> None:
    images = torch.rand(2, *size, 3)
    result = pixelate(images)
    assert result.shape == images.shape
    assert all(colors(image) <= SQUARES**2 for image in result)


def test_the_models_own_checker_comes_first(with_checker: WithChecker, tmp_path: Path) -> None:
    own = write_checker(tmp_path / "model" / "safety_checker", tiny_checker(FLAGS_NONE))
    model = with_checker(FLAGS_ALL)
    beside = own.parent / "feature_extractor"
    beside.mkdir()
    (own / "preprocessor_config.json").rename(beside / "preprocessor_config.json")
    assert made(model).flagged == (0,)
    assert made(replace(model, source=own.parent)).flagged == ()


def test_the_checker_is_loaded_once_and_managed_by_the_memory(with_checker: WithChecker) -> None:
    memory = SmallMemory(CPU)
    model = with_checker(FLAGS_ALL, networks=NetworkCache(memory))
    made(model)
    checker = load_safety_check(model).checker
    made(model, seed=4)
    assert load_safety_check(model).checker is checker
    loads = [names for names, _ in memory.loads if "StableDiffusionSafetyChecker" in names]
    assert loads == [["StableDiffusionSafetyChecker"]] * 2


def test_a_stack_of_nets_does_not_evict_the_checker(with_checker: WithChecker) -> None:
    model = with_checker(FLAGS_NONE, networks=NetworkCache(PlainMemory(CPU), limit=1))
    stack = tuple(ControlUnit(modality, random_image(5, size=64)) for modality in (Modality.CANNY, Modality.DEPTH))
    made(model, controls=stack)
    checker = load_safety_check(model).checker
    made(model, controls=stack, seed=4)
    assert load_safety_check(model).checker is checker


def test_the_precision_of_the_model_does_not_change_the_verdict(demo: LocalModel, tmp_path: Path) -> None:
    folder = write_checker(tmp_path / CHECKER, tiny_checker(FLAGS_ALL), torch.float16)
    model = replace(demo, library=Library({"diffusers": [tmp_path]}), dtype=torch.float16)
    check = load_safety_check(model)
    assert {parameter.dtype for parameter in check.checker.module.parameters()} == {torch.float32}
    assert check.flagged(random_image(1)) == (0,)
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    assert load_safety_check(model).flagged(random_image(1)) == (0,)


def test_a_missing_checker_is_an_error_before_anything_runs(demo: LocalModel, tmp_path: Path) -> None:
    model = replace(demo, library=Library({"diffusers": [tmp_path]}))
    steps: list[Step] = []
    with pytest.raises(InvalidRequest) as caught:
        generate(model, REQUEST, steps.append, CHECKED)
    assert str(caught.value).endswith(
        f"safety_check is on, but {tmp_path} does not contain the diffusers folder stable-diffusion-safety-checker. "
        "Download CompVis/stable-diffusion-safety-checker from huggingface.co into a folder of that name there, or "
        "switch safety_check off."
    )
    assert steps == []
    assert generate(model, REQUEST).images.isfinite().all()


def test_a_broken_checker_is_an_error_before_anything_runs(with_checker: WithChecker, tmp_path: Path) -> None:
    model = with_checker(FLAGS_ALL)
    (root,) = model.library.folders["diffusers"]
    weights = root / CHECKER / "model.safetensors"
    tensors = load_file(weights)
    del tensors["concept_embeds_weights"]
    save_file(tensors, weights, metadata={"format": "pt"})
    steps: list[Step] = []
    with pytest.raises(ModelUnreadable, match="lack 1 tensors; the first is concept_embeds_weights"):
        generate(model, REQUEST, steps.append, CHECKED)
    shutil.copytree(write_checker(tmp_path / "whole", tiny_checker(FLAGS_ALL)), root / CHECKER, dirs_exist_ok=True)
    (root / CHECKER / "preprocessor_config.json").unlink()
    with pytest.raises(ModelUnreadable, match="feature_extractor cannot be read"):
        generate(model, REQUEST, steps.append, CHECKED)
    assert steps == []


def test_too_little_memory_for_the_check_is_an_error(
    with_checker: WithChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = with_checker(FLAGS_NONE)

    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(load_safety_check(model).checker.module.vision_model, "forward", fails)
    with pytest.raises(OutOfMemory, match=r"too little memory for the safety check\. .* or switch safety_check off"):
        made(model)


def test_the_log_does_not_mention_black_images(with_checker: WithChecker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    assert made(with_checker(FLAGS_ALL)).flagged == (0,)
    assert "black" not in caplog.text
