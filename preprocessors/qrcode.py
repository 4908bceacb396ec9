"""A QR code, made from a text or redrawn from a picture of one, as large as fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import InvalidRequest, Problem
from ..core.modality import Modality
from .detector import Detector, Method
from .frames import each_frame
from .host import Host
from .parameters import ChoiceParameter, IntParameter, TextParameter, Value
from .pixels import from_gray_bytes, to_bytes

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_WHITE, _GRAY = 255, 128
# Diffusion models work on patches of 8 pixels: what is smaller than one is not kept.
_PATCH = 8


class QRCode(Method):
    """Black modules on white, each the same whole number of pixels wide, in the middle of the map."""

    parameters = (
        TextParameter("text", "", "What the code says. Empty: the picture shows a code, which is drawn anew."),
        ChoiceParameter(
            "error_correction",
            ("H", "Q", "M", "L"),
            "How much of a code made from text may be spoilt: H 30 %, Q 25 %, M 15 %, L 7 %. More needs more room.",
        ),
        IntParameter("quiet_zone", 4, 0, 16, "Width of the white border in modules. Readers want 4."),
        ChoiceParameter(
            "background",
            ("white", "gray"),
            "Around the border. gray leaves the model free to paint what it likes there.",
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        text, level = str(values["text"]), str(values["error_correction"])
        quiet, light = int(values["quiet_zone"]), _GRAY if values["background"] == "gray" else _WHITE
        height, width = image.shape[1:3]
        if text:
            code = _draw(_encode(text, level), height, width, quiet, light, host)
            if _read(code)[0] != text:
                host.warn("The code is so fine that OpenCV cannot read it. Use a larger picture or a shorter text.")
            return each_frame(image, host, lambda frame, _: from_gray_bytes(code))

        def redraw(frame: Tensor, index: int) -> Tensor:
            gray = _gray_bytes(frame)
            modules = _read(gray)[1]
            if modules is None:
                host.warn("No QR code was found in the picture: it was only made black and white.")
                return from_gray_bytes(_threshold(gray))
            return from_gray_bytes(_draw(modules, height, width, quiet, light, host))

        return each_frame(image, host, redraw)


def _encode(text: str, level: str) -> np.ndarray:
    """The modules of the code, uint8 [n, n], 0 or 255; raises InvalidRequest for a text that no code can hold."""
    import cv2

    settings = cv2.QRCodeEncoder.Params()
    settings.correction_level = getattr(cv2, f"QRCODE_ENCODER_CORRECT_LEVEL_{level}")
    try:
        framed = cv2.QRCodeEncoder.create(settings).encode(text)
    except cv2.error as error:
        limit = f"no QR code of error correction {level} holds it ({error.err.strip().rstrip('.')})"
        raise _does_not_fit(text, limit, "Shorten it, or lower error_correction.") from error
    return _without_border(framed)


def _without_border(modules: np.ndarray) -> np.ndarray:
    """OpenCV puts a white border around the code, whose corner squares reach to its edges."""
    import numpy as np

    rows, columns = np.nonzero(modules == 0)
    return modules[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _draw(modules: np.ndarray, height: int, width: int, quiet: int, light: int, host: Host) -> np.ndarray:
    """The code in the middle of a map, uint8 [height, width], its modules as large as fits."""
    import numpy as np

    side = len(modules) + 2 * quiet
    pixels = min(height, width) // side
    if pixels < 1:
        limit = f"its code of {len(modules)} x {len(modules)} modules needs {side}x{side} pixels with its border"
        remedy = f"Use a picture of at least {side * _PATCH}x{side * _PATCH}, or shorten the text."
        raise InvalidRequest("QR Code Control", [Problem("image", f"{width}x{height}", limit, remedy)])
    if pixels < _PATCH:
        host.warn(
            f"The code's modules are {pixels} pixels wide, and what is below {_PATCH} hardly survives generation. "
            f"Use a picture of at least {side * _PATCH}x{side * _PATCH}, or shorten the text."
        )
    code = np.pad(modules, quiet, constant_values=_WHITE).repeat(pixels, 0).repeat(pixels, 1)
    drawn = np.full((height, width), light, np.uint8)
    top, left = (height - len(code)) // 2, (width - len(code)) // 2
    drawn[top : top + len(code), left : left + len(code)] = code
    return drawn


def _read(gray: np.ndarray) -> tuple[str, np.ndarray | None]:
    """Text and modules of the code in a picture; OpenCV's two detectors fail on different ones."""
    import cv2

    for detector in (cv2.QRCodeDetector(), cv2.QRCodeDetectorAruco()):
        text, _, modules = detector.detectAndDecode(gray)
        if text and modules is not None:
            return text, _without_border(modules)
    return "", None


def _threshold(gray: np.ndarray) -> np.ndarray:
    """Black and white at the level that separates the two best (Otsu)."""
    import cv2

    return cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]


def _gray_bytes(frame: Tensor) -> np.ndarray:
    import cv2

    return cv2.cvtColor(to_bytes(frame), cv2.COLOR_RGB2GRAY)


def _does_not_fit(text: str, limit: str, remedy: str) -> InvalidRequest:
    return InvalidRequest("QR Code Control", [Problem("text", f"{len(text)} characters long", limit, remedy)])


QRCODE = Detector(Modality.QRCODE, "A QR code in black on white, of a text or of the picture of a code.", (QRCode(),))
