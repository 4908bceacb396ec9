"""Pictures between ComfyUI's tensors and the bytes of image files."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.errors import InvalidRequest, Problem, ResultRefused
from ..core.images import to_rgb

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

MOST_PIXELS = 2**26
_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_DATA_URL = re.compile(r"\s*data:[\w.+-]+/[\w.+-]+(;[\w=.+-]+)*;base64,", re.IGNORECASE | re.ASCII)
_QUALITIES = (95, 90, 85, 75)
_SMALLEST_SIDE = 64


@dataclass(frozen=True)
class Encoded:
    """An image file: its bytes, `image/png` or `image/jpeg`, its size in pixels and what had to be done to it."""

    data: bytes = field(repr=False)
    media_type: str
    width: int
    height: int
    note: str = ""

    @property
    def extension(self) -> str:
        """`png` or `jpg`."""
        return "png" if self.media_type == "image/png" else "jpg"

    @property
    def label(self) -> str:
        """What stands for the image where a body is shown, e.g. `<png 512x512>`."""
        return f"<{self.media_type.removeprefix('image/')} {self.width}x{self.height}>"

    def base64(self) -> str:
        """Unwrapped, without a prefix."""
        return base64.b64encode(self.data).decode()

    def data_url(self) -> str:
        """`data:image/png;base64,...`"""
        return f"data:{self.media_type};base64,{self.base64()}"


def pixels(image: Tensor, name: str, target: str) -> np.ndarray:
    """One IMAGE [1, h, w, 1 | 3 | 4] or [h, w, 3], or one MASK [1, h, w] or [h, w], as 8-bit numbers.

    Values outside 0..1 are brought to the nearest. Raises InvalidRequest for a batch: a service takes one.
    """
    if image.ndim == 4 or (image.ndim == 3 and (image.shape[0] == 1 or image.shape[-1] not in (1, 3, 4))):
        if image.shape[0] != 1:
            limit = f"{target} takes one image here"
            problem = Problem(name, f"a batch of {image.shape[0]}", limit, "Pick one, e.g. with ImageFromBatch.")
            raise InvalidRequest(target, [problem])
        image = image[0]
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    return image.detach().float().mul(255).round_().clamp_(0, 255).byte().cpu().numpy()  # one large copy, not four


def digest(array: np.ndarray) -> str:
    """A name for the picture's content: SHA-256 over size and numbers, in hexadecimal."""
    return hashlib.sha256(str(array.shape).encode() + array.tobytes()).hexdigest()


