"""The same map, as each kind of net was trained to see it: one test per row of the table."""

from __future__ import annotations

import pytest
import torch
from controlstack.core.conventions import NetKind, adapt_map, is_black_on_white, limb_half_width, limitation, union_mode
from controlstack.core.errors import InvalidRequest
from controlstack.core.images import control_image
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, Detect, Resize
from controlstack.preprocessors.pose.skeleton import (
    BODY_POINTS,
    LEFT_EAR,
    LEFT_EYE,
    NECK,
    NOSE,
    RIGHT_ANKLE,
    RIGHT_EAR,
    RIGHT_EYE,
    RIGHT_HIP,
    RIGHT_KNEE,
    Keypoint,
    Person,
    draw_people,
)

LINE_MAPS = (Modality.CANNY, Modality.HED, Modality.SOFTEDGE, Modality.LINEART, Modality.MLSD, Modality.SCRIBBLE)
UNION_MODES = {
    NetKind.SDXL_UNION: (
        {Modality.OPENPOSE, Modality.POSE},
        {Modality.DEPTH},
        {Modality.HED, Modality.SOFTEDGE, Modality.SCRIBBLE},
        {Modality.CANNY, Modality.LINEART, Modality.MLSD},
        {Modality.NORMAL},
        {Modality.SEGMENTATION},
        {Modality.TILE, Modality.BLUR, Modality.LOW_QUALITY},
        {Modality.INPAINT},
    ),
    NetKind.FLUX_UNION: (
        {Modality.CANNY},
        {Modality.TILE},
        {Modality.DEPTH},
        {Modality.BLUR},
        {Modality.OPENPOSE, Modality.POSE},
        {Modality.GRAY},
        {Modality.LOW_QUALITY},
    ),
}


def adapted(unit: ControlUnit, kind: NetKind, width: int = 64, height: int = 48) -> torch.Tensor:
    return adapt_map(control_image(unit, width, height), unit, kind)


@pytest.mark.parametrize("kind", UNION_MODES)
def test_union_nets_get_the_number_of_the_modality(kind: NetKind) -> None:
    expected = {modality: mode for mode, group in enumerate(UNION_MODES[kind]) for modality in group}
    assert {modality: union_mode(kind, modality) for modality in Modality} == {
        modality: expected.get(modality) for modality in Modality
    }


@pytest.mark.parametrize("kind", [kind for kind in NetKind if kind not in UNION_MODES])
def test_other_nets_take_no_number(kind: NetKind) -> None:
    assert all(union_mode(kind, modality) is None for modality in Modality)


@pytest.mark.parametrize(("kind", "mark"), [(NetKind.SD15, -1.0), (NetKind.SDXL, -1.0), (NetKind.SDXL_UNION, 0.0)])
def test_the_masked_area_of_an_inpaint_map_is_marked_and_nothing_else(kind: NetKind, mark: float) -> None:
    picture, mask = torch.rand(1, 48, 64, 3) * 0.8 + 0.1, torch.zeros(1, 48, 64)
    mask[:, 10:20, 30:50] = 1
    result = adapted(ControlUnit(Modality.INPAINT, picture, mask=mask), kind)
    assert torch.equal((result == mark).all(-1), mask > 0)
    assert torch.equal(result[mask == 0], picture[mask == 0])


@pytest.mark.parametrize("resize", Resize)
def test_the_mark_covers_what_the_masked_area_bled_into(resize: Resize) -> None:
    mask = torch.zeros(1, 97, 131)
    mask[:, 20:51, 33:70] = 1
    picture = (1 - mask)[..., None].expand(-1, -1, -1, 3)  # white, with the masked area black, as the detector gives it
    result = adapted(ControlUnit(Modality.INPAINT, picture, mask=mask, resize=resize), NetKind.SD15, 64, 64)
    kept = result[result >= 0]
    bars = (kept == 0) & (resize is Resize.FIT)
    assert ((kept > 0.999) | bars).all()
    assert 0.05 < (result < 0).float().mean() < 0.2


def test_a_mask_of_another_size_is_stretched_over_the_map() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[:, :, 4:] = 1
    result = adapted(ControlUnit(Modality.INPAINT, torch.ones(1, 48, 64, 3), mask=mask), NetKind.SD15)
    assert (result[:, :, 40:] == -1).all() and (result[:, :, :24] == 1).all()


