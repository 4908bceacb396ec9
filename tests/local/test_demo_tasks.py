"""The effect of tasks, masks, windows and LoRAs on images of the embedded model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from controlstack.core.errors import InvalidRequest
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest, ImageReference, Lora
from controlstack.core.scheduler import SchedulerChoice, SchedulerName
from controlstack.local.engine.generate import generate
from controlstack.local.engine.options import Options
from controlstack.local.model.local_model import LocalModel
from controlstack.models.library import Library
from controlstack.tools.demo_figures import edge_f1, palette_distance, to_tensor
from controlstack.tools.demo_scenes import Scene, draw_scene, edges
from safetensors.torch import save_file
from torch import Tensor

pytestmark = pytest.mark.slow

SCENES = [draw_scene(500_000 + number) for number in range(3)]
SIZE = 128
LEFT = (torch.arange(SIZE) < SIZE // 2).float().expand(1, SIZE, SIZE)


def request(number: int, **changes: object) -> GenerationRequest:
    scene = SCENES[number]
    made = GenerationRequest(scene.caption, width=SIZE, height=SIZE, steps=12, guidance_scale=4.0, seed=number)
    return replace(made, **changes)


def canny(number: int, **changes: object) -> ControlUnit:
    return replace(ControlUnit(Modality.CANNY, to_tensor(SCENES[number].canny)), **changes)


def image(demo: LocalModel, wanted: GenerationRequest) -> Tensor:
    return generate(demo, wanted).images


def uint8(result: Tensor) -> Tensor:
    return (result[0] * 255).round().byte()


def found(result: Tensor, scene: Scene, columns: slice) -> float:
    """The share of the map's edges in these columns that the image has within two pixels."""
    near = cv2.dilate(edges(uint8(result).numpy()), np.ones((5, 5), np.uint8))[:, columns] > 0
    wanted = scene.canny[:, columns, 0] > 0
    return float((near & wanted).sum() / max(1, wanted.sum()))


