"""Finding, listing and storing the keys of the remote services: the environment, then a file of the user.

The file is TOML, written with mode 0600. It has one table for each service and profile:

    [scenario.default]
    api_key = "..."
    api_secret = "..."
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ...core.errors import CredentialsMissing
from .redaction import Secret
from .specs import API_KEY, DEFAULT_PROFILE, CredentialSpec, where_to_enter

Profiles = dict[tuple[str, str], dict[str, str]]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ESCAPE = re.compile(r"\\(?:(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|.)")
_LONGEST_SHOWN_PROFILE = 20
_LONGEST_VALUE = 1024
_HEADER = "# Keys for ControlStack. Written by `python -m controlstack.credentials`; keep it to yourself.\n"


@dataclass(frozen=True)
class Credentials:
    """The secrets of one service and profile by the names of the spec's fields; `origin` says where they were found.

    An optional field that is not set has an empty secret.
    """

    service: str
    profile: str
    secrets: Mapping[str, Secret]
    origin: str = ""

    def reveal(self) -> tuple[str, ...]:
        """The values in the order of the spec's fields, for redaction."""
        return tuple(secret.reveal() for secret in self.secrets.values())


@dataclass(frozen=True)
class ProfileStatus:
    """Whether a profile is complete. `origin` says where it was found, or what is wrong with it; never a value."""

    service: str
    profile: str
    is_set: bool
    origin: str


def credentials_file(user_directory: Path) -> Path:
    """The credentials file below ComfyUI's user folder. ComfyUI's server does not serve that place."""
    return user_directory / "__controlstack" / "credentials.toml"


def find_credentials(
    spec: CredentialSpec, profile: str, file: Path, environ: Mapping[str, str] | None = None
) -> Credentials:
    """The credentials in the environment (profile `default` only), otherwise those in the file.

    Raises CredentialsMissing, with what to do, where none are set, where one is missing and for values that no key has.
    """
    found = look_up_credentials(spec, profile, file, environ)
    if found is None:
        names = " and ".join(name for field, name in spec.variables[0].items() if field not in spec.optional)
        variables = f" You can also set {names} in the environment." if profile == DEFAULT_PROFILE else ""
        missing = f"There is no key for {spec.title} (profile '{profile}')."
        raise CredentialsMissing(f"{missing} {where_to_enter(spec.service, profile)}{variables}")
    return found


def look_up_credentials(
    spec: CredentialSpec, profile: str, file: Path, environ: Mapping[str, str] | None = None
) -> Credentials | None:
    """Like `find_credentials`, but None where nothing is set at all."""
    check_profile(profile)
    environ = os.environ if environ is None else environ
    if profile == DEFAULT_PROFILE:
        for variables in spec.variables:
            values = {field: environ.get(name, "").strip() for field, name in variables.items()}
            if any(values.values()):
                return _credentials(spec, profile, values, variables, "the environment")
    table = read_profiles(file).get((spec.service, profile))
    if table is None:
        return None
    values = {field: table.get(field, "") for field in spec.fields}
    return _credentials(spec, profile, values, {field: field for field in spec.fields}, str(file))


def list_profiles(
    specs: Mapping[str, CredentialSpec], file: Path, environ: Mapping[str, str] | None = None
) -> list[ProfileStatus]:
    """The default profile of every service in `specs`, and all its profiles in the file."""
    stored = read_profiles(file)
    pairs = {(service, DEFAULT_PROFILE) for service in specs} | {pair for pair in stored if pair[0] in specs}
    found: list[ProfileStatus] = []
    for service, profile in sorted(pairs):
        try:
            credentials = look_up_credentials(specs[service], profile, file, environ)
            found.append(ProfileStatus(service, profile, bool(credentials), credentials.origin if credentials else ""))
        except CredentialsMissing as incomplete:
            found.append(ProfileStatus(service, profile, False, str(incomplete)))
    return found


def store_credentials(spec: CredentialSpec, profile: str, values: Mapping[str, str], file: Path) -> None:
    """Write one profile and replace what it had. The file is replaced as a whole and readable by its owner only.

    Raises ValueError (without the value) for a value that no key has, CredentialsMissing for a name that no profile
    has.
    """
    check_profile(profile)
    for name in spec.fields:
        if fault := _fault(spec, name, values.get(name, ""), name):
            raise ValueError(fault)
    profiles = read_profiles(file)
    profiles[(spec.service, profile)] = {name: values[name] for name in spec.fields if values.get(name)}
    _write(file, profiles)


