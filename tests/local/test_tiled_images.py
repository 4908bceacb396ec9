"""Tiled images of twice the training size of the demo model follow their control and have no seams."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from controlstack.core.images import fit_image
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest, Resize
from controlstack.local.engine.generate import generate
from controlstack.local.engine.options import Options
from controlstack.local.extras import tiled_diffusion
from controlstack.local.model.local_model import LocalModel
from controlstack.tools.demo_figures import edge_f1, overlap, to_tensor
from controlstack.tools.demo_scenes import SIZE, Palette, draw_scene, edges

pytestmark = pytest.mark.slow

LARGE = 2 * SIZE
PALETTE = Palette("white", ("pink", "red", "blue"))  # on white, what does not fit together shows most
REQUEST = GenerationRequest(
    "a pink triangle on a white background", width=LARGE, height=LARGE, steps=8, guidance_scale=4.0, seed=1
)
SCENES = [draw_scene(seed, PALETTE, objects=1, person=False) for seed in (700_007, 700_011, 700_013, 700_018)]


def _four(images: list[np.ndarray]) -> np.ndarray:
    return np.vstack([np.hstack(images[:2]), np.hstack(images[2:])])


WORLD = _four([scene.image for scene in SCENES])
MAP = np.repeat(edges(WORLD)[..., None], 3, axis=2)


def canny(control_map: np.ndarray) -> tuple[ControlUnit, ...]:
    return (ControlUnit(Modality.CANNY, to_tensor(control_map)),)


def drawn(demo: LocalModel, request: GenerationRequest, tile_size: int = SIZE) -> np.ndarray:
    images = generate(demo, request, options=Options(tile_size=tile_size)).images
    return (images[0] * 255).round().byte().numpy()


def seam(image: np.ndarray, *borders: int) -> float:
    """How many times as steep as elsewhere the image is at these columns, away from the edges of the map."""
    steepness = np.abs(np.diff(image.astype(float), axis=1)).mean(-1)
    flat = cv2.dilate(MAP[..., 0], np.ones((9, 9), np.uint8))[:, 1:] == 0
    meets = np.zeros_like(flat)
    meets[:, [border - 1 for border in borders]] = True
    return float(steepness[flat & meets].mean() / steepness[flat & ~meets].mean())


@pytest.fixture(scope="module")
def tiled(demo: LocalModel) -> np.ndarray:
    return drawn(demo, replace(REQUEST, controls=canny(MAP)))


def test_a_control_acts_on_a_large_image_as_well_as_at_the_training_size(demo: LocalModel, tiled: np.ndarray) -> None:
    small = replace(REQUEST, width=SIZE, height=SIZE)
    alone = [edge_f1(drawn(demo, replace(small, controls=canny(s.canny)), 0), s.canny) for s in SCENES[:2]]
    assert edge_f1(tiled, MAP) > 0.97 * np.mean(alone) > 0.8


def test_overlapping_tiles_leave_no_seam(demo: LocalModel, tiled: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled_diffusion, "_OVERLAP", 0.0)
    cut = drawn(demo, replace(REQUEST, controls=canny(MAP)))
    assert seam(cut, SIZE) > 4
    assert seam(tiled, SIZE // 2, SIZE, 3 * SIZE // 2) < 1.5  # where one of its tiles begins or ends


def test_an_enlarged_image_keeps_its_content(demo: LocalModel) -> None:
    small = fit_image(to_tensor(WORLD), SIZE, SIZE, Resize.STRETCH)
    kept = drawn(demo, replace(REQUEST, init_image=small, denoise=0.4))
    there = _four([scene.silhouette for scene in SCENES])
    assert overlap(kept, there) > 0.6
    assert np.abs(kept.astype(float) - WORLD).mean() < 6
