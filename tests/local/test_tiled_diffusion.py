"""Tiled diffusion: one tile gives the plain image, and several tiles leave no seam."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from controlstack.core.errors import InvalidRequest
from controlstack.core.memory import Offload
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest, ImageReference, Lora, ReferenceKind
from controlstack.core.scheduler import SchedulerChoice, SchedulerName
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.engine.options import Options
from controlstack.local.engine.run import Run, Step
from controlstack.local.extras.tiled_diffusion import Tile, tiles_of
from controlstack.local.files.request_networks import control_network
from controlstack.local.memory.offload import denoising_bytes
from controlstack.local.model.local_model import LocalModel
from controlstack.local.schedulers.factory import make_scheduler
from controlstack.models.families import Family
from controlstack.models.library import Library
from controlstack.tests.local.stocked import random_image
from controlstack.tests.local.tiny_models import control_net, tiny_model
from torch import Tensor

pytestmark = pytest.mark.slow

Models = Callable[[Family], LocalModel]

UNETS = [Family.SD15, Family.SDXL]
TILE = 64
WIDTH, HEIGHT = 128, 64
TILES = 3
LEFT = (torch.arange(WIDTH) < WIDTH // 2).float().expand(1, HEIGHT, WIDTH)
REQUEST = GenerationRequest("a red circle", width=WIDTH, height=HEIGHT, steps=2, guidance_scale=3.5, seed=3)
CANNY = ControlUnit(Modality.CANNY, 0.4 * random_image(1, size=WIDTH))
DEPTH = ControlUnit(Modality.DEPTH, random_image(2, size=WIDTH))
START = {"init_image": random_image(3, size=WIDTH), "denoise": 0.8}
REFERENCES = (
    ImageReference(random_image(4), scale=0.8, mask=LEFT),
    ImageReference(random_image(5, batch=2), scale=0.5, kind=ReferenceKind.CHARACTER),
)
# The features of a request, by name. Each of them acts on tiles.
ASKED: dict[str, dict[str, Any]] = {
    "text": {},
    "init_image": START,
    "inpainting": {**START, "mask": LEFT},
    "one net": {"controls": (CANNY,)},
    "two nets from an image": {"controls": (CANNY, replace(DEPTH, mask=LEFT)), **START},
    "a net in inpainting": {"controls": (CANNY,), **START, "mask": LEFT},
    "references": {"references": REFERENCES},
    "a net, references and a LoRA": {
        "controls": (replace(CANNY, end=0.5),),
        "references": REFERENCES,
        "loras": (Lora("diffusers.safetensors"),),
    },
    "without guidance": {"controls": (CANNY,), "guidance_scale": 1.0, "batch_size": 2},
    "inversion": {"controls": (CANNY,), **START, "scheduler": SchedulerChoice(SchedulerName.DDIM_INVERSE)},
}
ALSO_SDXL = ("text", "a net in inpainting", "a net, references and a LoRA")
UNION = ControlUnit(Modality.NORMAL, random_image(6, size=WIDTH))
UNIONS: dict[str, dict[str, Any]] = {
    "a union net": {"controls": (UNION,)},
    "two maps of a union net and a net": {
        "controls": (UNION, replace(UNION, modality=Modality.TILE, strength=0.7), CANNY)
    },
    "a masked map of a union net": {"controls": (UNION, replace(UNION, modality=Modality.TILE, mask=LEFT))},
}
CASES = [*((Family.SD15, name) for name in ASKED), *((Family.SDXL, name) for name in (*UNIONS, *ALSO_SDXL))]
IN_TILES = [
    (Family.SD15, "text"),
    (Family.SD15, "a net in inpainting"),
    (Family.SD15, "inversion"),
    (Family.SDXL, "a net, references and a LoRA"),
    (Family.SDXL, "two maps of a union net and a net"),
]


def request(name: str = "text", **changes: Any) -> GenerationRequest:
    return replace(REQUEST, **{**(ASKED | UNIONS)[name], **changes})


def image(model: LocalModel, wanted: GenerationRequest, tile_size: int = TILE, **options: Any) -> Tensor:
    return generate(model, wanted, options=Options(tile_size=tile_size, **options)).images


def latents(model: LocalModel, wanted: GenerationRequest, tile_size: int = TILE) -> Tensor:
    """After one step: what the UNet predicted of each place is then in that place alone."""
    run = Run(model, replace(wanted, steps=1), inventory_of(model), tile_size)
    prepared = run.prepare(make_scheduler(wanted.scheduler, model.scheduler_config), ())
    return prepared.call(lambda step: None, output="latent")


@contextmanager
def watched(module: Any) -> Iterator[list[tuple[int, int]]]:
    """The heights and widths that a network is given, in its latents."""
    seen: list[tuple[int, int]] = []
    hook = module.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[-2:])))
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize(("width", "height", "side"), [(128, 96, 64), (512, 64, 64), (1000, 776, 512), (64, 640, 128)])
def test_tiles_overlap_are_no_larger_than_the_limit_and_weights_sum_to_one(width: int, height: int, side: int) -> None:
    tiles = tiles_of(width, height, side)
    total = torch.zeros(height // 8, width // 8)
    for tile, weights in tiles.items():
        assert 8 * max(tile.height, tile.width) <= side
        assert weights.shape == (tile.height, tile.width)
        tile.of(total).add_(weights)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-6)
    for starts, length in (({t.left for t in tiles}, width), ({t.top for t in tiles}, height)):
        ordered = sorted(starts)
        assert ordered[0] == 0
        assert ordered[-1] == max(0, length - side) // 8
        assert all(8 * (b - a) <= 0.75 * side for a, b in pairwise(ordered))


def test_an_image_that_fits_is_one_tile_of_weight_one() -> None:
    ((tile, weights),) = tiles_of(128, 96, 128).items()
    assert tile == Tile(0, 0, 12, 16)
    assert bool((weights == 1).all())


@pytest.mark.parametrize(("family", "name"), CASES)
def test_one_tile_over_everything_makes_exactly_the_image_that_is_made_without(
    stocked: Models, family: Family, name: str
) -> None:
    model, wanted = stocked(family), request(name)
    assert torch.equal(image(model, wanted, 128), image(model, wanted, 0))


@pytest.mark.parametrize("family", UNETS)
def test_an_inpainting_unet_gets_tiles_of_mask_and_image(stocked_inpainting: Models, family: Family) -> None:
    model, wanted = stocked_inpainting(family), request("a net in inpainting")
    assert torch.equal(image(model, wanted, 128), image(model, wanted, 0))
    with watched(model.denoiser) as seen:
        image(model, wanted)
    assert set(seen) == {(8, 8)}


@pytest.mark.parametrize(("family", "name"), IN_TILES)
def test_the_unet_and_the_nets_get_one_tile_at_a_time(stocked: Models, family: Family, name: str) -> None:
    model, wanted = stocked(family), request(name)
    nets = [control_network(model, inventory_of(model).nets[control.modality]).module for control in wanted.controls]
    with watched(model.denoiser) as by_unet, watched(nets[0] if nets else torch.nn.Identity()) as by_net:
        result = image(model, wanted)
    assert result.isfinite().all()
    assert set(by_unet) == {(8, 8)}
    assert set(by_net) == ({(8, 8)} if nets else set())
    assert len(by_unet) >= TILES
    assert len(by_unet) % TILES == 0


@pytest.mark.parametrize("family", UNETS)
def test_each_tile_of_a_hint_is_encoded_once_and_a_net_runs_only_in_its_window(stocked: Models, family: Family) -> None:
    model = stocked(family)
    nets = [
        control_network(model, inventory_of(model).nets[modality]).module
        for modality in (Modality.CANNY, Modality.DEPTH)
    ]
    wanted = request(steps=6, controls=(replace(CANNY, end=0.5), DEPTH), scheduler=SchedulerChoice(SchedulerName.DDIM))
    with (
        watched(nets[0]) as canny,
        watched(nets[1]) as depth,
        watched(nets[0].controlnet_cond_embedding.conv_in) as canny_hints,
        watched(nets[1].controlnet_cond_embedding.conv_in) as depth_hints,
    ):
        image(model, wanted)
    assert (len(canny), len(depth)) == (3 * TILES, 6 * TILES)
    assert canny_hints == depth_hints == TILES * [(TILE, TILE)]


@pytest.mark.parametrize("family", UNETS)
def test_a_control_and_a_reference_act_inside_their_mask_only(stocked: Models, family: Family) -> None:
    model = stocked(family)
    without = latents(model, request())
    right_alone = slice(12, 16)  # the first tiles end at 8, the middle ones, which reach into the mask, at 12
    for changes in ({"controls": (replace(CANNY, mask=LEFT),)}, {"references": REFERENCES[:1]}):
        masked = latents(model, request(**changes))
        assert not torch.isclose(masked[..., :8], without[..., :8]).all(dim=1).any()
        assert torch.allclose(masked[..., right_alone], without[..., right_alone], atol=1e-6)
    unmasked = latents(model, request(controls=(CANNY,)))
    assert not torch.isclose(unmasked[..., right_alone], without[..., right_alone]).all(dim=1).any()


@pytest.mark.parametrize("family", UNETS)
def test_a_tile_gets_its_own_part_of_the_map(stocked: Models, family: Family) -> None:
    model = stocked(family)
    changed = CANNY.image.clone()
    changed[:, 112:, 112:] = 1 - changed[:, 112:, 112:]
    square = request(height=WIDTH, guidance_scale=1.0)
    before = latents(model, replace(square, controls=(CANNY,)))
    after = latents(model, replace(square, controls=(replace(CANNY, image=changed),)))
    there = (before != after).any(dim=(0, 1))  # one tile of nine reaches that corner, and it begins at 8
    assert not there[:8].any()
    assert not there[:, :8].any()
    assert there[8:, 8:].float().mean() > 0.5


def test_an_averaging_net_gets_its_whole_map_on_every_tile(tmp_path: Path) -> None:
    shuffle = control_net(Family.SD15, seed=31)
    shuffle.register_to_config(global_pool_conditions=True)
    shuffle.save_pretrained(tmp_path / "control_v11e_sd15_shuffle")
    model = tiny_model(Family.SD15, Library({"controlnet": [tmp_path]}))
    control = ControlUnit(Modality.SHUFFLE, random_image(2, size=WIDTH))
    wanted = request(controls=(control,))
    assert torch.equal(image(model, wanted, 128), image(model, wanted, 0))
    corner = control.image.clone()
    corner[:, 32:64, 96:] = 0  # in the image, and on the last of its tiles only
    changed = latents(model, request(controls=(replace(control, image=corner),)))
    there = (changed != latents(model, wanted)).any(dim=(0, 1))
    assert there[:, :4].float().mean() > 0.5  # on the first


@pytest.mark.parametrize("mode", [Offload.MODEL, Offload.SEQUENTIAL])
def test_every_offload_mode_makes_the_same_image(stocked: Models, mode: Offload) -> None:
    model, wanted = stocked(Family.SD15), request("a net, references and a LoRA")
    assert torch.equal(image(replace(model, offload=mode), wanted), image(model, wanted))


def test_a_run_out_of_memory_on_a_tile_is_repeated(stocked: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    model, wanted = replace(stocked(Family.SD15), offload=Offload.MODEL), request("one net")
    expected = image(model, wanted)
    calls: list[int] = []
    compute = model.denoiser.conv_in.forward

    def short_of_memory_once(sample: Tensor) -> Tensor:
        calls.append(len(calls))
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return compute(sample)

    monkeypatch.setattr(model.denoiser.conv_in, "forward", short_of_memory_once)
    result = generate(model, wanted, options=Options(tile_size=TILE))
    assert result.offload == Offload.SEQUENTIAL.value
    assert torch.equal(result.images, expected)


def test_the_denoising_estimate_is_that_of_a_tile(stocked: Models) -> None:
    model = stocked(Family.SD15)
    _, denoising, decoding, *_ = Run(model, REQUEST, inventory_of(model), TILE).stages()
    assert denoising.activation_bytes == denoising_bytes(TILE, TILE, 2, 4, 1.0)
    whole = Run(model, REQUEST, inventory_of(model)).stages()
    assert (whole[1].activation_bytes, decoding.activation_bytes) == (
        denoising_bytes(WIDTH, HEIGHT, 2, 4, 1.0),
        whole[2].activation_bytes,
    )


def test_an_interrupted_run_leaves_the_model_unchanged(demo: LocalModel) -> None:
    wanted = replace(REQUEST, steps=2)
    before = image(demo, wanted, 0)
    attributes = [set(vars(module)) for module in demo.denoiser.modules()]

    def stop(step: Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(demo, wanted, stop, Options(tile_size=TILE))
    assert [set(vars(module)) for module in demo.denoiser.modules()] == attributes
    assert torch.equal(image(demo, wanted, 0), before)


def test_steps_and_previews_are_those_of_the_whole_image(demo: LocalModel) -> None:
    steps: list[tuple[int, int, tuple[int, ...]]] = []
    generate(
        demo, REQUEST, lambda s: steps.append((s.number, s.total, tuple(s.preview().shape))), Options(tile_size=TILE)
    )
    assert steps == [(1, 2, (8, 16, 3)), (2, 2, (8, 16, 3))]


def test_an_image_of_a_batch_can_be_made_alone(demo: LocalModel) -> None:
    both = image(demo, request(batch_size=2))
    assert (both[1:] - image(demo, request(seed=REQUEST.seed + 1))).abs().max() < 1e-3


def test_tokens_are_merged_on_each_tile(demo: LocalModel) -> None:
    pytest.importorskip("tomesd")
    plain, merged = image(demo, REQUEST), image(demo, REQUEST, merge_tokens=0.5)
    assert not torch.equal(plain, merged)
    assert torch.equal(image(demo, REQUEST, 128, merge_tokens=0.5), image(demo, REQUEST, 0, merge_tokens=0.5))


def test_the_notes_say_how_many_tiles_there_were(demo: LocalModel) -> None:
    (note,) = generate(demo, REQUEST, options=Options(tile_size=TILE)).notes
    assert note == "Every step was predicted in 3 tiles of 64 pixels."
    assert generate(demo, REQUEST, options=Options(tile_size=128)).notes == ()


def test_unsupported_tiles_are_reported_with_every_other_problem(demo: LocalModel, stocked: Models) -> None:
    with pytest.raises(
        InvalidRequest, match=r"does not support tiled diffusion; only SD 1\.5 and SDXL do\. Set tile_size to 0, or"
    ):
        image(stocked(Family.FLUX_DEV), REQUEST)
    with pytest.raises(InvalidRequest, match=r"tile_size is 100\. It must be a multiple of 64\. Set it to 128, or"):
        image(demo, REQUEST, 100)
    with pytest.raises(InvalidRequest, match=r"tile_size is -64\. .* Set it to 64, or to 0"):
        image(demo, REQUEST, -64)
    with pytest.raises(InvalidRequest) as raised:
        image(demo, request(controls=(replace(CANNY, modality=Modality.HED),)), 100)
    assert [problem.field for problem in raised.value.problems] == ["control 1 (hed)", "tile_size"]
