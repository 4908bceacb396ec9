"""A QR code as large as possible, encoded from a text or redrawn from an image of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.errors import InvalidRequest
from ...core.modality import Modality
from ...core.problems import ProblemKind
from ..detector import Detector, Method
from ..frames import each_frame
from ..host import Host
from ..parameters import ChoiceParameter, IntParameter, TextParameter, Value
from ..pixels import from_gray_bytes, to_bytes

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_WHITE, _GRAY = 255, 128
_PATCH = 8  # pixels of a diffusion model's latent: smaller modules rarely survive generation

TEXT_TOO_LONG = ProblemKind(
    "qr_code_text_length",
    "text has {value} characters. A QR code of error correction {level} cannot hold it ({reason}). Shorten the "
    "text, or set error_correction to a lower level.",
)
IMAGE_TOO_SMALL = ProblemKind(
    "qr_code_image_size",
    "image is {value}. The QR code of {modules}x{modules} modules needs at least {pixels}x{pixels} pixels with its "
    "quiet zone. Use an image of {recommended}x{recommended} or more, or shorten the text.",
)


class QRCode(Method):
    """Black modules on white in the middle of the map. All modules have the same whole number of pixels."""

    parameters = (
        TextParameter("text", "", "Text of the QR code. Empty: redraw the QR code that is in the image."),
        ChoiceParameter(
            "error_correction",
            ("H", "Q", "M", "L"),
            "How much of the code may be unreadable when it is made from text: H 30 %, Q 25 %, M 15 %, L 7 %. "
            "Higher levels "
            "need more modules.",
        ),
        IntParameter("quiet_zone", 4, 0, 16, "Width of the white border in modules. The standard asks for 4."),
        ChoiceParameter(
            "background",
            ("white", "gray"),
            "Color around the border. gray lets the model paint freely there.",
        ),
    )

    def detect(self, image: Tensor, mask: Tensor | None, host: Host, **values: Value) -> Tensor:
        text, level = str(values["text"]), str(values["error_correction"])
        quiet, light = int(values["quiet_zone"]), _GRAY if values["background"] == "gray" else _WHITE
        height, width = image.shape[1:3]
        if text:
            code = _draw(_encode(text, level), height, width, quiet, light, host)
            if _read(code)[0] != text:
                host.warn(
                    "OpenCV cannot read the code because its modules are too small. Use a larger image or a "
                    "shorter text."
                )
            return each_frame(image, host, lambda frame, _: from_gray_bytes(code))

        def redraw(frame: Tensor, index: int) -> Tensor:
            gray = _gray_bytes(frame)
            modules = _read(gray)[1]
            if modules is None:
                host.warn("No QR code found in the image: the map is the image in black and white.")
                return from_gray_bytes(_threshold(gray))
            return from_gray_bytes(_draw(modules, height, width, quiet, light, host))

        return each_frame(image, host, redraw)


def _encode(text: str, level: str) -> np.ndarray:
    """The modules of the code: uint8 [n, n], 0 or 255. Raises InvalidRequest for a text that is too long."""
    import cv2

    settings = cv2.QRCodeEncoder.Params()
    settings.correction_level = getattr(cv2, f"QRCODE_ENCODER_CORRECT_LEVEL_{level}")
    try:
        framed = cv2.QRCodeEncoder.create(settings).encode(text)
    except cv2.error as error:
        reason = error.err.strip().rstrip(".")
        raise InvalidRequest(
            "QR Code Control", [TEXT_TOO_LONG("text", len(text), level=level, reason=reason)]
        ) from error
    return _without_border(framed)


def _without_border(modules: np.ndarray) -> np.ndarray:
    """Crop the white border that OpenCV puts around a code."""
    import numpy as np

    rows, columns = np.nonzero(modules == 0)
    return modules[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _draw(modules: np.ndarray, height: int, width: int, quiet: int, light: int, host: Host) -> np.ndarray:
    """The code in the middle of a map: uint8 [height, width], with modules as large as possible."""
    import numpy as np

    side = len(modules) + 2 * quiet
    pixels = min(height, width) // side
    if pixels < 1:
        problem = IMAGE_TOO_SMALL(
            "image", f"{width}x{height}", modules=len(modules), pixels=side, recommended=side * _PATCH
        )
        raise InvalidRequest("QR Code Control", [problem])
    if pixels < _PATCH:
        host.warn(
            f"The modules of the code are {pixels} pixels wide. Modules below {_PATCH} pixels rarely survive "
            f"generation. "
            f"Use an image of at least {side * _PATCH}x{side * _PATCH}, or shorten the text."
        )
    code = np.pad(modules, quiet, constant_values=_WHITE).repeat(pixels, 0).repeat(pixels, 1)
    drawn = np.full((height, width), light, np.uint8)
    top, left = (height - len(code)) // 2, (width - len(code)) // 2
    drawn[top : top + len(code), left : left + len(code)] = code
    return drawn


def _read(gray: np.ndarray) -> tuple[str, np.ndarray | None]:
    """Text and modules of the code in an image. Two detectors are tried, since each fails on different images."""
    import cv2

    for detector in (cv2.QRCodeDetector(), cv2.QRCodeDetectorAruco()):
        text, _, modules = detector.detectAndDecode(gray)
        if text and modules is not None:
            return text, _without_border(modules)
    return "", None


def _threshold(gray: np.ndarray) -> np.ndarray:
    """Black and white, with the threshold of Otsu."""
    import cv2

    return cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]


def _gray_bytes(frame: Tensor) -> np.ndarray:
    import cv2

    return cv2.cvtColor(to_bytes(frame), cv2.COLOR_RGB2GRAY)


QRCODE = Detector(Modality.QRCODE, "A QR code in black on white, from a text or from an image of a code.", (QRCode(),))
