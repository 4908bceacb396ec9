"""Getting the images of a request to a service: inline, uploaded to the service, or by a public link."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Protocol
from urllib.parse import urlsplit

from ...core.errors import ServiceError, ServiceUnreachable
from ...core.problems import Problem, ProblemKind
from ..credentials.specs import IMAGE_HOST, where_to_enter
from .image_host import ImageHost
from .images import Encoded, digest, encode_cached, pixels
from .messages import Answer, Call, Carrier, ImageSlot
from .transport import Transport
from .waiting import StopCheck, interruptible

if TYPE_CHECKING:
    import numpy as np

_HOST_SECONDS = 180.0

IMAGE_ADDRESS_INVALID = ProblemKind(
    "image_address_invalid",
    "{field} is '{value}', which is not a web address. Enter an address that begins with http:// or https:// and that "
    "the service can reach, or clear it.",
)
IMAGE_MISSING = ProblemKind("image_missing", "{target} needs {field}. Connect an image.")
IMAGE_HOST_MISSING = ProblemKind(
    "image_host_missing",
    "{target} accepts images only by a public address, and the image connected to {field} has none. Set image_url, or "
    "set up an image host: {how}",
)


class ImageStore(Protocol):
    """A service that images are sent to, as far as an upload needs to know it. Every endpoint is one."""

    target: ClassVar[str]

    def upload(self, data: bytes, media_type: str, name: str) -> Call | None:
        """The call that stores an image at the service, None if the service cannot store images."""
        ...

    def read_upload(self, answer: Answer) -> str:
        """The text that stands for the uploaded image in a request body."""
        ...


@dataclass(frozen=True, eq=False)
class ImagePart:
    """An image of a request, ready to be sent. `pixels` is None if the user gave an address."""

    slot: ImageSlot
    pixels: np.ndarray | None

    @property
    def label(self) -> str:
        """A placeholder for the image in a displayed request body."""
        return self.slot.url if self.pixels is None else f"<png {self.pixels.shape[1]}x{self.pixels.shape[0]}>"

    @property
    def stand_in(self) -> str:
        """A text in the carrier's form that depends only on the image, so that equal requests have equal bodies."""
        if self.pixels is None:
            return self.slot.url
        name = digest(self.pixels)
        forms = {Carrier.BASE64: name, Carrier.DATA_URL: f"data:image/png;base64,{name}", Carrier.UPLOAD: name}
        return forms.get(self.slot.carrier, f"https://image.invalid/{name}.png")


@dataclass(frozen=True)
class UploadedImages:
    """The result of an upload.

    `texts` stand for the images in the request body, by the key of their slot. `labels` replace these texts where a
    body is displayed. `notes` say how images had to be changed.
    """

    texts: Mapping[str, str]
    labels: Mapping[str, str]
    notes: tuple[str, ...] = ()


def image_parts(slots: Sequence[ImageSlot], target: str) -> list[ImagePart]:
    """The images of a valid request. Raises InvalidRequest for a batch."""
    return [
        ImagePart(slot, None if slot.url or slot.image is None else pixels(slot.image, slot.key, target))
        for slot in slots
    ]


def upload_problems(slots: Sequence[ImageSlot], target: str, *, has_image_host: bool) -> list[Problem]:
    """Missing images, images that cannot be sent to the service, and addresses that no service can reach."""
    problems: list[Problem] = []
    for slot in slots:
        if slot.url:
            if not re.match(r"https?://[^\s/]+", slot.url) or not urlsplit(slot.url).hostname:
                problems.append(IMAGE_ADDRESS_INVALID(slot.key, slot.url[:60]))
        elif slot.image is None:
            problems.append(IMAGE_MISSING(slot.key, target=target))
        elif slot.carrier is Carrier.URL and not has_image_host:
            problems.append(IMAGE_HOST_MISSING(slot.key, target=target, how=where_to_enter(IMAGE_HOST.service)))
    return problems


def upload_images(
    store: ImageStore, parts: Sequence[ImagePart], transport: Transport, host: ImageHost | None, should_stop: StopCheck
) -> UploadedImages:
    """Encode every image within its size limit and bring it to where the request body can refer to it.

    Uploads are retried like other unpaid calls. Raises ServiceError, ServiceUnreachable or InvalidRequest.
    """
    texts: dict[str, str] = {}
    labels: dict[str, str] = {}
    notes: list[str] = []
    for part in parts:
        slot = part.slot
        if part.pixels is None:
            texts[slot.key] = slot.url
            continue
        encoded = encode_cached(part.pixels, slot.key, store.target, slot.max_bytes)
        if encoded.note:
            notes.append(f"{slot.key}: {encoded.note}")
        texts[slot.key] = text = _send(store, slot, encoded, transport, host, should_stop)
        labels[text] = encoded.label
    return UploadedImages(texts, labels, tuple(notes))


def _send(
    store: ImageStore,
    slot: ImageSlot,
    encoded: Encoded,
    transport: Transport,
    host: ImageHost | None,
    should_stop: StopCheck,
) -> str:
    if slot.carrier is Carrier.BASE64:
        return encoded.base64()
    if slot.carrier is Carrier.DATA_URL:
        return encoded.data_url()
    if slot.carrier is Carrier.UPLOAD:
        name = f"controlstack-{re.sub(r'[^A-Za-z0-9]+', '-', slot.key)}.{encoded.extension}"
        call = store.upload(encoded.data, encoded.media_type, name)
        assert call is not None, f"{store.target} declares an upload but has no call for it"
        found = store.read_upload(transport.ask(call))
        if not found:
            raise ServiceError(f"{store.target} accepted the image for {slot.key} but returned no address. Try again.")
        return found
    assert host is not None, "ruled out by upload_problems"
    put = partial(host.put, encoded.data, encoded.media_type, encoded.extension)
    try:
        return interruptible(put, should_stop, _HOST_SECONDS)
    except TimeoutError as silence:
        raise ServiceUnreachable(
            f"The image host did not accept the image for {slot.key} in time: {silence}. Try again; nothing was "
            f"charged."
        ) from None
