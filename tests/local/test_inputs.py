"""A mask covers the same part of its image, whatever its size and however the image is resized."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest, ImageReference, Resize
from controlstack.local.adapters.ip_adapter import reference_inputs
from controlstack.local.engine.inputs import net_controls, start_inputs
from controlstack.local.engine.inventory import inventory_of
from controlstack.local.model.local_model import LocalModel
from controlstack.models.families import Family
from controlstack.tests.local.stocked import SIZE, random_image

WIDE = torch.rand(1, SIZE, 2 * SIZE, 3)
OUTER_QUARTERS = torch.tensor([1.0, 0, 0, 1]).repeat_interleave(2).expand(1, 8, 8)


def test_a_mask_is_cropped_like_its_initial_image() -> None:
    inputs = start_inputs(GenerationRequest("", width=SIZE, height=SIZE, init_image=WIDE, mask=OUTER_QUARTERS))
    assert inputs["mask_image"].shape == (1, 1, SIZE, SIZE)
    assert (inputs["mask_image"][..., 8:-8] == 0).all()
    small = start_inputs(GenerationRequest("", width=2 * SIZE, height=SIZE, init_image=WIDE, mask=OUTER_QUARTERS))
    assert (small["mask_image"][..., : SIZE // 4] == 1).all(), "the same mask where nothing is cropped off"


@pytest.mark.parametrize("resize", Resize)
def test_the_mask_of_a_control_is_resized_like_its_map(stocked: Callable[[Family], LocalModel], resize: Resize) -> None:
    model = stocked(Family.SD15)
    request = GenerationRequest("", width=SIZE, height=SIZE)
    control = ControlUnit(Modality.CANNY, WIDE, mask=OUTER_QUARTERS, resize=resize)
    area = net_controls(model, request, [control], [inventory_of(model).nets[Modality.CANNY]])[0].mask
    assert area is not None
    share = {Resize.CROP: 0.0, Resize.FIT: 0.25, Resize.STRETCH: 0.5}[resize]
    assert area.mean() == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize("shape", [(8, 8), (8, 32), (32, 8), (64, 128)])
def test_the_mask_of_a_reference_is_stretched_over_the_whole_result(
    stocked: Callable[[Family], LocalModel], shape: tuple[int, int]
) -> None:
    model = stocked(Family.SD15)
    height, width = shape
    outer = ((torch.arange(width) < width // 4) | (torch.arange(width) >= 3 * width // 4)).float()
    reference = ImageReference(random_image(1), mask=outer.expand(1, height, width))
    adapters = [inventory_of(model).adapters[reference.kind]]
    inputs = reference_inputs(model, [reference], adapters, 2 * SIZE, SIZE, guided=True)
    (area,) = inputs["cross_attention_kwargs"]["ip_adapter_masks"]
    assert area.shape == (1, 1, SIZE, 2 * SIZE)
    near_edge = 2 * SIZE // 8  # a half of the quarter: stretched edges are soft
    assert (area[..., :near_edge] == 1).all() and (area[..., -near_edge:] == 1).all()
    assert area.mean() == pytest.approx(0.5, abs=0.05)
