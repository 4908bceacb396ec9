"""Converting images between ComfyUI's tensors and image files."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...core.cache import Cache
from ...core.errors import InvalidRequest, ResultRefused
from ...core.images import to_rgb
from ...core.problems import ProblemKind

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

MAX_PIXELS = 2**26
_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_DATA_URL = re.compile(r"\s*data:[\w.+-]+/[\w.+-]+(;[\w=.+-]+)*;base64,", re.IGNORECASE | re.ASCII)
_QUALITIES = (95, 90, 85, 75)
_SMALLEST_SIDE = 64

IMAGE_IS_BATCH = ProblemKind(
    "image_is_batch",
    "{field} is a batch of {value} images, but {target} accepts one image here. Select one, for example with "
    "ImageFromBatch.",
)
IMAGE_FILE_TOO_LARGE = ProblemKind(
    "image_file_too_large",
    "{field} is {value} even as a small JPEG, but {target} accepts at most {maximum}. Use a smaller image.",
)


@dataclass(frozen=True)
class Encoded:
    """An image file. `media_type` is `image/png` or `image/jpeg`; `note` says how the image had to be changed."""

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
        """A placeholder for the image in a displayed request body, e.g. `<png 512x512>`."""
        return f"<{self.media_type.removeprefix('image/')} {self.width}x{self.height}>"

    def base64(self) -> str:
        """The file as base64, without line breaks or a prefix."""
        return base64.b64encode(self.data).decode()

    def data_url(self) -> str:
        """`data:image/png;base64,...`"""
        return f"data:{self.media_type};base64,{self.base64()}"


def pixels(image: Tensor, name: str, target: str) -> np.ndarray:
    """The 8-bit pixels of one IMAGE [1, h, w, 1 | 3 | 4] or [h, w, 3], or one MASK [1, h, w] or [h, w].

    Values are clamped to 0..1. Raises InvalidRequest for a batch.
    """
    if image.ndim == 4 or (image.ndim == 3 and (image.shape[0] == 1 or image.shape[-1] not in (1, 3, 4))):
        if image.shape[0] != 1:
            raise InvalidRequest(target, [IMAGE_IS_BATCH(name, image.shape[0], target=target)])
        image = image[0]
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    return (
        image.detach().float().mul(255).round_().clamp_(0, 255).byte().cpu().numpy()
    )  # in place: one copy of the image


def digest(array: np.ndarray) -> str:
    """SHA-256 of the image's size and pixels, in hexadecimal."""
    return hashlib.sha256(str(array.shape).encode() + array.tobytes()).hexdigest()