def test_a_masked_control_moves_edges_inside_its_mask_only(demo: LocalModel) -> None:
    scene = draw_scene(500_001, objects=3)  # with edges on both sides
    left, right = slice(0, SIZE // 2 - 8), slice(SIZE // 2 + 8, SIZE)  # away from the seam
    control = ControlUnit(Modality.CANNY, to_tensor(scene.canny))
    results = {}
    for name, controls in {
        "free": (),
        "left": (replace(control, mask=LEFT),),
        "right": (replace(control, mask=1 - LEFT),),
    }.items():
        images = [image(demo, request(n, prompt=scene.caption, controls=controls)) for n in range(2)]
        results[name] = [sum(found(p, scene, side) for p in images) / 2 for side in (left, right)]
    assert results["left"][0] > results["left"][1] + 0.3
    assert results["right"][1] > results["right"][0] + 0.3
    assert results["left"][0] > results["free"][0] + 0.3


def test_less_denoise_stays_closer_to_the_initial_image(demo: LocalModel) -> None:
    start = to_tensor(SCENES[0].image)
    distances = []
    for denoise in (0.2, 0.6, 1.0):
        result = image(demo, request(0, seed=9, init_image=start, denoise=denoise))
        distances.append(float((result - start).abs().mean()))
    assert distances[0] < 0.08
    assert distances[0] < distances[1] < distances[2]


def test_inpainting_redraws_the_mask_and_leaves_every_other_pixel(demo: LocalModel) -> None:
    start = to_tensor(SCENES[0].image)
    result = image(demo, request(1, init_image=start, mask=LEFT))
    kept = LEFT[0] < 0.5
    assert torch.equal(result[0][kept], start[0][kept])
    assert (result[0][~kept] - start[0][~kept]).abs().mean() > 0.05


def test_inpainting_follows_a_control_inside_the_mask(demo: LocalModel) -> None:
    scores = []
    for controls in ((canny(1),), ()):
        start = to_tensor(SCENES[0].image)
        result = uint8(image(demo, request(1, init_image=start, mask=torch.ones_like(LEFT), controls=controls)))
        scores.append(edge_f1(result.numpy(), SCENES[1].canny))
    assert scores[0] > 1.5 * scores[1]


def test_a_longer_window_follows_the_map_more_closely(demo: LocalModel) -> None:
    figures = []
    for end in (0.1, 0.4, 1.0):
        images = [uint8(image(demo, request(n, controls=(canny(n, end=end),)))).numpy() for n in range(3)]
        figures.append(sum(edge_f1(p, s.canny) for p, s in zip(images, SCENES, strict=True)))
    assert figures[0] < figures[1] < figures[2]


def test_a_longer_window_takes_more_of_the_reference(demo: LocalModel) -> None:
    distances = []
    for end in (0.1, 1.0):
        total = 0.0
        for number in range(3):
            reference = draw_scene(600_000 + number).image
            unit = ImageReference(to_tensor(reference), scale=1.0, end=end)
            result = image(demo, request(number, prompt=SCENES[number].colorless_caption, references=(unit,)))
            total += palette_distance(uint8(result).numpy(), reference)
        distances.append(total)
    assert distances[1] < 0.85 * distances[0]


def test_inversion_keeps_the_image_where_the_prompt_agrees_with_it(demo: LocalModel) -> None:
    start = to_tensor(SCENES[0].image)
    choice = SchedulerChoice(SchedulerName.DDIM_INVERSE)
    wanted = request(0, guidance_scale=1.0, init_image=start, scheduler=choice, steps=21)
    back = image(demo, wanted)
    fresh = image(demo, request(0, guidance_scale=1.0, steps=21))
    assert (back - start).abs().mean() < 0.5 * (fresh - start).abs().mean()
    with pytest.raises(InvalidRequest, match="which starts from an image"):
        image(demo, request(0, scheduler=choice))
    with pytest.raises(InvalidRequest, match="which cannot inpaint"):
        image(demo, replace(wanted, mask=LEFT))


@pytest.fixture
def reddening(demo: LocalModel, tmp_path: Path) -> Callable[[], LocalModel]:
    """The demo model with a LoRA trained here: one step of descent that makes every image redder."""
    unet, vae = demo.components["unet"], demo.components["vae"]
    flat = torch.tensor([[0.9, 0.1, 0.1], [0.5, 0.5, 0.5]])[..., None, None].expand(-1, -1, 64, 64)
    with torch.no_grad():
        red, gray = (vae.encode(flat * 2 - 1).latents).mean((2, 3))
    layer = "conv_out"
    weight = unet.get_submodule(layer).weight
    # The UNet predicts noise: less of it in the direction of red leaves more red. A rank-one change of its last layer
    # is a constant that comes with any activity of the channels before it.
    direction = -(red - gray) * 0.4
    features: list[Tensor] = []
    hook = unet.get_submodule(layer).register_forward_hook(lambda _m, inputs, _o: features.append(inputs[0]))
    generate(demo, request(0, steps=2))
    hook.remove()
    mean = torch.cat([f.mean((0, 2, 3))[None] for f in features]).mean(0)
    down = torch.zeros(1, weight.shape[1], *weight.shape[2:])
    down[0, :, 1, 1] = mean / mean.square().sum()
    up = direction[:, None, None, None]
    save_file(
        {f"unet.{layer}.lora_A.weight": down.contiguous(), f"unet.{layer}.lora_B.weight": up.contiguous()},
        tmp_path / "reddening.safetensors",
    )
    return lambda: replace(demo, library=Library({"loras": [tmp_path]}))


def test_a_lora_shifts_the_colors_it_was_made_to_shift(demo: LocalModel, reddening: Callable[[], LocalModel]) -> None:
    model = reddening()
    before = image(demo, request(0))
    redness = []
    for strength in (0.0, 1.0):
        result = image(model, request(0, loras=(Lora("reddening.safetensors", strength=strength),)))
        redness.append(float((result[..., 0] - result[..., 1:].mean(-1)).mean()))
    assert redness[1] > redness[0] + 0.05
    assert torch.equal(image(demo, request(0)), before)


def test_both_ways_of_upscaling_keep_the_image(demo: LocalModel) -> None:
    small = image(demo, request(0, width=64, height=64))
    wanted = request(0, width=64, height=64, upscale=True)
    drawn = image(demo, wanted)
    four_times = Options(upscaler=lambda images: images.repeat_interleave(4, 1).repeat_interleave(4, 2))
    enlarged = generate(demo, wanted, options=four_times).images  # brought to twice the size
    assert drawn.shape == enlarged.shape == (1, 128, 128, 3)
    shrunk = torch.nn.functional.avg_pool2d(drawn.movedim(-1, 1), 2).movedim(1, -1)
    assert (shrunk - small).abs().mean() < 0.15
    assert (torch.nn.functional.avg_pool2d(enlarged.movedim(-1, 1), 2).movedim(1, -1) - small).abs().max() < 0.01


def test_the_second_pass_changes_only_the_masked_part(demo: LocalModel) -> None:
    wide = torch.rand(1, 64, 128, 3, generator=torch.Generator().manual_seed(5))
    mask = torch.zeros(1, 64, 128)
    mask[..., 32:64] = 1  # of a square cut from the middle, the left half
    wanted = request(0, width=64, height=64, init_image=wide, mask=mask, upscale=True)
    drawn = image(demo, wanted)
    kept = torch.nn.functional.interpolate(wide[:, :, 32:96].movedim(-1, 1), (128, 128), mode="bilinear")
    difference = (drawn - kept.movedim(1, -1)).abs().amax((0, 1, 3))
    assert difference[:60].min() > 0.1 and difference[68:].max() < 1e-4


def test_a_second_pass_that_is_not_possible_is_an_error_of_upscale(demo: LocalModel) -> None:
    with pytest.raises(InvalidRequest, match=r"upscale is on, .*second pass at 3072x128 .* width is 3072"):
        generate(demo, request(0, width=1536, height=64, upscale=True))


def test_an_image_of_one_step_can_be_upscaled_in_a_second_pass(demo: LocalModel) -> None:
    """Denoise 0.5 of one step would be no step, so the second pass takes enough steps to leave one."""
    choice = SchedulerChoice(SchedulerName.LCM)
    assert image(demo, request(0, width=64, height=64, steps=1, scheduler=choice, upscale=True)).shape[1] == 128
