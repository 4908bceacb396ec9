"""Content shuffle keeps the colors, loses the layout, and repeats."""

from __future__ import annotations

import pytest
import torch
from controlstack.preprocessors.detectors.shuffle import SHUFFLE
from controlstack.preprocessors.host import PlainHost


def histogram(image: torch.Tensor) -> torch.Tensor:
    """Shares of 16 levels in each channel, [3, 16]."""
    counts = torch.stack([torch.histc(image[..., channel], 16, 0, 1) for channel in range(3)])
    return counts / counts.sum(1, keepdim=True)


@pytest.mark.parametrize("grain", [0.1, 0.5])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_the_colors_stay_in_proportion(photo: torch.Tensor, host: PlainHost, seed: int, grain: float) -> None:
    shuffled = SHUFFLE.detect(photo, host, {"seed": seed, "grain": grain})
    apart = (histogram(shuffled) - histogram(photo)).abs().sum(1) / 2
    assert apart.max() < 0.25, "share of pixels whose level would have to change"
    assert (shuffled.mean((0, 1, 2)) - photo.mean((0, 1, 2))).abs().max() < 0.12


def test_every_column_and_row_keeps_its_share(host: PlainHost) -> None:
    """So an image whose color is its column has exactly its own histogram again, up to interpolation."""
    ramp = torch.linspace(0, 1, 128)
    image = torch.stack([ramp.expand(96, 128), ramp[:96, None].expand(96, 128), torch.zeros(96, 128)], -1)[None]
    shuffled = SHUFFLE.detect(image, host, {"seed": 5})
    for channel in (0, 1):
        values = (image[..., channel].flatten().sort().values, shuffled[..., channel].flatten().sort().values)
        assert (values[0] - values[1]).abs().max() < 0.01


def test_the_layout_is_gone(photo: torch.Tensor, host: PlainHost) -> None:
    shuffled = SHUFFLE.detect(photo, host, {})
    both = torch.stack([photo.mean(-1).flatten(), shuffled.mean(-1).flatten()])
    assert torch.corrcoef(both)[0, 1].abs() < 0.3


def test_the_same_seed_repeats_whatever_the_global_randomness(photo: torch.Tensor, host: PlainHost) -> None:
    torch.manual_seed(1)
    first = SHUFFLE.detect(photo, host, {"seed": 7})
    state = torch.manual_seed(2).get_state()
    assert torch.equal(SHUFFLE.detect(photo, host, {"seed": 7}), first)
    assert torch.equal(torch.get_rng_state(), state), "the global randomness is left alone"
    assert not torch.equal(SHUFFLE.detect(photo, host, {"seed": 8}), first)


def test_a_image_of_a_batch_can_be_made_alone(photo: torch.Tensor, host: PlainHost) -> None:
    batch = SHUFFLE.detect(photo.expand(3, -1, -1, -1), host, {"seed": 7})
    assert torch.equal(SHUFFLE.detect(photo, host, {"seed": 9})[0], batch[2])
