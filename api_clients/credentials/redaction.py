"""Secrets, and how they, link signatures and images are kept out of texts."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, cast
from urllib.parse import quote

REDACTED = "<redacted>"
_SHORTEST_REDACTED = 4
_SHORTEST_BASE64 = 8
_SHORTEST_LABELED = 12  # a shorter text, such as the number of an upload, may occur in other texts by chance
_LONGEST_TEXT = 2000
_EQUALS, _AND = "(?:=|%(?:25)*3d)", "&|%(?:25)*26"  # plain, or quoted because the link is part of another one
_SIGNATURE = re.compile(
    rf"((?:signature|credential|token|policy|sig){_EQUALS})(?:(?!{_AND})[^\s\"'<>\\])+", re.IGNORECASE
)


class Secret:
    """A value that can be used but not printed, compared, formatted or pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself. Only requests to a service and redaction may use it."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return REDACTED

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be serialized")


def redact(text: str, secrets: Iterable[str]) -> str:
    """Replace every secret in the text: plain, quoted for a URL or for JSON, and in base64 at any alignment.

    Secrets of fewer than 4 characters are not replaced: they occur in ordinary words.
    """
    for form in _forms(tuple(secret for secret in secrets if len(secret) >= _SHORTEST_REDACTED)):
        text = text.replace(form, REDACTED)
    return text


def redact_json(value: Any, secrets: Sequence[str]) -> Any:
    """Replace every secret in all texts of plain JSON data, keys of objects included."""
    return map_texts(value, lambda text: redact(text, secrets), keys=True)


def label_images(value: Any, labels: Mapping[str, str]) -> Any:
    """Replace the texts that stand for images (base64, ids of uploads, links) by their labels in plain JSON data."""

    def labeled(text: str) -> str:
        for image, label in labels.items():
            if text == image or len(image) >= _SHORTEST_LABELED:
                text = text.replace(image, label)
        return text

    return map_texts(value, labeled)


def remove_signatures(value: Any) -> Any:
    """Remove the signatures of signed links, such as those of images in the user's bucket, from plain JSON data."""
    return map_texts(value, lambda text: _SIGNATURE.sub(r"\1...", text))


def shorten(value: Any) -> Any:
    """Truncate very long texts, such as inline images, in plain JSON data. Redact before: half a key is not found."""
    return map_texts(
        value, lambda text: text if len(text) <= _LONGEST_TEXT else f"{text[:40]}... ({len(text)} characters)"
    )


def map_texts(value: Any, change: Callable[[str], str], *, keys: bool = False) -> Any:
    """Plain JSON data with `change` applied to every text, and with `keys` to the keys of objects, too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        members = cast("Mapping[object, Any]", value)
        names = [change(str(name)) if keys else str(name) for name in members]
        return {name: map_texts(item, change, keys=keys) for name, item in zip(names, members.values(), strict=True)}
    if isinstance(value, list | tuple):
        return [map_texts(item, change, keys=keys) for item in cast("Sequence[Any]", value)]
    return value


@functools.lru_cache(maxsize=16)
def _forms(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Every spelling of the secrets, the longest first. `key:secret` is one more, for HTTP Basic."""
    forms: set[str] = set()
    for secret in [*secrets, ":".join(secrets)] if secrets else []:
        forms |= {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}
        forms |= _base64_forms(secret)
    return tuple(sorted(forms, key=len, reverse=True))


def _base64_forms(secret: str) -> set[str]:
    """The characters that the base64 of any text with the secret in it must contain, for each of three alignments."""
    data = secret.encode()
    forms = {base64.b64encode(data).decode()}
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")
        first = -(-offset * 8 // 6)  # earlier characters also hold bits of the text before the secret
        last = (offset + len(data)) * 8 // 6
        if last - first >= _SHORTEST_BASE64:
            forms.add(encoded[first:last])
    return forms | {form.replace("+", "-").replace("/", "_") for form in forms}