def test_inpaint_without_a_mask_says_so() -> None:
    with pytest.raises(InvalidRequest, match="mask is not connected"):
        adapted(ControlUnit(Modality.INPAINT, torch.ones(1, 48, 64, 3)), NetKind.SD15)


@pytest.mark.parametrize("kind", NetKind)
@pytest.mark.parametrize("modality", LINE_MAPS)
def test_drawings_on_white_paper_are_inverted_for_every_net(kind: NetKind, modality: Modality) -> None:
    lines = torch.zeros(2, 48, 64, 3)
    lines[:, 20] = 1
    on_paper = ControlUnit(modality, 1 - lines)
    assert is_black_on_white(on_paper)
    assert torch.equal(adapted(on_paper, kind), lines)
    assert not is_black_on_white(ControlUnit(modality, lines))
    assert adapted(ControlUnit(modality, lines), kind) is lines, "a map that is right is not touched"


@pytest.mark.parametrize("kind", NetKind)
@pytest.mark.parametrize("modality", LINE_MAPS)
@pytest.mark.parametrize("share", [0.61, 1.0])
def test_a_map_that_was_detected_here_is_never_inverted(kind: NetKind, modality: Modality, share: float) -> None:
    dense = (
        (torch.rand(1, 48, 64, 1, generator=torch.Generator().manual_seed(1)) <= share).float().expand(-1, -1, -1, 3)
    )
    detected = ControlUnit(modality, dense, Detect.LOCAL)
    assert adapted(detected, kind) is dense
    assert not is_black_on_white(detected)


@pytest.mark.parametrize(
    ("light", "on_paper"), [(0.0, False), (0.5, False), (0.65, False), (0.82, True), (0.97, True), (1.0, True)]
)
def test_a_map_the_user_brings_is_a_drawing_where_most_of_it_is_paper(light: float, on_paper: bool) -> None:
    """Dense scribbles reach 0.61. Gray paper, as a photo shows it, is paper."""
    pixels = torch.rand(1, 100, 100, 1, generator=torch.Generator().manual_seed(1)) < light
    assert (
        is_black_on_white(ControlUnit(Modality.SCRIBBLE, torch.where(pixels, 0.95, 0.1).expand(-1, -1, -1, 3)))
        == on_paper
    )
    assert is_black_on_white(ControlUnit(Modality.SCRIBBLE, torch.where(pixels, 0.6, 0.1))) == on_paper


def test_a_batch_is_inverted_as_a_whole_or_not_at_all() -> None:
    """A video of a drawing, one picture of which is darker than the threshold for a single one."""
    drawing = torch.ones(4, 48, 64, 3)
    drawing[:, :4] = 0
    drawing[2, :16] = 0
    unit = ControlUnit(Modality.LINEART, drawing)
    assert not is_black_on_white(ControlUnit(Modality.LINEART, drawing[2:3]))
    assert torch.equal(adapted(unit, NetKind.SD15), 1 - drawing)
    maps = 1 - drawing
    maps[1] = 1
    assert adapted(ControlUnit(Modality.LINEART, maps), NetKind.SD15) is maps


@pytest.mark.parametrize("resize", Resize)
@pytest.mark.parametrize("modality", LINE_MAPS)
def test_black_lines_on_paper_are_what_white_ones_on_black_are_at_any_size(modality: Modality, resize: Resize) -> None:
    """The bars of `fit` are three quarters of this picture, and it reduces the lines of one pixel by three."""
    lines = torch.zeros(1, 96, 384, 3)
    lines[:, 30] = lines[:, :, 100] = 1
    expected = adapted(ControlUnit(modality, lines, resize=resize), NetKind.SD15, 128, 128)
    paper = adapted(ControlUnit(modality, 1 - lines, resize=resize), NetKind.SD15, 128, 128)
    assert expected.any() and torch.equal(paper, expected)


@pytest.mark.parametrize(
    ("longer", "factor"), [(499, 1), (500, 2), (1024, 3), (2048, 4), (3000, 5), (4999, 6), (5000, 7)]
)
def test_limbs_widen_with_the_image(longer: int, factor: int) -> None:
    assert limb_half_width(longer, 100) == limb_half_width(100, longer) == 4 * factor


