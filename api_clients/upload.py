"""The images of a request on their way to a service: inline, uploaded there, or at a public address."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..core.errors import Problem, ServiceError, ServiceUnreachable
from ..core.request import GenerationRequest
from .endpoint import Endpoint
from .image_host import ImageHost
from .images import Encoded, Encoder, digest, pixels
from .messages import Carrier, ImageSlot
from .specs import where_to_enter
from .transport import Transport
from .waiting import Stop, interruptible

if TYPE_CHECKING:
    import numpy as np

_ENCODER = Encoder()
_HOST_SECONDS = 180.0
_LONGEST_TEXT = 2000
_EQUALS, _AND = "(?:=|%(?:25)*3d)", "&|%(?:25)*26"  # as they are, and quoted as part of another address
_SIGNATURE = re.compile(
    rf"((?:signature|credential|token|policy|sig){_EQUALS})(?:(?!{_AND})[^\s\"'<>\\])+", re.IGNORECASE
)
_SURE_TEXT = 12  # a shorter one, e.g. an upload's number, may stand in another text by chance


@dataclass(frozen=True, eq=False)
class Parcel:
    """An image that the body needs, ready to travel. `pixels` is None where the user gave an address."""

    slot: ImageSlot
    pixels: np.ndarray | None

    @property
    def label(self) -> str:
        """What stands for the image where a body is shown before it is sent."""
        return self.slot.url if self.pixels is None else f"<png {self.pixels.shape[1]}x{self.pixels.shape[0]}>"

    @property
    def stand_in(self) -> str:
        """A text in the carrier's form that depends on the picture alone, so that equal requests look equal."""
        if self.pixels is None:
            return self.slot.url
        name = digest(self.pixels)
        forms = {Carrier.BASE64: name, Carrier.DATA_URL: f"data:image/png;base64,{name}", Carrier.UPLOAD: name}
        return forms.get(self.slot.carrier, f"https://image.invalid/{name}.png")


@dataclass(frozen=True)
class Carried:
    """What the images became: texts for the body by key, labels by text, and remarks on what was done to them."""

    texts: Mapping[str, str]
    labels: Mapping[str, str]
    notes: tuple[str, ...] = ()


def pack(endpoint: Endpoint[Any], request: GenerationRequest, options: Any) -> list[Parcel]:
    """The images of a valid request as numbers. Raises InvalidRequest for a batch where a service takes one image."""
    parcels: list[Parcel] = []
    for slot in endpoint.image_slots(request, options):
        image = None if slot.url else slot.image
        parcels.append(Parcel(slot, None if image is None else pixels(image, slot.key, endpoint.target)))
    return parcels


def carriage_problems(endpoint: Endpoint[Any], slots: Sequence[ImageSlot], host_is_set: bool) -> list[Problem]:
    """Images for which there is no way to the service, and addresses that no service can fetch."""
    problems: list[Problem] = []
    for slot in slots:
        if slot.url:
            if not re.match(r"https?://[^\s/]+", slot.url) or not urlsplit(slot.url).hostname:
                rule = "it must begin with http:// or https:// and be reachable for the service"
                problems.append(Problem(slot.key, f"'{slot.url[:60]}'", rule, "Correct it or leave it empty."))
        elif slot.image is None:
            problems.append(Problem(slot.key, "not connected", f"{endpoint.target} needs it", "Connect an image."))
        elif slot.carrier is Carrier.URL and not host_is_set:
            limit = f"{endpoint.target} takes only pictures with a public address, and it has none"
            remedy = f"Set image_url, or set up an image host: {where_to_enter('image_host')}"
            problems.append(Problem(slot.key, "a picture on this machine", limit, remedy))
    return problems


def carry(
    endpoint: Endpoint[Any], parcels: Sequence[Parcel], transport: Transport, host: ImageHost | None, should_stop: Stop
) -> Carried:
    """Encode every image within its size limit and bring it to where the body can name it.

    Uploads are repeated as any unpaid call. Raises ServiceError, ServiceUnreachable or InvalidRequest.
    """
    texts: dict[str, str] = {}
    labels: dict[str, str] = {}
    notes: list[str] = []
    for parcel in parcels:
        slot = parcel.slot
        if parcel.pixels is None:
            texts[slot.key] = slot.url
            continue
        encoded = _ENCODER.encode(parcel.pixels, slot.key, endpoint.target, slot.max_bytes)
        if encoded.note:
            notes.append(f"{slot.key}: {encoded.note}")
        texts[slot.key] = text = _bring(endpoint, slot, encoded, transport, host, should_stop)
        labels[text] = encoded.label
    return Carried(texts, labels, tuple(notes))


def _bring(
    endpoint: Endpoint[Any],
    slot: ImageSlot,
    encoded: Encoded,
    transport: Transport,
    host: ImageHost | None,
    should_stop: Stop,
) -> str:
    if slot.carrier is Carrier.BASE64:
        return encoded.base64()
    if slot.carrier is Carrier.DATA_URL:
        return encoded.data_url()
    if slot.carrier is Carrier.UPLOAD:
        name = f"controlstack-{re.sub(r'[^A-Za-z0-9]+', '-', slot.key)}.{encoded.extension}"
        call = endpoint.upload(encoded.data, encoded.media_type, name)
        assert call is not None, f"{endpoint.target} asks for an upload and has none"
        found = endpoint.read_upload(transport.ask(call))
        if not found:
            raise ServiceError(
                f"{endpoint.target} took the image for {slot.key} but did not say where it is. Try again."
            )
        return found
    assert host is not None, "checked by carriage_problems"
    put = partial(host.put, encoded.data, encoded.media_type, encoded.extension)
    try:
        return interruptible(put, should_stop, _HOST_SECONDS)
    except TimeoutError as silence:
        raise ServiceUnreachable(f"The image host took the image for {slot.key} too slowly: {silence}.") from None


def show(value: Any, labels: Mapping[str, str]) -> Any:
    """Plain JSON data with the images as labels, wherever they stand."""

    def labelled(text: str) -> str:
        for carried, label in labels.items():
            if text == carried or len(carried) >= _SURE_TEXT:
                text = text.replace(carried, label)
        return text

    return _in_texts(value, labelled)


def unsigned(value: Any) -> Any:
    """Plain JSON data without what opens a signed link, such as that of a picture in the user's bucket."""
    return _in_texts(value, lambda text: _SIGNATURE.sub(r"\1...", text))


def shortened(value: Any) -> Any:
    """Plain JSON data without endless texts, such as pictures."""
    return _in_texts(
        value, lambda text: text if len(text) <= _LONGEST_TEXT else f"{text[:40]}... ({len(text)} characters)"
    )


def _in_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {str(name): _in_texts(item, change) for name, item in value.items()}
    return [_in_texts(item, change) for item in value] if isinstance(value, list | tuple) else value


def preview(endpoint: Endpoint[Any], request: GenerationRequest, options: Any) -> dict[str, Any]:
    """The exact body that a valid request would send, without credentials; images as labels. Sends nothing.

    An image with a limited size may be sent as JPEG; that shows only when it is encoded.
    """
    parcels = pack(endpoint, request, options)
    payload = endpoint.build_payload(request, options, {parcel.slot.key: parcel.stand_in for parcel in parcels})
    return show(payload, {parcel.stand_in: parcel.label for parcel in parcels if parcel.pixels is not None})
