"""Stacks of ControlNets: nets run in their window only, hints are encoded once, and masks limit the effect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest
from controlstack.local.engine.generate import generate
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.files.request_networks import control_network
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.pipelines import Task
from controlstack.local.schedulers.factory import make_scheduler
from controlstack.models.families import Family
from controlstack.models.library import Library
from controlstack.tests.local.stocked import SIZE, random_image
from controlstack.tests.local.test_plain_pipelines import plain, shown
from controlstack.tests.local.tiny_models import control_net, flux_transformer, tiny_model, xlabs_net
from torch import Tensor

pytestmark = pytest.mark.slow

Models = Callable[[Family], LocalModel]

FAMILIES = [Family.SD15, Family.SDXL, Family.FLUX_DEV]
REQUEST = GenerationRequest("a red circle", width=SIZE, height=SIZE, steps=6, guidance_scale=3.5, seed=3)
CANNY = ControlUnit(Modality.CANNY, 0.4 * random_image(1))
DEPTH = ControlUnit(Modality.DEPTH, random_image(2))
LEFT = (torch.arange(SIZE) < SIZE // 2).float().expand(1, SIZE, SIZE)


@contextmanager
def counted(model: LocalModel, *modalities: Modality) -> Iterator[Counter[str]]:
    """How often the nets of these modalities run, and how often they encode a hint."""
    calls: Counter[str] = Counter()
    hooks = []
    for modality in modalities:
        net = control_network(model, inventory_of(model).nets[modality]).module
        hooks.append(net.register_forward_hook(lambda *_, name=modality.value: calls.update([name])))
        if encoder := getattr(net, "controlnet_cond_embedding", None):
            first = encoder.conv_in
            hooks.append(first.register_forward_hook(lambda *_, name=modality.value: calls.update([f"{name} hints"])))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_net_does_not_run_outside_of_its_window(stocked: Models, family: Family) -> None:
    model = stocked(family)
    controls = (replace(CANNY, end=0.5), replace(DEPTH, start=0.5, end=0.9))
    request = replace(REQUEST, controls=controls)
    with counted(model, Modality.CANNY, Modality.DEPTH) as calls:
        images = generate(model, request).images
    assert (calls["canny"], calls["depth"]) == (3, 2)
    assert torch.equal(images, plain(model, request, Task.TEXT_TO_IMAGE))


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL])
def test_a_hint_is_encoded_once_a_generation(stocked: Models, family: Family) -> None:
    model = stocked(family)
    request = replace(REQUEST, controls=(CANNY, DEPTH))
    for _ in range(2):  # nothing is left behind
        with counted(model, Modality.CANNY, Modality.DEPTH) as calls:
            generate(model, request)
        assert calls["canny"] == calls["depth"] >= request.steps
        assert calls["canny hints"] == calls["depth hints"] == 1
    net = control_network(model, inventory_of(model).nets[Modality.CANNY]).module
    assert "forward" not in vars(net.controlnet_cond_embedding)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_control_of_strength_zero_is_ignored(stocked: Models, family: Family) -> None:
    model = stocked(family)
    with counted(model, Modality.CANNY) as calls:
        images = generate(model, replace(REQUEST, controls=(replace(CANNY, strength=0.0), DEPTH))).images
    assert calls["canny"] == 0
    assert torch.equal(images, generate(model, replace(REQUEST, controls=(DEPTH,))).images)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_white_mask_changes_nothing_and_a_black_mask_removes_the_control(stocked: Models, family: Family) -> None:
    model = stocked(family)

    def image(*controls: ControlUnit) -> Tensor:
        return generate(model, replace(REQUEST, controls=controls)).images

    assert torch.equal(image(replace(CANNY, mask=torch.ones_like(LEFT))), image(CANNY))
    nothing = replace(
        CANNY, strength=1e-30
    )  # FLUX draws noise for every hint, so a net that is left out moves the rest
    assert torch.equal(image(replace(CANNY, mask=1e-30 * LEFT), DEPTH), image(nothing, DEPTH))
    assert not torch.equal(image(replace(CANNY, mask=LEFT)), image(CANNY))


def test_a_mask_scales_the_residuals_of_each_position(stocked: Models) -> None:
    from controlstack.local.controlnet.control import Control
    from controlstack.local.controlnet.unet_stack import unet_control_stack

    model = stocked(Family.SD15)
    net = control_network(model, inventory_of(model).nets[Modality.CANNY]).module
    hint = random_image(1).movedim(-1, 1)
    inputs = {
        "encoder_hidden_states": torch.randn(1, 77, 32),
        "controlnet_cond": [hint],
        "conditioning_scale": [1.0],
        "return_dict": False,
    }
    sample = torch.randn(1, 4, SIZE // 8, SIZE // 8)
    with torch.no_grad():
        whole = unet_control_stack([Control(net)], guided=False)(sample, 10, **inputs)
        half = unet_control_stack([Control(net, mask=LEFT[:, None])], guided=False)(sample, 10, **inputs)
    for all_of_it, left in zip([*whole[0], whole[1]], [*half[0], half[1]], strict=True):
        width = all_of_it.shape[-1]
        if width > 1:
            assert torch.equal(left[..., : width // 2], all_of_it[..., : width // 2])
            assert not left[..., width // 2 :].any()
        else:
            assert torch.equal(left, all_of_it / 2)


def test_a_union_net_alone_makes_the_image_of_the_union_pipeline(stocked: Models) -> None:
    model = stocked(Family.SDXL)
    controls = (
        ControlUnit(Modality.NORMAL, random_image(1), strength=0.7),
        ControlUnit(Modality.TILE, random_image(2), strength=1.2),
    )
    request = replace(REQUEST, controls=controls)
    for used in (controls[:1], controls):
        nets = [inventory_of(model).nets[control.modality] for control in used]
        assert all(net.union for net in nets)
        parts = {**model.components, "scheduler": make_scheduler(request.scheduler, model.scheduler_config)}
        pipeline = diffusers.StableDiffusionXLControlNetUnionPipeline(
            **parts, controlnet=control_network(model, nets[0]).module, add_watermarker=False
        )
        pipeline.set_progress_bar_config(disable=True)
        theirs = pipeline(
            request.prompt,
            width=SIZE,
            height=SIZE,
            control_image=[control.image.movedim(-1, 1) for control in used],
            control_mode=[net.mode for net in nets],
            controlnet_conditioning_scale=[control.strength for control in used],
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator().manual_seed(request.seed),
            output_type="pt",
        ).images.movedim(1, -1)
        assert torch.equal(generate(model, replace(request, controls=used)).images, theirs)


def test_a_flux_union_net_makes_the_image_of_the_plain_pipeline(stocked: Models) -> None:
    model = stocked(Family.FLUX_DEV)
    controls = (
        ControlUnit(Modality.OPENPOSE, random_image(1), strength=0.7),
        ControlUnit(Modality.TILE, random_image(2), strength=1.2),
    )
    nets = [inventory_of(model).nets[control.modality] for control in controls]
    parts = {**model.components, "scheduler": make_scheduler(REQUEST.scheduler, model.scheduler_config)}
    pipeline = diffusers.FluxControlNetPipeline(
        **parts, controlnet=diffusers.FluxMultiControlNetModel([control_network(model, nets[0]).module])
    )
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        REQUEST.prompt,
        width=SIZE,
        height=SIZE,
        control_image=[shown(control.image, flux=True) for control in controls],
        control_mode=[net.mode for net in nets],
        controlnet_conditioning_scale=[control.strength for control in controls],
        control_guidance_start=[0.0, 0.0],
        control_guidance_end=[1.0, 1.0],
        num_inference_steps=REQUEST.steps,
        guidance_scale=REQUEST.guidance_scale,
        generator=torch.Generator().manual_seed(REQUEST.seed),
        output_type="pt",
    ).images.movedim(1, -1)
    assert torch.equal(generate(model, replace(REQUEST, controls=controls)).images, theirs)


@pytest.mark.parametrize("alone", [True, False])
def test_an_averaging_net_acts_as_in_the_plain_pipeline_and_does_not_affect_other_nets(
    tmp_path: Path, alone: bool
) -> None:
    folder = tmp_path / "controlnet"
    shuffle = control_net(Family.SD15, seed=31)
    shuffle.register_to_config(global_pool_conditions=True)
    shuffle.save_pretrained(folder / "control_v11e_sd15_shuffle")
    control_net(Family.SD15, seed=3).save_pretrained(folder / "control_v11p_sd15_canny")
    model = tiny_model(Family.SD15, Library({"controlnet": [folder]}))
    first = ControlUnit(Modality.SHUFFLE, random_image(2), end=0.6)
    if alone:
        request = replace(REQUEST, controls=(first,))
        whole = replace(request, controls=(replace(first, end=1.0),))
        assert torch.equal(generate(model, whole).images, plain(model, whole, Task.TEXT_TO_IMAGE))
        assert generate(model, request).images.isfinite().all()  # diffusers' own stack fails without residuals
        masked = replace(request, controls=(replace(first, mask=LEFT),))
        assert not torch.equal(generate(model, masked).images, generate(model, request).images)
    else:
        before = replace(REQUEST, controls=(first, CANNY))
        after = replace(REQUEST, controls=(CANNY, first))
        assert torch.allclose(generate(model, before).images, generate(model, after).images, atol=1e-4)


def test_flux_nets_of_different_depth_can_be_combined(tmp_path: Path) -> None:
    folder = tmp_path / "controlnet"
    control_net(Family.FLUX_DEV, seed=3).save_pretrained(folder / "FLUX.1-dev-Controlnet-Canny")
    net = control_net(Family.FLUX_DEV, seed=13)
    net.transformer_blocks, net.controlnet_blocks = net.transformer_blocks[:1], net.controlnet_blocks[:1]
    net.register_to_config(num_layers=1)
    net.save_pretrained(folder / "FLUX.1-dev-Controlnet-Depth")
    model = tiny_model(Family.FLUX_DEV, Library({"controlnet": [folder]}))
    image = generate(model, replace(REQUEST, controls=(CANNY, DEPTH))).images
    for left_out in (0, 1):
        controls = [CANNY, DEPTH]
        controls[left_out] = replace(controls[left_out], strength=1e-30)
        assert not torch.equal(image, generate(model, replace(REQUEST, controls=tuple(controls))).images)


def test_each_flux_net_gives_its_residuals_to_the_blocks_it_was_made_for() -> None:
    from controlstack.local.controlnet.control import Control
    from controlstack.local.controlnet.flux_stack import flux_control_stack

    transformer = flux_transformer()
    transformer.transformer_blocks.extend(flux_transformer().transformer_blocks[:1])  # three
    deep = control_net(Family.FLUX_DEV, num_layers=3)
    nets = [deep, control_net(Family.FLUX_DEV, seed=13), xlabs_net(seed=23)]
    maps = [random_image(seed).movedim(-1, 1) for seed in range(3)]
    tokens = (SIZE // 16) ** 2
    rows, columns = torch.meshgrid(torch.arange(SIZE // 16), torch.arange(SIZE // 16), indexing="ij")
    inputs = {
        "hidden_states": torch.randn(1, tokens, 16),
        "encoder_hidden_states": torch.randn(1, 5, 32),
        "pooled_projections": torch.randn(1, 32),
        "timestep": torch.tensor([0.5]),
        "guidance": torch.tensor([3.5]),
        "img_ids": torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(tokens, 3).float(),
        "txt_ids": torch.zeros(5, 3),
        "return_dict": False,
    }
    latents = torch.randn(1, tokens, 16)  # as a pipeline encodes a map
    modes = [torch.tensor([-1])] * 3
    with torch.no_grad():
        stack = flux_control_stack([Control(net) for net in nets], maps, transformer)
        double, single = stack(
            **inputs, controlnet_cond=[latents] * 3, controlnet_mode=modes, conditioning_scale=[1.0, 1.0, 1.0]
        )
        hints = [latents, latents, maps[2]]
        alone = [net(**inputs, controlnet_cond=hint) for net, hint in zip(nets, hints, strict=True)]
    (a, single_a), (b, single_b), (c, none) = alone
    assert none is None
    # With two residuals for three blocks, InstantX's first one goes to two neighbors; XLabs' take turns.
    for block, (x, y, z) in zip(double, [(a[0], b[0], c[0]), (a[1], b[0], c[1]), (a[2], b[1], c[0])], strict=True):
        assert torch.equal(block, x + y + z)
    assert [torch.equal(block, single_a[0] + single_b[0]) for block in single] == [True, True]


def test_flux_nets_that_encode_maps_themselves_can_be_combined_with_others_in_either_order(tmp_path: Path) -> None:
    folder = tmp_path / "controlnet"
    xlabs_net().save_pretrained(folder / "flux-canny-controlnet-v3")
    control_net(Family.FLUX_DEV, seed=13).save_pretrained(folder / "FLUX.1-dev-Controlnet-Depth")
    model = tiny_model(Family.FLUX_DEV, Library({"controlnet": [folder]}))
    for controls in ((CANNY, DEPTH), (DEPTH, CANNY)):
        image = generate(model, replace(REQUEST, controls=controls)).images
        for index in (0, 1):
            other = list(controls)
            other[index] = replace(controls[index], image=1 - controls[index].image)
            assert not torch.equal(image, generate(model, replace(REQUEST, controls=tuple(other))).images)