def encode(array: np.ndarray, name: str, target: str, max_bytes: int = 0) -> Encoded:
    """The pixels as PNG; where that has more than `max_bytes`, as JPEG of falling quality, then smaller and smaller.

    `max_bytes` counts the file, not its base64 (a third more); 0 is no limit. Raises InvalidRequest where nothing fits.
    """
    from PIL import Image

    picture = Image.fromarray(array)
    encoded = _as_png(picture)
    if not max_bytes or len(encoded.data) <= max_bytes:
        return encoded
    before = f"the PNG has {_size(len(encoded.data))}, {target} takes {_size(max_bytes)}"
    opaque = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
    for quality in _QUALITIES:
        encoded = _as_jpeg(opaque, quality, f"{before}: sent as JPEG of quality {quality}")
        if len(encoded.data) <= max_bytes:
            return encoded
    smaller = opaque
    while min(smaller.size) > _SMALLEST_SIDE:
        smaller = opaque.resize((smaller.width * 3 // 4, smaller.height * 3 // 4), Image.Resampling.LANCZOS)
        size = f"{smaller.width}x{smaller.height} instead of {picture.width}x{picture.height}"
        encoded = _as_jpeg(smaller, 90, f"{before}: sent as JPEG of quality 90, {size}")
        if len(encoded.data) <= max_bytes:
            return encoded
    problem = Problem(name, _size(len(encoded.data)), f"{target} takes {_size(max_bytes)}", "Use a smaller picture.")
    raise InvalidRequest(target, [problem])


class Encoder:
    """Encodes a picture once for all nodes of a graph that send it; keeps the last few files. Threads may share it."""

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._files: dict[tuple[str, str, int], Encoded] = {}
        self._one_at_a_time = threading.Lock()

    def encode(self, array: np.ndarray, name: str, target: str, max_bytes: int = 0) -> Encoded:
        """As the function of that name."""
        key = digest(array), target, max_bytes
        with self._one_at_a_time:
            encoded = self._files.pop(key, None) or encode(array, name, target, max_bytes)
            self._files[key] = encoded  # at the end: the first one is the one that was not used for longest
            if len(self._files) > self._most:
                del self._files[next(iter(self._files))]
            return encoded


def decode(data: bytes, max_pixels: int = MOST_PIXELS) -> Tensor:
    """[1, h, w, 3] from a PNG, JPEG or WebP file, or from such a file as base64 text or data URL.

    Turned upright by its EXIF note; transparent parts become black; 16-bit gray is kept to 1/65535. Raises
    ResultRefused for anything else, for truncated files and for more than `max_pixels`.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    data = file_bytes(data)
    if not _is_whole(data):
        raise ResultRefused(f"The image ends too early, after {len(data)} bytes.")
    try:
        with Image.open(io.BytesIO(data), formats=tuple(_FORMATS)) as picture:
            if picture.width * picture.height > max_pixels:
                size = f"{picture.width}x{picture.height}"
                raise ResultRefused(f"The image claims {size} pixels; {max_pixels // 10**6} million are the limit.")
            ImageOps.exif_transpose(picture, in_place=True)
            if picture.mode.startswith("I"):
                array = np.clip(np.asarray(picture).astype(np.float32)[..., None] / 65535, 0, 1)
            else:
                transparent = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
                mode = "RGBA" if transparent else "RGB"
                plain = picture if picture.mode == mode else picture.convert(mode)  # converting copies in any case
                array = np.divide(np.asarray(plain), 255, dtype=np.float32)
    except ResultRefused:
        raise
    except Image.DecompressionBombError:
        raise ResultRefused(f"The image claims more than {max_pixels // 10**6} million pixels.") from None
    except Exception as error:  # Pillow's decoders raise whatever broke in them
        raise ResultRefused(f"The image cannot be decoded: {type(error).__name__}.") from None
    if array.shape[-1] == 4 and not array[..., 3].any():
        raise ResultRefused("The image is fully transparent: there is nothing in it.")
    return to_rgb(torch.from_numpy(array)[None]).contiguous()


def file_bytes(data: bytes) -> bytes:
    """The image file in the data: as it is, or out of base64 text (with or without a data URL's prefix).

    Raises ResultRefused where the data is neither.
    """
    if _format(data):
        return data
    if len(data) >= 16 and data.isascii():
        text = data.decode("ascii")
        text = "".join(_DATA_URL.sub("", text, count=1).split()).rstrip("=").replace("-", "+").replace("_", "/")
        try:
            inner = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            inner = b""
        if _format(inner):
            return inner
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        raise ResultRefused("The result is a web page or an XML document, not an image.")
    raise ResultRefused(f"The result is not a PNG, JPEG or WebP image ({len(data)} bytes).")


def is_inline(output: str) -> bool:
    """Whether a result reference is the image itself and not its address."""
    return not re.match(r"[a-z][a-z0-9+.-]*://", output, re.IGNORECASE)


def gather(images: Sequence[Tensor]) -> list[Tensor]:
    """One batch [n, h, w, 3] where all sizes are equal, otherwise each image alone, in order.

    A list of one is what a ComfyUI list output takes for an ordinary batch.
    """
    import torch

    if len(images) > 1 and len({image.shape[1:] for image in images}) == 1:
        return [torch.cat(list(images))]
    return list(images)


def is_flat(image: Tensor) -> bool:
    """Whether every pixel has the same colour, as pictures have that a safety filter replaced."""
    first = image[..., :1, :1, :]
    return all(bool((part == first).all()) for part in (image[..., ::61, ::61, :], image))  # few pixels tell most


def _as_png(picture: Image) -> Encoded:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=4)
    return Encoded(stream.getvalue(), "image/png", picture.width, picture.height)


def _as_jpeg(picture: Image, quality: int, note: str) -> Encoded:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2)
    return Encoded(stream.getvalue(), "image/jpeg", picture.width, picture.height, note)


def _format(data: bytes) -> str:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else ""


def _is_whole(data: bytes) -> bool:
    """Whether the file has its end. Pillow would tell, but other packs switch that off for the whole process."""
    kind = _format(data)
    if kind == "WEBP":
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    if kind == "JPEG":
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    position = 8
    while position + 12 <= len(data):
        length, name = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        position += length + 12
        if name == b"IEND":
            return position <= len(data)
    return False


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 1024:.1f} KiB"
