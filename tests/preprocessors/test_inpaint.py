"""The inpaint map is the image with exactly the masked area black."""

from __future__ import annotations

import pytest
import torch
from controlstack.core.errors import InvalidRequest
from controlstack.preprocessors.detectors.inpaint import INPAINT
from controlstack.preprocessors.host import PlainHost


def test_exactly_the_masked_pixels_are_black(host: PlainHost) -> None:
    image = torch.rand(2, 33, 47, 3) * 0.9 + 0.1
    mask = torch.rand(2, 33, 47)
    result = INPAINT.detect(image, host, {}, mask)
    assert torch.equal((result == 0).all(-1), mask >= 0.5)
    assert torch.equal(result[mask < 0.5], image[mask < 0.5])
    assert host.warnings == []


@pytest.mark.parametrize(("value", "warning"), [(0.0, "The mask is black"), (1.0, "The mask is white everywhere")])
def test_a_mask_that_says_nothing_is_warned_of(host: PlainHost, value: float, warning: str) -> None:
    INPAINT.detect(torch.rand(1, 16, 16, 3), host, {}, torch.full((1, 16, 16), value))
    assert host.warnings[0].startswith(warning)


def test_without_a_mask_it_says_what_is_missing(host: PlainHost) -> None:
    with pytest.raises(InvalidRequest, match=r"mask is not connected\. Connect a mask that is white where"):
        INPAINT.detect(torch.rand(1, 16, 16, 3), host, {})