@pytest.mark.parametrize("modality", [Modality.OPENPOSE, Modality.POSE])
def test_the_sdxl_union_gets_thick_limbs_in_their_own_colors(modality: Modality) -> None:
    red, green = torch.tensor([0.6, 0, 0]), torch.tensor([0, 0.6, 0])
    skeleton = torch.zeros(1, 600, 400, 3)
    skeleton[:, 100:500, 196:204] = red  # two sticks of half-width 4
    skeleton[:, 296:304, 204:380] = green
    unit = ControlUnit(modality, skeleton)
    result = adapted(unit, NetKind.SDXL_UNION, 400, 600)
    assert {tuple(color) for color in result.flatten(0, 2).unique(dim=0).tolist()} == {
        tuple(color.tolist()) for color in (torch.zeros(3), red, green)
    }
    assert (result[0, 150, :, 0] > 0).sum() == 16, "half-width 8 at 500 to 999 pixels"
    assert (result[0, :, 350, 1] > 0).sum() == 16
    assert adapted(unit, NetKind.SD15, 400, 600) is skeleton


# Shares of a body's height; x from its middle. The joints of the face crowd, as they do in every picture.
FACE = ((0, 0.12), (-0.03, 0.1), (0.03, 0.1), (-0.05, 0.12), (0.05, 0.12))
HEAD = dict(zip((NOSE, RIGHT_EYE, LEFT_EYE, RIGHT_EAR, LEFT_EAR), FACE, strict=True))
STANDING = HEAD | {NECK: (0, 0.2), RIGHT_HIP: (-0.1, 0.5), RIGHT_KNEE: (-0.1, 0.7), RIGHT_ANKLE: (-0.1, 0.95)}


@pytest.mark.parametrize(("height", "stick"), [(600, 4.0), (300, 4.0), (1200, 4.0)])
def test_limbs_get_their_width_whatever_they_had(height: int, stick: float) -> None:
    """Maps come at any size and from any hand; what is wide enough is not widened."""
    width = height * 2 // 3
    body = [None] * BODY_POINTS
    for part, (x, y) in STANDING.items():
        body[part] = Keypoint(width / 2 + 0.2 * x * height, (0.4 + 0.2 * y) * height)
    skeleton = torch.from_numpy(draw_people([Person(body)], height, width, stick)).float()[None] / 255
    result = adapted(ControlUnit(Modality.OPENPOSE, skeleton), NetKind.SDXL_UNION, 400, 600)
    shin = int((result[0, 339].amax(-1) > 0.3).sum())
    assert abs(shin - max(17, 2 * stick * 400 / 512)) <= 3


def test_a_black_skeleton_map_stays_black() -> None:
    black = torch.zeros(1, 600, 400, 3)
    assert not adapted(ControlUnit(Modality.OPENPOSE, black), NetKind.SDXL_UNION, 400, 600).any()


@pytest.mark.parametrize("kind", [NetKind.FLUX_UNION, NetKind.FLUX_UNION_PRO_2])
def test_flux_gets_gray_as_gray(kind: NetKind) -> None:
    result = adapted(ControlUnit(Modality.GRAY, torch.rand(1, 48, 64, 3)), kind)
    assert torch.equal(result[..., 0], result[..., 1]) and torch.equal(result[..., 0], result[..., 2])
    white = adapted(ControlUnit(Modality.GRAY, torch.ones(1, 48, 64, 3)), kind)
    assert torch.allclose(white, torch.ones_like(white))


def test_a_flux_net_of_unknown_habits_gets_what_it_is_given() -> None:
    colored = torch.rand(1, 48, 64, 3)
    assert adapted(ControlUnit(Modality.GRAY, colored), NetKind.FLUX) is colored


def test_what_pixels_cannot_give_is_reported() -> None:
    assert "SAM" in limitation(NetKind.SDXL_UNION, Modality.SEGMENTATION)
    assert "bodies only" in limitation(NetKind.SDXL_UNION, Modality.POSE)
    assert limitation(NetKind.SDXL, Modality.INPAINT)
    assert limitation(NetKind.SD15, Modality.CANNY) == ""
    assert limitation(NetKind.SD15, Modality.SHUFFLE) == "", "the engine averages the net's outputs when it loads it"


@pytest.mark.parametrize("kind", NetKind)
@pytest.mark.parametrize("modality", [Modality.DEPTH, Modality.NORMAL, Modality.TILE, Modality.SEGMENTATION])
def test_maps_that_all_nets_read_alike_stay_as_they_are(kind: NetKind, modality: Modality) -> None:
    picture = torch.rand(1, 48, 64, 3)
    assert adapted(ControlUnit(modality, picture), kind) is picture
