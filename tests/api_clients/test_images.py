"""Pictures survive the way out and back, and what is no picture is refused by name."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from controlstack.api_clients.http.image_host import S3Host, find_image_host
from controlstack.api_clients.http.images import (
    EncodedImages,
    batch_by_size,
    decode,
    digest,
    encode,
    encode_cached,
    is_inline,
    is_single_color,
    pixels,
)
from controlstack.core.errors import CredentialsMissing, InvalidRequest, ResultRefused, ServiceError
from controlstack.tests.api_clients.scripted_service import Reply, image_file, loopback_only, service
from PIL import Image, ImageFile


def numbers(image: torch.Tensor) -> Any:
    return pixels(image, "control 1 image", "Toy")


@pytest.mark.parametrize(
    ("shape", "mode"),
    [
        ((1, 6, 9, 3), "RGB"),
        ((1, 6, 9, 4), "RGBA"),
        ((1, 6, 9, 1), "L"),
        ((6, 9, 3), "RGB"),
        ((1, 6, 9), "L"),
        ((6, 9), "L"),
    ],
)
def test_a_tensor_becomes_a_png_and_comes_back(shape: tuple[int, ...], mode: str) -> None:
    image = (torch.rand(shape) * 255).round() / 255
    encoded = encode(numbers(image), "image", "Toy")
    with Image.open(io.BytesIO(encoded.data)) as picture:
        assert (picture.mode, picture.size, picture.format) == (mode, (9, 6), "PNG")
    assert (encoded.label, encoded.extension, encoded.note) == ("<png 9x6>", "png", "")
    if mode == "RGB":
        assert torch.equal(decode(encoded.data), image.reshape(1, 6, 9, 3))
    assert base64.b64decode(encoded.data_url().partition(",")[2]) == encoded.data
    assert encoded.data.hex() not in repr(encoded)


def test_values_outside_the_range_are_brought_to_the_nearest() -> None:
    assert numbers(torch.tensor([[-1.0, 0.5, 7.0]])).tolist() == [[0, 128, 255]]


def test_a_batch_where_one_image_goes_is_a_problem() -> None:
    for shape in ((2, 8, 8, 3), (2, 8, 8)):
        with pytest.raises(InvalidRequest, match="a batch of 2"):
            numbers(torch.rand(shape))


def test_the_digest_tells_pictures_apart_and_shapes_too() -> None:
    image = (torch.rand(1, 4, 6, 3) * 255).round() / 255
    assert digest(numbers(image)) == digest(numbers(image + 0.0001))
    assert digest(numbers(image)) != digest(numbers(image.reshape(1, 6, 4, 3)))
    assert digest(numbers(image)) != digest(numbers(1 - image))


def test_a_size_limit_is_met_by_jpeg_then_by_fewer_pixels_and_said() -> None:
    noise = numbers(torch.rand(1, 300, 400, 3))
    full = encode(noise, "image", "Toy")
    jpeg = encode(noise, "image", "Toy", len(full.data) // 2)
    assert jpeg.media_type == "image/jpeg" and (jpeg.width, jpeg.height) == (400, 300)
    assert "sent as JPEG of quality" in jpeg.note and len(jpeg.data) <= len(full.data) // 2
    small = encode(noise, "image", "Toy", 20_000)
    assert len(small.data) <= 20_000 and "instead of 400x300" in small.note and small.width < 400
    with pytest.raises(InvalidRequest, match=r"0\.1 KiB"):
        encode(noise, "image", "Toy", 100)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("dress", ["plain", "base64", "data url", "wrapped", "no padding"])
def test_results_are_decoded_by_content(kind: str, dress: str) -> None:
    data = image_file(20, 10, kind)
    text = base64.b64encode(data)
    dressed = {
        "plain": data,
        "base64": text,
        "data url": b"data:image/jpeg;charset=utf-8;base64," + text,
        "wrapped": base64.encodebytes(data),
        "no padding": text.rstrip(b"="),
    }[dress]
    image = decode(dressed)
    assert image.shape == (1, 10, 20, 3) and image.dtype == torch.float32
    assert 0 <= image.min() < 0.1 and 0.9 < image.max() <= 1


def test_a_picture_that_several_nodes_send_is_encoded_once_for_each_limit() -> None:
    files: EncodedImages = EncodedImages(2)
    picture = pixels(torch.full((1, 8, 8, 3), 0.5), "image", "Toy")
    first = encode_cached(picture, "image", "Toy", cache=files)
    assert encode_cached(picture.copy(), "other", "Toy", cache=files) is first
    assert encode_cached(picture, "image", "Toy", 10_000, files) is not first
    assert encode_cached(picture + 1, "image", "Toy", cache=files).data != first.data
    again = encode_cached(picture, "image", "Toy", cache=files)
    assert again is not first and again == first


def test_exif_rotation_is_applied() -> None:
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").resize((20, 10)).convert("RGB").save(stream, "JPEG", exif=exif)
    assert decode(stream.getvalue()).shape == (1, 20, 10, 3)


def saved(picture: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "I;16"])
def test_every_png_mode_becomes_rgb(mode: str) -> None:
    picture = Image.linear_gradient("L").resize((16, 16))
    if mode == "I;16":
        picture = Image.fromarray((torch.linspace(0, 1, 256).reshape(16, 16) * 65535).numpy().astype("uint16"))
    image = decode(saved(picture if mode == "I;16" else picture.convert(mode)))
    assert image.shape == (1, 16, 16, 3) and image.min() < 0.1 and image.max() > 0.9


def test_transparent_parts_become_black_and_a_wholly_transparent_picture_is_refused() -> None:
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 255))
    half.paste((255, 0, 0, 0), (0, 0, 4, 2))
    image = decode(saved(half))[0]
    assert image[:2].max() == 0 and torch.equal(image[3, 3], torch.tensor([1.0, 0, 0]))
    with pytest.raises(ResultRefused, match="transparent"):
        decode(saved(Image.new("RGBA", (4, 4), (255, 0, 0, 0))))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("lenient", [False, True])
def test_truncated_files_are_refused_even_where_pillow_was_told_not_to(
    kind: str, lenient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    whole = image_file(200, 100, kind)
    for end in (len(whole) // 2, len(whole) - 2, 20):
        with pytest.raises(ResultRefused):
            decode(whole[:end])


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 30_000])
def test_a_small_file_with_huge_claims_is_refused_before_it_is_unpacked(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )
    assert len(bomb) < 2000
    with pytest.raises(ResultRefused, match="pixels"):
        decode(bomb)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a PNG, JPEG or WebP"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"  <html>", "web page"),
        (b"GIF89a" + bytes(40), "not a PNG, JPEG or WebP"),
        (base64.b64encode(b"no image at all, just text"), "not a PNG, JPEG or WebP"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + chunk(b"IEND", b""), "cannot be decoded"),
    ],
)
def test_what_is_no_image_is_refused_by_name(data: bytes, words: str) -> None:
    with pytest.raises(ResultRefused, match=words):
        decode(data)


def test_equal_sizes_are_one_batch_and_others_a_list() -> None:
    small, large = torch.rand(1, 4, 4, 3), torch.rand(1, 8, 4, 3)
    assert [image.shape for image in batch_by_size([small, small])] == [(2, 4, 4, 3)]
    assert [image.shape for image in batch_by_size([small, large])] == [(1, 4, 4, 3), (1, 8, 4, 3)]


def test_flat_pictures_and_inline_results_are_recognized() -> None:
    assert is_single_color(torch.zeros(1, 4, 4, 3)) and not is_single_color(torch.rand(1, 4, 4, 3))
    assert is_inline("data:image/png;base64,xx") and is_inline("iVBORw0KGgo") and not is_inline("HTTPS://a/b.png")


# the image host


@pytest.fixture
def guarded() -> Iterator[None]:
    with loopback_only():
        yield


def test_no_image_host_is_none_and_half_of_one_an_error(tmp_path: Path) -> None:
    file = tmp_path / "credentials.toml"
    assert find_image_host(file, {}) is None
    environ = {"CONTROLSTACK_IMAGE_HOST_BUCKET": "b", "CONTROLSTACK_IMAGE_HOST_ACCESS_KEY": "a"}
    with pytest.raises(CredentialsMissing, match="Set both"):
        find_image_host(file, environ)
    with pytest.raises(CredentialsMissing, match="BUCKET"):
        find_image_host(file, {"CONTROLSTACK_IMAGE_HOST_REGION": "eu"})
    found = find_image_host(file, {**environ, "CONTROLSTACK_IMAGE_HOST_SECRET_KEY": "s3cr3t-value"})
    assert isinstance(found, S3Host) and found.bucket == "b" and "s3cr3t-value" not in repr(found)


def test_without_boto3_the_image_host_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(CredentialsMissing, match="pip install 'boto3"):
        S3Host("bucket").put(b"x", "image/png", "png")


@pytest.mark.usefixtures("guarded")
def test_a_bucket_gets_the_file_once_and_gives_an_expiring_address(tmp_path: Path) -> None:
    pytest.importorskip("boto3", reason="an optional extra")
    with service() as bucket:
        environ = {
            "CONTROLSTACK_IMAGE_HOST_BUCKET": "pictures",
            "CONTROLSTACK_IMAGE_HOST_ENDPOINT": bucket.url,
            "CONTROLSTACK_IMAGE_HOST_REGION": "eu-1",
            "CONTROLSTACK_IMAGE_HOST_ACCESS_KEY": "access-key-id",
            "CONTROLSTACK_IMAGE_HOST_SECRET_KEY": "s3cr3t-value",
        }
        host = find_image_host(tmp_path / "none.toml", environ)
        assert host is not None
        data = image_file()
        path = f"/pictures/controlstack/{hashlib.sha256(data).hexdigest()}.png"
        bucket.on(path, Reply(b""))
        url = host.put(data, "image/png", "png")
        assert url.startswith(bucket.url + path) and "X-Amz-Expires=7200" in url and "X-Amz-Signature=" in url
        (seen,) = bucket.seen
        assert seen.method == "PUT" and seen.body == data and seen.headers["Content-Type"] == "image/png"
        assert "s3cr3t-value" not in url
        bucket.on(path, Reply(b"<Error><Code>AccessDenied</Code></Error>", 403))
        with pytest.raises(ServiceError, match="AccessDenied"):
            host.put(data, "image/png", "png")
