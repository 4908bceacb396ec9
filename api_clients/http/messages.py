"""What travels between the pack and a service: calls, answers, and the images of a request."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from torch import Tensor

Json = Mapping[str, Any]


def is_object(value: object) -> TypeGuard[Json]:
    """Whether this part of a JSON document is an object."""
    return isinstance(value, Mapping)


def is_array(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether this part of a JSON document is an array."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


_WAIT_FIELDS = ("retry_after", "retryAfter", "remainingSeconds")
_WAIT_IN_WORDS = re.compile(r"(\d+(?:\.\d+)?)\s*(second|minute)", re.IGNORECASE)


@dataclass(frozen=True)
class Call:
    """One HTTP call. `path` is below the service's base URL. A `paid` call is sent at most once."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    paid: bool = False


@dataclass(frozen=True)
class Answer:
    """The answer to a call. `json` is None if the body is not a JSON object.

    `redact` removes secrets from strings taken out of `json`; `text` is already redacted. Redact before truncating: a
    truncated secret would no longer match.
    """

    status: int
    json: Json | None
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    redact: Callable[[str], str] = field(default=str, repr=False, compare=False)


class Carrier(StrEnum):
    """How an image gets to the service."""

    BASE64 = "base64"
    DATA_URL = "data URL"
    UPLOAD = "upload"
    URL = "public URL"


@dataclass(frozen=True, eq=False, repr=False)
class ImageSlot:
    """An image that the request body needs.

    `key` is its name in the `images` argument of `Endpoint.build_payload`. `url` is set if the user gave a public
    address; it takes precedence over the tensor. `max_bytes` limits the size of the encoded file; 0 is no limit.
    """

    key: str
    image: Tensor | None
    carrier: Carrier
    url: str = ""
    max_bytes: int = 0


def number(value: object) -> float | None:
    """A finite number, given as a number or as text; None for anything else."""
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            found = float(value)
        except ValueError:
            return None
        return found if abs(found) < float("inf") else None
    return None


def seconds_to_wait(answer: Answer, said: str = "") -> float | None:
    """How long the body asks to wait, by one of its fields or in the words `said`. Headers are not read."""
    for name in _WAIT_FIELDS:
        found = number((answer.json or {}).get(name))
        if found is not None and found >= 0:
            return found
    spoken = _WAIT_IN_WORDS.search(said)
    return float(spoken[1]) * (60 if spoken[2].lower() == "minute" else 1) if spoken else None
