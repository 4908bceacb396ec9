"""Secrets, and how they are kept out of texts."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import quote

REDACTED = "<redacted>"
_SHORTEST_REDACTED = 4
_SHORTEST_BASE64 = 8


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
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, Mapping):
        return {redact(str(name), secrets): redact_json(item, secrets) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_json(item, secrets) for item in value]
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
