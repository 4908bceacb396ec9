"""Token merging acts by its share while it is on, and leaves the model unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from controlstack.core.errors import InvalidRequest
from controlstack.core.memory import Offload
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest, ImageReference, Lora
from controlstack.local.engine.generate import generate
from controlstack.local.engine.options import Options
from controlstack.local.extras import token_merging
from controlstack.local.model.local_model import LocalModel
from controlstack.models.families import Family
from controlstack.tests.local.stocked import random_image
from torch import Tensor

pytestmark = pytest.mark.slow

Models = Callable[[Family], LocalModel]

REQUEST = GenerationRequest("a red circle", width=64, height=64, steps=2, guidance_scale=3.5, seed=3)


def image(model: LocalModel, share: float, **changes: object) -> Tensor:
    return generate(model, replace(REQUEST, **changes), options=Options(merge_tokens=share)).images


def differ(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() > 1e-5)


def parts(model: LocalModel) -> list[tuple[type, set[str], int]]:
    """The classes of the denoiser's modules, their attributes and their hooks."""
    return [(type(m), set(vars(m)), len(m._forward_pre_hooks)) for m in model.denoiser.modules()]


def test_merging_changes_the_image_by_its_share_and_leaves_the_model_unchanged(demo: LocalModel) -> None:
    before = image(demo, 0)
    untouched = parts(demo)
    half, most = image(demo, 0.5), image(demo, 0.75)
    assert differ(half, before)
    assert differ(most, half)
    assert parts(demo) == untouched
    assert torch.equal(image(demo, 0), before)
    assert torch.equal(image(demo, 0.5), half)


def test_an_interrupted_run_leaves_the_model_unchanged(demo: LocalModel) -> None:
    before, untouched = image(demo, 0), parts(demo)

    def stop(step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(demo, REQUEST, stop, Options(merge_tokens=0.5))
    assert parts(demo) == untouched
    assert torch.equal(image(demo, 0), before)


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL])
@pytest.mark.parametrize("offload", [Offload.NONE, Offload.SEQUENTIAL])
def test_the_unets_of_both_families_merge_in_every_offload_mode(
    stocked: Models, family: Family, offload: Offload
) -> None:
    model = replace(stocked(family), offload=offload)
    before = image(model, 0)
    assert differ(image(model, 0.5), before)
    assert torch.equal(image(model, 0), before)


def test_a_seed_gives_the_same_image_whatever_else_draws_random_numbers(demo: LocalModel) -> None:
    torch.manual_seed(1)
    first = image(demo, 0.5)
    torch.manual_seed(2)
    assert torch.equal(image(demo, 0.5), first)


@pytest.mark.parametrize("family", [Family.SD15, Family.SDXL])
def test_controls_references_and_loras_act_together_with_it(stocked: Models, family: Family) -> None:
    model = stocked(family)
    control = ControlUnit(Modality.CANNY, random_image(1))
    everything = {"references": (ImageReference(random_image(2)),), "loras": (Lora("diffusers.safetensors"),)}
    before = image(model, 0)
    full = image(model, 0.5, controls=(control,), **everything)
    assert differ(full, image(model, 0.5, controls=(control,)))
    assert differ(full, image(model, 0.5, **everything))
    assert differ(full, image(model, 0, controls=(control,), **everything))
    assert torch.equal(image(model, 0), before)
    assert [kind.__name__ for kind, _, _ in parts(model)].count("ToMeBlock") == 0


def test_an_image_of_a_batch_can_still_be_made_alone(demo: LocalModel) -> None:
    both = image(demo, 0.5, batch_size=2)
    assert (both[1:] - image(demo, 0.5, seed=REQUEST.seed + 1)).abs().max() < 1e-3


def test_the_notes_say_that_tokens_were_merged(demo: LocalModel) -> None:
    assert generate(demo, REQUEST).notes == ()
    (note,) = generate(demo, REQUEST, options=Options(merge_tokens=0.5)).notes
    assert note == "Token merging (0.5 of the tokens) changed the image."


def test_models_that_cannot_merge_tokens_are_refused(
    demo: LocalModel, stocked: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InvalidRequest, match=r"cannot merge tokens; only SD 1\.5 and SDXL can\. Set merge_tokens to 0\."
    ):
        image(stocked(Family.FLUX_DEV), 0.5, guidance_scale=3.5)
    with pytest.raises(InvalidRequest, match=r"merge_tokens is 0\.9\. It must be from 0 to 0\.75\. Set it to 0\.75\."):
        image(demo, 0.9)
    monkeypatch.setattr(token_merging, "find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match=r"tomesd is not installed\. .*pip install tomesd.* set merge_tokens to 0"):
        image(demo, 0.5)
