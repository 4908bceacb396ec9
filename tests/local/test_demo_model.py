"""The embedded model does what its card says: control controls, the prompt colors, the reference gives its palette.

The figures it reached are on the card, assets/demo_model/README.md; the bounds here leave them some room.
"""

from __future__ import annotations

import pytest
from controlstack.local.model.local_model import LocalModel
from controlstack.tools.demo_figures import DemoFigures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def figures(demo: LocalModel) -> DemoFigures:
    return DemoFigures(demo, count=32)


def test_canny_control_moves_edges_of_the_result_to_the_map(figures: DemoFigures) -> None:
    off, half, full = (figures.canny(strength) for strength in (0.0, 0.5, 1.0))
    assert off < half < full
    assert off <= 0.25
    assert full >= 0.70


def test_depth_control_puts_the_objects_where_the_map_has_them(figures: DemoFigures) -> None:
    assert figures.depth(1.0) >= 0.75
    assert figures.depth(0.0) <= 0.30


def test_openpose_control_puts_the_body_on_the_skeleton(figures: DemoFigures) -> None:
    assert figures.openpose(1.0) >= 0.70
    assert figures.openpose(0.0) <= 0.30


def test_the_named_color_is_the_color_of_the_shape(figures: DemoFigures) -> None:
    assert figures.prompt() >= 0.80


def test_a_reference_moves_the_palette_of_the_result_to_its_own(figures: DemoFigures) -> None:
    distances = figures.reference()
    assert distances["with"] <= 0.5 * distances["without"]


def test_two_controls_together_are_followed_almost_as_well_as_alone(figures: DemoFigures) -> None:
    pair = figures.pair()
    assert pair["canny in pair"] >= 0.85 * pair["canny alone"]
    assert pair["openpose in pair"] >= 0.85 * pair["openpose alone"]
