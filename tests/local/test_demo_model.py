"""The embedded model does what its card says: control controls, the prompt colours, the reference gives its palette.

The figures it reached are on the card, assets/demo_model/README.md; the bounds here leave them some room.
"""

from __future__ import annotations

from controlstack.local.model import LocalModel
from controlstack.tools.demo_figures import (
    canny_figure,
    depth_figure,
    openpose_figure,
    pair_figures,
    prompt_figure,
    reference_figures,
)

SCENES = 32


def test_canny_control_moves_edges_of_the_result_to_the_map(demo: LocalModel) -> None:
    off, half, full = (canny_figure(demo, strength, SCENES) for strength in (0.0, 0.5, 1.0))
    assert off < half < full
    assert off <= 0.25
    assert full >= 0.70


def test_depth_control_puts_the_objects_where_the_map_has_them(demo: LocalModel) -> None:
    assert depth_figure(demo, 1.0, SCENES) >= 0.75
    assert depth_figure(demo, 0.0, SCENES) <= 0.30


def test_openpose_control_puts_the_body_on_the_skeleton(demo: LocalModel) -> None:
    assert openpose_figure(demo, 1.0, SCENES) >= 0.70
    assert openpose_figure(demo, 0.0, SCENES) <= 0.30


def test_the_named_colour_is_the_colour_of_the_shape(demo: LocalModel) -> None:
    assert prompt_figure(demo, SCENES) >= 0.80


def test_a_reference_moves_the_palette_of_the_result_to_its_own(demo: LocalModel) -> None:
    figures = reference_figures(demo, SCENES)
    assert figures["with"] <= 0.5 * figures["without"]


def test_two_controls_together_lose_little(demo: LocalModel) -> None:
    figures = pair_figures(demo, SCENES)
    assert figures["canny in pair"] >= 0.85 * figures["canny alone"]
    assert figures["openpose in pair"] >= 0.85 * figures["openpose alone"]
