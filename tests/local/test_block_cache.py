"""First-block cache: similar steps skip blocks, ControlNets act in every step, and the model is left unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from controlstack.core.errors import InvalidRequest
from controlstack.core.memory import Offload
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest, ImageReference, Lora
from controlstack.local.engine.generate import Generation, generate
from controlstack.local.engine.options import Options
from controlstack.local.extras.block_cache import blocks_cached
from controlstack.local.model.local_model import LocalModel
from controlstack.local.model.pipelines import Task
from controlstack.models.families import Family
from controlstack.tests.local.stocked import SIZE, random_image
from controlstack.tests.local.test_plain_pipelines import STARTS, plain
from controlstack.tests.local.tiny_models import tiny_model
from diffusers.hooks import FirstBlockCacheConfig
from torch import Tensor

pytestmark = pytest.mark.slow

Models = Callable[[Family], LocalModel]

STEPS = 6
REQUEST = GenerationRequest("a red circle", width=SIZE, height=SIZE, steps=STEPS, guidance_scale=3.5, seed=3)
CANNY = ControlUnit(Modality.CANNY, 0.4 * random_image(1))
ALL, SOME, NEVER = 1.0, 0.4, 1e-9  # how much may differ


@pytest.fixture
def flux(stocked: Models) -> LocalModel:
    return stocked(Family.FLUX_DEV)


def made(model: LocalModel, block_cache: float, **changes: Any) -> Generation:
    return generate(model, replace(REQUEST, **changes), options=Options(block_cache=block_cache))


@contextmanager
def counted(model: LocalModel) -> Iterator[Counter[int]]:
    """The number of calls of each block that were computed."""
    calls: Counter[int] = Counter()
    blocks = [*model.denoiser.transformer_blocks, *model.denoiser.single_transformer_blocks]
    hooks = [
        block.attn.register_forward_hook(lambda *_, number=number: calls.update([number]))
        for number, block in enumerate(blocks)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def parts(model: LocalModel) -> list[tuple[type, set[str], int]]:
    """The classes of the denoiser's modules, their attributes and their hooks."""
    return [(type(m), set(vars(m)), len(m._forward_pre_hooks)) for m in model.denoiser.modules()]


def inputs(model: LocalModel, seed: int, batch: int = 1, nets: bool = True) -> dict[str, Tensor | list[Tensor]]:
    """Random inputs of a transformer for one step, with residuals of ControlNets."""
    random = torch.Generator().manual_seed(seed)
    config, inner = model.denoiser.config, model.denoiser.inner_dim
    tokens = 16

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    given: dict[str, Tensor | list[Tensor]] = {
        "hidden_states": numbers(batch, tokens, config.in_channels),
        "encoder_hidden_states": numbers(batch, 5, config.joint_attention_dim),
        "pooled_projections": numbers(batch, config.pooled_projection_dim),
        "timestep": torch.full((batch,), 0.5),
        "guidance": torch.full((batch,), 3.5),
        "img_ids": torch.zeros(tokens, 3),
        "txt_ids": torch.zeros(5, 3),
    }
    if nets:
        given["controlnet_block_samples"] = [numbers(batch, tokens, inner) for _ in range(2)]
        given["controlnet_single_block_samples"] = [numbers(batch, tokens, inner) for _ in range(2)]
    return given


@torch.no_grad()
def called(model: LocalModel, given: dict[str, Any]) -> Tensor:
    return model.denoiser(**given, return_dict=False)[0]


@pytest.mark.parametrize("controls", [(), (CANNY,)], ids=["no net", "one net"])
@pytest.mark.parametrize("task", list(Task))
def test_every_pipeline_skips_all_blocks_but_the_first_in_similar_steps(
    flux: LocalModel, task: Task, controls: tuple[ControlUnit, ...]
) -> None:
    changes = {**STARTS[task], "controls": controls}
    before, untouched = made(flux, 0, **changes), parts(flux)
    with counted(flux) as calls:
        nothing = made(flux, NEVER, **changes)
        steps = calls[0]
        assert set(calls.values()) == {steps}
    assert torch.equal(nothing.images, before.images)
    with counted(flux) as calls:
        short = made(flux, ALL, **changes)
    assert calls == {0: steps, 1: 1, 2: 1, 3: 1}
    assert not torch.equal(short.images, before.images)
    assert parts(flux) == untouched
    assert torch.equal(made(flux, 0, **changes).images, before.images)


def test_every_generation_starts_with_an_empty_cache(flux: LocalModel) -> None:
    first = made(flux, ALL)
    made(flux, ALL, seed=4)
    assert torch.equal(made(flux, ALL).images, first.images)


