"""A QR map decodes to its text with OpenCV, whatever text, size and level; an image of a code becomes a clean one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from controlstack.core.errors import InvalidRequest
from controlstack.preprocessors.detectors.qrcode import QRCODE
from controlstack.preprocessors.host import PlainHost

TEXTS = ["HELLO", "https://example.com/a?b=c&d=%20", "0123456789", "Stra\u00dfe \u65e5\u672c", "lorem ipsum " * 12]


def decode(map_: torch.Tensor) -> str:
    gray = map_[..., 0].mul(255).round().byte().numpy()
    return cv2.QRCodeDetector().detectAndDecode(gray)[0] or cv2.QRCodeDetectorAruco().detectAndDecode(gray)[0]


def canvas(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.zeros(batch, height, width, 3)


@pytest.mark.parametrize("background", ["white", "gray"])
@pytest.mark.parametrize("level", "LMQH")
@pytest.mark.parametrize("text", TEXTS)
def test_the_map_decodes_to_its_text(host: PlainHost, text: str, level: str, background: str) -> None:
    settings = {"text": text, "error_correction": level, "background": background}
    for height, width in ((512, 512), (400, 611)):
        assert decode(QRCODE.detect(canvas(height, width), host, settings)[0]) == text


def test_modules_are_equal_squares_as_large_as_fits_in_the_middle(host: PlainHost) -> None:
    code = QRCODE.detect(canvas(300, 420), host, {"text": "HELLO", "background": "gray"})[0, ..., 0]
    assert code.unique().tolist() == pytest.approx([0, 128 / 255, 1])
    inside = (code != 128 / 255).nonzero()
    (top, left), (bottom, right) = inside.min(0).values.tolist(), inside.max(0).values.tolist()
    size, module = bottom - top + 1, 300 // (21 + 8)
    assert size == right - left + 1 == module * 29
    assert abs(top + bottom - 299) <= 1 and abs(left + right - 419) <= 1
    modules = code[top : top + size, left : left + size].unflatten(0, (29, module)).unflatten(2, (29, module))
    assert (modules == modules[:, :1, :, :1]).all()
    border = modules[:, 0, :, 0].clone()
    border[4:-4, 4:-4] = 1
    assert (border == 1).all(), "four modules of quiet zone"


def test_a_code_of_level_h_survives_a_logo_over_a_20th_of_it(host: PlainHost) -> None:
    code = QRCODE.detect(canvas(512, 512), host, {"text": "https://example.com", "error_correction": "H"})
    middle = slice(256 - 47, 256 + 47)
    code[:, middle, middle] = 0.5
    assert decode(code[0]) == "https://example.com"


def test_a_photo_of_a_code_is_drawn_anew(host: PlainHost) -> None:
    flat = QRCODE.detect(canvas(300, 300), host, {"text": "HELLO", "error_correction": "M"})[0].numpy()
    corners = np.float32([[0, 0], [300, 0], [300, 300], [0, 300]])
    seen = np.float32([[90, 60], [350, 95], [330, 350], [70, 330]])
    view = cv2.getPerspectiveTransform(corners, seen)
    taken = cv2.warpPerspective(flat * 0.6 + 0.2, view, (420, 400), borderValue=(0.7, 0.6, 0.5))
    taken = (taken + np.random.default_rng(0).normal(0, 0.03, taken.shape)).clip(0, 1).astype(np.float32)
    redrawn = QRCODE.detect(torch.from_numpy(taken)[None], host, {})[0]
    assert set(redrawn.unique().tolist()) == {0, 1}
    assert decode(redrawn) == "HELLO"
    assert host.warnings == []


def test_an_image_without_a_code_becomes_black_and_white_and_says_so(photo: torch.Tensor, host: PlainHost) -> None:
    result = QRCODE.detect(photo, host, {})
    assert set(result.unique().tolist()) == {0, 1}
    assert 0.2 < result.mean() < 0.8
    assert host.warnings == ["No QR code found in the image: the map is the image in black and white."]


def test_small_modules_are_warned_of_with_the_size_that_is_needed(host: PlainHost) -> None:
    QRCODE.detect(canvas(128, 128), host, {"text": "HELLO"})
    assert "modules of the code are 4 pixels wide" in host.warnings[0]
    assert "at least 232x232" in host.warnings[0]
    QRCODE.detect(canvas(232, 232), host, {"text": "HELLO"})
    assert len(host.warnings) == 1


@pytest.mark.parametrize(
    ("size", "text", "sentence"),
    [
        (24, "HELLO", r"image is 24x24\. The QR code of 21x21 modules needs at least 29x29 pixels .* 232x232 or more"),
        (
            512,
            "x" * 5000,
            r"text has 5000 characters\. A QR code of error correction H cannot hold it .* Shorten the text",
        ),
    ],
)
def test_what_does_not_fit_is_a_sentence(host: PlainHost, size: int, text: str, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        QRCODE.detect(canvas(size, size), host, {"text": text})


def test_a_batch_gets_the_code_on_every_image(host: PlainHost) -> None:
    codes = QRCODE.detect(canvas(240, 240, batch=3), host, {"text": "HELLO"})
    assert codes.shape == (3, 240, 240, 3)
    assert torch.equal(codes[0], codes[2])
