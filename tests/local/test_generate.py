"""The local engine: results are reproducible, equal those of the plain pipeline, and a run can be stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from controlstack.benchmarks.plain import plain_pipeline
from controlstack.core.cache import Cache
from controlstack.core.errors import GenerationFailed, InvalidRequest, ModelUnreadable, OutOfMemory
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, Detect, GenerationRequest, ImageReference, ReferenceKind
from controlstack.core.scheduler import AlgorithmType, SchedulerChoice, SchedulerName
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.engine.run import Step
from controlstack.local.model.local_model import LocalModel
from controlstack.local.schedulers.factory import ALGORITHM_TYPES, KARRAS_SIGMAS, make_scheduler
from controlstack.tools.demo_scenes import draw_scene
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow

SCENE = draw_scene(7, person=True)
MAPS = {Modality.CANNY: SCENE.canny, Modality.DEPTH: SCENE.depth, Modality.OPENPOSE: SCENE.openpose}


def unit(modality: Modality, **changes: object) -> ControlUnit:
    return replace(ControlUnit(modality, torch.from_numpy(MAPS[modality]).float()[None] / 255), **changes)


CANNY, DEPTH, OPENPOSE = (unit(modality) for modality in MAPS)
STYLE = ImageReference(torch.from_numpy(draw_scene(8).image).float()[None] / 255)
INIT_IMAGE = torch.from_numpy(SCENE.image).float()[None] / 255
REQUEST = GenerationRequest(prompt=SCENE.caption, width=128, height=128, steps=4, guidance_scale=4.0, seed=3)


def image(demo: LocalModel, request: GenerationRequest) -> torch.Tensor:
    return generate(demo, request).images


def differ(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() > 0.01)


def test_the_same_seed_repeats_exactly(demo: LocalModel) -> None:
    request = replace(REQUEST, controls=(CANNY,))
    assert torch.equal(image(demo, request), image(demo, request))
    assert differ(image(demo, request), image(demo, replace(request, seed=4)))


def test_each_image_of_a_batch_can_be_made_alone_from_its_seed(demo: LocalModel) -> None:
    batch = generate(demo, replace(REQUEST, controls=(CANNY,), batch_size=3))
    assert batch.images.shape == (3, 128, 128, 3)
    assert batch.seeds == (3, 4, 5)
    alone = image(demo, replace(REQUEST, controls=(CANNY,), seed=batch.seeds[2]))
    assert (batch.images[2] - alone[0]).abs().max() < 1e-3


def test_a_batch_takes_one_map_each(demo: LocalModel) -> None:
    other = torch.from_numpy(draw_scene(9).canny).float()[None] / 255
    both = unit(Modality.CANNY, image=torch.cat([CANNY.image, other]))
    batch = image(demo, replace(REQUEST, controls=(both,), batch_size=2))
    second = image(demo, replace(REQUEST, controls=(unit(Modality.CANNY, image=other),), seed=4))
    assert (batch[1] - second[0]).abs().max() < 1e-3


@pytest.mark.parametrize("controls", [(), (CANNY,), (CANNY, DEPTH, OPENPOSE)], ids=["none", "one", "three"])
def test_the_image_is_that_of_the_plain_diffusers_pipeline(demo: LocalModel, controls: tuple[ControlUnit, ...]) -> None:
    request = replace(REQUEST, controls=tuple(replace(control, strength=0.8, end=0.7) for control in controls))
    assert torch.equal(image(demo, request), plain_pipeline(demo, request)())


def test_a_control_of_strength_zero_changes_nothing(demo: LocalModel) -> None:
    without = image(demo, REQUEST)
    assert torch.equal(image(demo, replace(REQUEST, controls=(unit(Modality.CANNY, strength=0.0),))), without)
    assert differ(image(demo, replace(REQUEST, controls=(CANNY,))), without)


def test_every_control_of_a_stack_acts(demo: LocalModel) -> None:
    stack = (CANNY, DEPTH, OPENPOSE)
    whole = image(demo, replace(REQUEST, controls=stack))
    for left_out in range(3):
        rest = stack[:left_out] + stack[left_out + 1 :]
        assert differ(whole, image(demo, replace(REQUEST, controls=rest)))


def test_a_black_on_white_map_is_inverted_with_a_note(demo: LocalModel) -> None:
    drawn = replace(CANNY, image=1 - CANNY.image)
    result = generate(demo, replace(REQUEST, controls=(drawn,)))
    assert torch.equal(result.images, image(demo, replace(REQUEST, controls=(CANNY,))))
    assert result.notes == ("Canny Control: the map was inverted, as it had dark lines on light paper.",)
    detected = generate(demo, replace(REQUEST, controls=(replace(drawn, detect=Detect.LOCAL),)))
    assert differ(detected.images, result.images) and detected.notes == ()


def test_a_window_changes_when_the_control_acts(demo: LocalModel) -> None:
    early, late = (
        image(demo, replace(REQUEST, controls=(unit(Modality.CANNY, start=start, end=end),)))
        for start, end in ((0.0, 0.5), (0.5, 1.0))
    )
    assert differ(early, late)


def test_a_reference_of_scale_zero_changes_nothing_and_leaves_the_model_unchanged(demo: LocalModel) -> None:
    without = image(demo, REQUEST)
    assert torch.equal(image(demo, replace(REQUEST, references=(replace(STYLE, scale=0.0),))), without)
    assert differ(image(demo, replace(REQUEST, references=(STYLE,))), without)
    assert torch.equal(image(demo, REQUEST), without)


def test_reference_windows_and_several_references_act(demo: LocalModel) -> None:
    whole, early = (image(demo, replace(REQUEST, references=(replace(STYLE, end=end),))) for end in (1.0, 0.5))
    assert differ(whole, early)
    second = ImageReference(torch.from_numpy(draw_scene(10).image).float()[None] / 255, scale=0.5)
    assert differ(whole, image(demo, replace(REQUEST, references=(STYLE, second))))


def test_sizes_other_than_the_training_size_work(demo: LocalModel) -> None:
    assert image(demo, replace(REQUEST, width=64, height=136, steps=1, controls=(CANNY,))).shape == (1, 136, 64, 3)


def test_an_empty_prompt_is_allowed(demo: LocalModel) -> None:
    assert image(demo, replace(REQUEST, prompt="", steps=1)).isfinite().all()


def test_a_prompt_longer_than_the_encoder_window_is_not_cut_off(demo: LocalModel) -> None:
    filler = "a circle and " * 40
    a, b = (image(demo, replace(REQUEST, prompt=filler + end)) for end in ("a red star", "a blue ring"))
    assert differ(a, b)


def test_clip_skip_changes_the_embedding(demo: LocalModel) -> None:
    assert differ(image(demo, REQUEST), image(demo, replace(REQUEST, clip_skip=1)))


def test_every_step_is_reported_with_a_preview_of_the_result(demo: LocalModel) -> None:
    steps: list[tuple[int, int]] = []
    previews: list[torch.Tensor] = []

    def note(step: Step) -> None:
        steps.append((step.number, step.total))
        previews.append(step.preview())

    result = generate(demo, replace(REQUEST, steps=8), note).images[0]
    assert steps == [(n, 8) for n in range(1, 9)]
    assert previews[-1].shape == (16, 16, 3)
    small = torch.nn.functional.avg_pool2d(result.movedim(-1, 0)[None], 8)[0].movedim(0, -1)
    likeness = torch.corrcoef(torch.stack([previews[-1].float().flatten(), small.flatten()]))[0, 1]
    assert likeness > 0.8


def test_an_exception_in_the_listener_stops_the_generation_and_leaves_the_model_usable(demo: LocalModel) -> None:
    class Stopped(Exception):
        pass

    seen = []

    def stop_at_two(step: Step) -> None:
        seen.append(step.number)
        if step.number == 2:
            raise Stopped

    request = replace(REQUEST, controls=(CANNY,), references=(STYLE,))
    before = image(demo, request)
    with pytest.raises(Stopped):
        generate(demo, replace(request, steps=50), stop_at_two)
    assert seen == [1, 2]
    assert torch.equal(image(demo, request), before)


@pytest.mark.parametrize("name", sorted(SchedulerName))
@pytest.mark.parametrize("karras", [False, True])
def test_every_supported_scheduler_runs(demo: LocalModel, name: SchedulerName, karras: bool) -> None:
    request = replace(REQUEST, scheduler=SchedulerChoice(name, karras))
    if name is SchedulerName.DDIM_INVERSE:
        request = replace(request, init_image=INIT_IMAGE)
    if karras and name not in KARRAS_SIGMAS:
        with pytest.raises(InvalidRequest, match="use_karras_sigmas is on"):
            generate(demo, request)
        return
    result = generate(demo, request)
    made = {SchedulerName.DDIM_INVERSE: "PartialDDIMScheduler"}.get(name, name.value)
    assert result.scheduler.replace("Latent", "") == made
    assert result.images.isfinite().all()
    assert result.images.std() > 0.02


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, kinds in ALGORITHM_TYPES.items() for k in sorted(kinds)])
@pytest.mark.filterwarnings("ignore:.*algorithm_type.*:FutureWarning")
def test_every_supported_algorithm_type_runs(demo: LocalModel, name: SchedulerName, kind: AlgorithmType) -> None:
    choice = SchedulerChoice(name, algorithm_type=kind)
    assert make_scheduler(choice, demo.scheduler_config).config["algorithm_type"] == kind.value
    assert image(demo, replace(REQUEST, scheduler=choice)).isfinite().all()


@pytest.mark.parametrize("name", sorted(KARRAS_SIGMAS))
def test_karras_sigmas_change_the_noise_levels(demo: LocalModel, name: SchedulerName) -> None:
    plain, karras = (make_scheduler(SchedulerChoice(name, on), demo.scheduler_config) for on in (False, True))
    for scheduler in (plain, karras):
        scheduler.set_timesteps(8)
    assert not torch.equal(torch.as_tensor(plain.sigmas), torch.as_tensor(karras.sigmas))


def test_step_counts_that_a_scheduler_does_not_support_are_refused(demo: LocalModel) -> None:
    request = replace(REQUEST, steps=60, scheduler=SchedulerChoice(SchedulerName.LCM))
    with pytest.raises(InvalidRequest, match="LCMScheduler takes at most 50"):
        generate(demo, request)


def test_a_control_without_a_net_is_refused_with_a_remedy(demo: LocalModel) -> None:
    with pytest.raises(
        InvalidRequest, match=r"control 1 \(hed\)\. It supports canny, depth, openpose, pose\..*into models/controlnet"
    ):
        generate(demo, replace(REQUEST, controls=(replace(CANNY, modality=Modality.HED),)))


def test_a_result_with_nan_is_an_error_and_not_a_black_image(demo: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = demo.components["vae"].decoder
    broken = decoder.layers[0].weight.data.clone()
    monkeypatch.setattr(decoder.layers[0].weight, "data", torch.full_like(broken, float("nan")))
    broken_model = replace(demo, results=Cache(1))  # with a preview of its own
    with pytest.raises(GenerationFailed, match="Set precision to fp32"):
        generate(broken_model, replace(REQUEST, steps=1), lambda step: step.preview())


def test_an_adapter_that_cannot_be_loaded_leaves_the_model_usable(demo: LocalModel, tmp_path: Path) -> None:
    before = image(demo, REQUEST)
    tensors = load_file(inventory_of(demo).adapters[ReferenceKind.STYLE].path)
    del tensors["ip_adapter.3.to_k_ip.weight"]
    (tmp_path / "ip_adapter").mkdir()
    save_file(tensors, tmp_path / "ip_adapter" / "style.safetensors")
    broken = replace(demo, source=tmp_path)
    with pytest.raises(ModelUnreadable, match=r"style\.safetensors cannot be read"):
        generate(broken, replace(REQUEST, references=(STYLE,)))
    assert torch.equal(image(demo, REQUEST), before)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB). Tried to allocate 20.00 GB on private pool."),
    ],
    ids=["cuda", "mps"],
)
def test_out_of_memory_is_a_clear_error(demo: LocalModel, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(demo.components["vae"].decoder, "forward", fail)
    with pytest.raises(OutOfMemory, match=r"memory for a batch of 1 at 128x128 \(controls: 1\)\. Reduce"):
        generate(demo, replace(REQUEST, steps=1, controls=(CANNY,)))