def remove_credentials(spec: CredentialSpec, profile: str, file: Path) -> bool:
    """Remove one profile from the file. Returns whether there was one."""
    profiles = read_profiles(file)
    if profiles.pop((spec.service, profile), None) is None:
        return False
    _write(file, profiles)
    return True


def read_profiles(file: Path) -> Profiles:
    """The tables of the file by (service, profile); empty where there is no file.

    Raises CredentialsMissing with the number of the line that is wrong, never with its content.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsMissing(f"{file} cannot be read ({type(error).__name__}). Check the file.") from None
    if os.name == "posix" and file.stat().st_mode & 0o077:
        logging.getLogger(__name__).warning("%s can be read by other users: run chmod 600 on it.", file)
    found = _profiles_in(text)
    if found is None:
        expected = 'Only tables [service.profile] with lines name = "text" are allowed'
        raise CredentialsMissing(f"{file}, line {_wrong_line(text)} is not valid. {expected}. Correct the line.")
    return found


def _is_table(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _profiles_in(text: str) -> Profiles | None:
    """The tables of the text of a file, None where it is not TOML or holds what `_write` could not write again."""
    try:
        document = tomllib.loads(_ESCAPE.sub(_joined_surrogates, text))
    except ValueError:  # its words may quote a key
        return None
    profiles: Profiles = {}
    for service, tables in document.items():
        if not _is_table(tables) or not tables:
            return None
        for profile, table in tables.items():
            if not _is_table(table) or not all(isinstance(value, str) for value in table.values()):
                return None
            if not all(_NAME.fullmatch(name) for name in (service, profile, *table)):
                return None
            profiles[(service, profile)] = table
    return profiles


def _joined_surrogates(escape: re.Match[str]) -> str:
    r"""The character of an escaped pair of surrogates, e.g. \ud83d\ude00; any other escape unchanged.

    Version 0.1 escaped characters beyond 16 bits like JSON, which TOML does not allow.
    """
    return json.loads(f'"{escape[0]}"') if escape[1] else escape[0]


def _wrong_line(text: str) -> int:
    """The number of the line after the longest part of the file that is valid by itself."""
    lines = text.splitlines(keepends=True)
    valid = (count for count in range(len(lines) - 1, 0, -1) if _profiles_in("".join(lines[:count])) is not None)
    return next(valid, 0) + 1


def check_profile(profile: str) -> None:
    """Raises CredentialsMissing for a text that is not the name of a profile, without repeating a pasted key."""
    if not _NAME.fullmatch(profile):
        shown = f"'{profile}'" if len(profile) <= _LONGEST_SHOWN_PROFILE else f"a text of {len(profile)} characters"
        rule = "A profile's name has 1 to 64 letters, digits, '-' or '_'"
        raise CredentialsMissing(f"profile is {shown}. {rule}. Enter the name of a profile, never a key.")


def _credentials(
    spec: CredentialSpec, profile: str, values: Mapping[str, str], names: Mapping[str, str], origin: str
) -> Credentials:
    """The credentials with these values by field; `names` is what each field is called at the origin."""
    for field, value in values.items():
        if fault := _fault(spec, field, value, names[field]):
            where = f"The key for {spec.service}, profile '{profile}', in {origin} cannot be used"
            raise CredentialsMissing(f"{where}: {fault} {where_to_enter(spec.service, profile)}")
    return Credentials(spec.service, profile, {field: Secret(value) for field, value in values.items()}, origin)


def _fault(spec: CredentialSpec, field: str, value: str, name: str) -> str:
    """What is wrong with the value of a field, without the value, or "". `name` is what the field is called."""
    if not value:
        return "" if field in spec.optional else f"{name} is not set."
    if not value.isascii() or not value.isprintable() or any(character.isspace() for character in value):
        return f"{name} contains spaces, line breaks or other characters that no key has. Copy it again."
    if field == API_KEY and ":" in value:
        return f"{name} contains a colon. Enter key and secret as two values."
    too_long = f"{name} has {len(value)} characters; no key has more than {_LONGEST_VALUE}. Copy it again."
    return "" if len(value) <= _LONGEST_VALUE else too_long


def _write(file: Path, profiles: Mapping[tuple[str, str], Mapping[str, str]]) -> None:
    lines = [_HEADER]
    for (service, profile), table in sorted(profiles.items()):
        pairs = "".join(f"{name} = {_toml_text(value)}\n" for name, value in table.items())
        lines.append(f"[{service}.{profile}]\n{pairs}")
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".credentials-")  # with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write("\n".join(lines))
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _toml_text(value: str) -> str:
    """A TOML string: as JSON writes it, but with characters beyond ASCII as they are and DEL escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