def encode(array: np.ndarray, name: str, target: str, max_bytes: int = 0) -> Encoded:
    """The pixels as PNG. If that exceeds `max_bytes`: as JPEG of decreasing quality, then also of decreasing size.

    `max_bytes` limits the file, not its base64 form (a third more); 0 is no limit. `name` and `target` appear in error
    messages. Raises InvalidRequest if nothing fits.
    """
    from PIL import Image

    image = Image.fromarray(array)
    encoded = _as_png(image)
    if not max_bytes or len(encoded.data) <= max_bytes:
        return encoded
    reason = f"as PNG it has {_size(len(encoded.data))}, and {target} accepts {_size(max_bytes)}"
    opaque = image if image.mode in ("L", "RGB") else image.convert("RGB")
    for quality in _QUALITIES:
        encoded = _as_jpeg(opaque, quality, f"sent as JPEG of quality {quality}: {reason}")
        if len(encoded.data) <= max_bytes:
            return encoded
    smaller = opaque
    while min(smaller.size) > _SMALLEST_SIDE:
        smaller = opaque.resize((smaller.width * 3 // 4, smaller.height * 3 // 4), Image.Resampling.LANCZOS)
        size = f"{smaller.width}x{smaller.height} instead of {image.width}x{image.height}"
        encoded = _as_jpeg(smaller, 90, f"sent as JPEG of quality 90, {size}: {reason}")
        if len(encoded.data) <= max_bytes:
            return encoded
    problem = IMAGE_FILE_TOO_LARGE(name, _size(len(encoded.data)), target=target, maximum=_size(max_bytes))
    raise InvalidRequest(target, [problem])


EncodedImages = Cache[tuple[str, str, int], Encoded]
_ENCODED: EncodedImages = Cache(4)


def encode_cached(
    array: np.ndarray, name: str, target: str, max_bytes: int = 0, cache: EncodedImages = _ENCODED
) -> Encoded:
    """Like `encode`, but an image that several nodes of a graph send is encoded once."""
    key = digest(array), target, max_bytes
    return cache.get(key, lambda: encode(array, name, target, max_bytes))


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Tensor:
    """The image [1, h, w, 3] in a PNG, JPEG or WebP file, or in such a file as base64 text or data URL.

    The EXIF orientation is applied, transparent parts become black, and 16-bit gray keeps its precision. Raises
    ResultRefused for other data, truncated files, fully transparent images and more than `max_pixels`.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    data = file_bytes(data)
    if not _is_whole(data):
        raise ResultRefused(f"The image file is truncated: it ends after {len(data)} bytes.")
    try:
        with Image.open(io.BytesIO(data), formats=tuple(_FORMATS)) as image:
            if image.width * image.height > max_pixels:
                size = f"{image.width}x{image.height}"
                raise ResultRefused(f"The image declares {size} pixels; the limit is {max_pixels // 10**6} million.")
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):
                array = np.clip(np.asarray(image).astype(np.float32)[..., None] / 65535, 0, 1)
            else:
                transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
                mode = "RGBA" if transparent else "RGB"
                plain = image if image.mode == mode else image.convert(mode)  # convert() always copies
                array = np.divide(np.asarray(plain), 255, dtype=np.float32)
    except ResultRefused:
        raise
    except Image.DecompressionBombError:
        raise ResultRefused(
            f"The image declares more than {max_pixels // 10**6} million pixels, which is the limit."
        ) from None
    except Exception as error:  # Pillow's decoders raise exceptions of many types
        raise ResultRefused(f"The image cannot be decoded: {type(error).__name__}.") from None
    if array.shape[-1] == 4 and not array[..., 3].any():
        raise ResultRefused("The image is fully transparent, so it shows nothing.")
    return to_rgb(torch.from_numpy(array)[None]).contiguous()


def file_bytes(data: bytes) -> bytes:
    """The image file in `data`, which is the file itself or its base64 text, with or without a data URL prefix.

    Raises ResultRefused if it is neither.
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
    """Whether a result reference is the image itself and not its URL."""
    return not re.match(r"[a-z][a-z0-9+.-]*://", output, re.IGNORECASE)


def batch_by_size(images: Sequence[Tensor]) -> list[Tensor]:
    """A list of one batch [n, h, w, 3] if all images have the same size, otherwise the images unchanged.

    A ComfyUI list output treats a list of one as an ordinary batch.
    """
    import torch

    if len(images) > 1 and len({image.shape[1:] for image in images}) == 1:
        return [torch.cat(list(images))]
    return list(images)


def is_single_color(image: Tensor) -> bool:
    """Whether all pixels have the same color, like an image that a safety filter replaced."""
    first = image[..., :1, :1, :]
    return all(
        bool((part == first).all()) for part in (image[..., ::61, ::61, :], image)
    )  # a sparse grid first, because it decides most images


def _as_png(image: Image) -> Encoded:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=4)
    return Encoded(stream.getvalue(), "image/png", image.width, image.height)


def _as_jpeg(image: Image, quality: int, note: str) -> Encoded:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2)
    return Encoded(stream.getvalue(), "image/jpeg", image.width, image.height, note)


def _format(data: bytes) -> str:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else ""


def _is_whole(data: bytes) -> bool:
    """Whether the file is complete. Other packs turn off Pillow's own check for the whole process."""
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
