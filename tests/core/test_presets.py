"""A preset becomes a stack of controls, and leaves out what the image does not have."""

from __future__ import annotations

import pytest
import torch
from controlstack.core.capabilities import Range
from controlstack.core.modality import Modality
from controlstack.core.presets import PRESETS, Preset, describe_expansion, expand


def gray_map(modality: Modality) -> torch.Tensor:
    return torch.full((1, 8, 8, 3), 0.5)


@pytest.mark.parametrize("preset", Preset)
def test_every_preset_expands_to_its_layers_in_order(preset: Preset) -> None:
    units, left_out = expand(preset, 0.8, gray_map)
    layers = PRESETS[preset]
    assert [unit.modality for unit in units] == [layer.modality for layer in layers]
    assert [unit.strength for unit in units] == [0.8 * layer.strength for layer in layers]
    assert [(unit.start, unit.end) for unit in units] == [(0, layer.end) for layer in layers]
    assert left_out == ()


@pytest.mark.parametrize("preset", Preset)
def test_the_first_layer_leads(preset: Preset) -> None:
    first, *others = PRESETS[preset]
    assert first.strength == 1 and first.end == 1
    assert others and all(layer.strength < 1 and layer.end < 1 for layer in others)
    assert all(2 * layer.strength in Range(0, 2) for layer in PRESETS[preset])


def test_a_black_map_is_skipped_and_reported() -> None:
    def make_map(modality: Modality) -> torch.Tensor:
        return gray_map(modality) * (modality is not Modality.OPENPOSE)

    units, left_out = expand(Preset.CHARACTER, 1.0, make_map)
    assert [unit.modality for unit in units] == [Modality.SOFTEDGE]
    assert left_out == (Modality.OPENPOSE,)
    assert describe_expansion(units, left_out).splitlines() == [
        "Soft Edge: strength 0.5, for 60% of the steps",
        "OpenPose: nothing found in the image, left out",
    ]