def test_an_interrupted_run_leaves_the_model_unchanged(flux: LocalModel) -> None:
    before, untouched = made(flux, 0).images, parts(flux)

    def stop(step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(flux, REQUEST, stop, Options(block_cache=ALL))
    assert parts(flux) == untouched
    assert torch.equal(made(flux, 0).images, before)


def test_without_nets_it_makes_the_image_of_diffusers_own_cache() -> None:
    model = tiny_model(Family.FLUX_DEV)  # diffusers leaves hooks behind
    request = replace(REQUEST, steps=12)
    exact = generate(model, request).images
    with counted(model) as ours:
        result = generate(model, request, options=Options(block_cache=SOME))
    model.denoiser.enable_cache(FirstBlockCacheConfig(threshold=SOME))
    with counted(model) as theirs:
        expected = plain(model, request, Task.TEXT_TO_IMAGE)
    assert ours == theirs
    assert 1 < ours[3] < 12
    assert (result.images - expected).abs().max() < 1e-5
    assert (expected - exact).abs().max() > 1e-4


def test_a_skipped_step_with_the_same_inputs_gives_the_same_prediction(flux: LocalModel) -> None:
    """The residuals of ControlNets are not added twice."""
    given = inputs(flux, 1)
    whole = called(flux, given)
    with counted(flux) as calls, blocks_cached(flux, NEVER):
        assert torch.equal(called(flux, given), whole)
        assert torch.allclose(called(flux, given), whole, atol=1e-5)
    assert calls == {0: 2, 1: 1, 2: 1, 3: 1}


def test_controlnets_act_in_skipped_steps(flux: LocalModel) -> None:
    given = inputs(flux, 1)
    later = {**given, "controlnet_single_block_samples": inputs(flux, 2)["controlnet_single_block_samples"]}
    first, second = (given["controlnet_single_block_samples"][0], later["controlnet_single_block_samples"][1])
    later["controlnet_single_block_samples"] = [first, second]  # the last one comes behind all blocks
    with counted(flux) as calls, blocks_cached(flux, NEVER):
        called(flux, given)
        short = called(flux, later)
    assert calls[3] == 1
    assert torch.allclose(short, called(flux, later), atol=1e-5)
    assert not torch.allclose(short, called(flux, given), atol=1e-2)


def test_a_step_in_which_a_net_starts_or_ends_is_not_skipped(flux: LocalModel) -> None:
    with_net, without = inputs(flux, 1), inputs(flux, 1, nets=False)
    with counted(flux) as calls, blocks_cached(flux, 0.05):
        for given in (without, without, with_net, with_net, without):
            called(flux, given)
    assert calls == {0: 5, 1: 3, 2: 3, 3: 3}


def test_the_image_of_a_batch_that_differs_most_decides(flux: LocalModel) -> None:
    given, other = inputs(flux, 1, batch=8, nets=False), inputs(flux, 2, nets=False)
    states = given["hidden_states"].clone()
    states[-1:] = other["hidden_states"]
    with counted(flux) as calls, blocks_cached(flux, 0.2) as cache:
        called(flux, given)
        called(flux, {**given, "hidden_states": states})
    assert calls[3] == 2
    with counted(flux) as calls, blocks_cached(flux, 0.2):
        called(flux, {**given, "hidden_states": given["hidden_states"]})
        called(flux, {**given, "hidden_states": given["hidden_states"] + 0.01})
    assert calls[3] == 1
    assert (cache.steps, cache.skipped_steps) == (2, 0)


@pytest.mark.parametrize("offload", [Offload.NONE, Offload.MODEL, Offload.SEQUENTIAL])
def test_every_offload_mode_makes_the_same_image(flux: LocalModel, offload: Offload) -> None:
    changes = {"controls": (CANNY,)}
    expected, before = made(flux, ALL, **changes).images, made(flux, 0, **changes).images
    model = replace(flux, offload=offload)
    assert torch.equal(made(model, ALL, **changes).images, expected)
    assert torch.equal(made(model, 0, **changes).images, before)


def test_controls_references_and_loras_act_together_with_it(flux: LocalModel) -> None:
    everything = {
        "controls": (CANNY,),
        "references": (ImageReference(random_image(2)),),
        "loras": (Lora("diffusers.safetensors"),),
    }
    before = made(flux, 0).images
    full = made(flux, ALL, **everything).images
    for name in everything:
        assert not torch.equal(full, made(flux, ALL, **{**everything, name: ()}).images)
    assert torch.equal(made(flux, 0).images, before)


def test_the_second_pass_of_an_upscale_has_a_cache_of_its_own(flux: LocalModel) -> None:
    result = made(flux, ALL, upscale=True)
    assert result.images.shape == (1, 2 * SIZE, 2 * SIZE, 3)
    assert list(result.notes) == [
        "block_cache 1 skipped blocks in 5 of 6 steps, which changed the image.",
        "Second pass: block_cache 1 skipped blocks in 2 of 3 steps, which changed the image.",
    ]


def test_the_notes_say_how_much_was_skipped(flux: LocalModel) -> None:
    assert made(flux, 0).notes == ()
    assert made(flux, ALL).notes == ("block_cache 1 skipped blocks in 5 of 6 steps, which changed the image.",)
    assert made(flux, NEVER).notes == (
        "block_cache 1e-09 skipped no blocks: no step was similar enough to the one before.",
    )


def test_other_families_and_thresholds_out_of_range_are_refused(flux: LocalModel, stocked: Models) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot use the block cache; only FLUX\.1 can\. Set block_cache to 0\."):
        made(stocked(Family.SDXL), 0.1)
    with pytest.raises(InvalidRequest, match=r"block_cache is 1\.5\. It must be from 0 to 1\. Set it to 1\."):
        made(flux, 1.5)
    with pytest.raises(InvalidRequest, match=r"(?s)2 problems.*steps is 0.*cannot use the block cache"):
        made(stocked(Family.SD15), 0.1, steps=0)
