"""Taking out of texts what must not be shown: secrets, link signatures, and the contents of images."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

REDACTED = "<redacted>"
_MAX_CHARACTERS = 2000
_MIN_LABELED = 12  # shorter texts, such as the number of an upload, may occur in other texts by chance
_EQUALS, _AND = "(?:=|%(?:25)*3d)", "&|%(?:25)*26"  # plain, or quoted because the link is part of another one
_SIGNATURE = re.compile(
    rf"((?:signature|credential|token|policy|sig){_EQUALS})(?:(?!{_AND})[^\s\"'<>\\])+", re.IGNORECASE
)


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets, in plain form, quoted for a URL or JSON, and in base64 of any alignment."""
    for form in _forms(tuple(secret for secret in secrets if len(secret) >= 4)):
        text = text.replace(form, REDACTED)
    return text


def redact_json(value: Any, secrets: Iterable[str]) -> Any:
    """JSON data without the secrets, in keys and in values."""
    secrets = tuple(secrets)
    return map_texts(value, lambda text: redact(text, secrets), keys=True)


def label_images(value: Any, labels: Mapping[str, str]) -> Any:
    """JSON data in which the texts that stand for images (base64, uploaded ids, links) are replaced by their labels."""

    def labeled(text: str) -> str:
        for image, label in labels.items():
            if text == image or len(image) >= _MIN_LABELED:
                text = text.replace(image, label)
        return text

    return map_texts(value, labeled)


def remove_signatures(value: Any) -> Any:
    """JSON data without the signatures of signed links, such as those of images in the user's bucket."""
    return map_texts(value, lambda text: _SIGNATURE.sub(r"\1...", text))


def shorten(value: Any) -> Any:
    """JSON data in which very long texts, such as inline images, are truncated."""
    return map_texts(
        value, lambda text: text if len(text) <= _MAX_CHARACTERS else f"{text[:40]}... ({len(text)} characters)"
    )


def map_texts(value: Any, change: Callable[[str], str], *, keys: bool = False) -> Any:
    """JSON data with `change` applied to every text; to the keys of objects only with `keys`."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            change(str(name)) if keys else str(name): map_texts(item, change, keys=keys) for name, item in value.items()
        }
    return [map_texts(item, change, keys=keys) for item in value] if isinstance(value, list | tuple) else value


@functools.lru_cache(maxsize=16)
def _forms(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """All forms in which the secrets may occur in a text, the longest first."""
    forms: set[str] = set()
    for secret in [*secrets, ":".join(secrets)] if secrets else []:
        forms |= {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}
        forms |= _base64_forms(secret)
    return tuple(sorted(forms, key=len, reverse=True))


def _base64_forms(secret: str) -> set[str]:
    """What base64 of any text that contains the secret must contain, for each of the three alignments."""
    data = secret.encode()
    forms = {base64.b64encode(data).decode()}
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")
        first = -(-offset * 8 // 6)  # the characters before it also hold bits of what precedes the secret
        last = (offset + len(data)) * 8 // 6
        if last - first >= 8:
            forms.add(encoded[first:last])
    return forms | {form.replace("+", "-").replace("/", "_") for form in forms}
