"""Keys of the remote services: from the environment, else from a file of the user's; never seen, only used.

`python -m controlstack.credentials` lists what is set and stores a key from a prompt.

The file is TOML, written with mode 0600, a table for each service and profile:

    [scenario.default]
    api_key = "..."
    api_secret = "..."
"""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..core.errors import CredentialsMissing
from .redaction import REDACTED

DEFAULT_PROFILE = "default"
_PACK = Path(__file__).absolute().parents[1]  # not through links: they lead to clones
_IN_COMFYUI = _PACK.parent.name == "custom_nodes"
_COMMAND = f"python -m {_PACK.name if _IN_COMFYUI else 'controlstack'}.credentials"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADER = "# Keys for ControlStack. Written by `python -m controlstack.credentials`; keep it to yourself.\n"


@dataclass(frozen=True)
class Vault:
    """What a service's credentials consist of: names in the file, and the environment's names for the same, in sets.

    The first set of variables of which any is set counts. `optional` fields may stay empty; `title` is for users.
    """

    title: str
    fields: tuple[str, ...]
    variables: tuple[tuple[str, ...], ...]
    optional: frozenset[str] = frozenset()


VAULTS: Mapping[str, Vault] = {
    "modelslab": Vault("ModelsLab", ("api_key",), (("MODELSLAB_API_KEY",),)),
    "modelslab_enterprise": Vault("ModelsLab Enterprise", ("api_key",), (("MODELSLAB_ENTERPRISE_API_KEY",),)),
    "scenario": Vault(
        "Scenario",
        ("api_key", "api_secret"),
        (("SCENARIO_SDK_API_KEY", "SCENARIO_SDK_API_SECRET"), ("SCENARIO_API_KEY", "SCENARIO_API_SECRET")),
    ),
    "qolaba": Vault("Qolaba", ("api_key",), (("QOLABA_API_KEY",),)),
    "image_host": Vault(
        "Image host (S3)",
        ("bucket", "endpoint_url", "region", "access_key", "secret_key"),
        (
            (
                "CONTROLSTACK_IMAGE_HOST_BUCKET",
                "CONTROLSTACK_IMAGE_HOST_ENDPOINT",
                "CONTROLSTACK_IMAGE_HOST_REGION",
                "CONTROLSTACK_IMAGE_HOST_ACCESS_KEY",
                "CONTROLSTACK_IMAGE_HOST_SECRET_KEY",
            ),
        ),
        optional=frozenset({"endpoint_url", "region", "access_key", "secret_key"}),
    ),
}


class Secret:
    """A value that can be used but not printed, compared, formatted or pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself: for the wire only."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return REDACTED

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")


@dataclass(frozen=True)
class Credentials:
    """The secrets of one service and profile, in the order of its Vault; `origin` says where they came from."""

    service: str
    profile: str
    secrets: tuple[Secret, ...]
    origin: str = ""

    def reveal(self) -> tuple[str, ...]:
        """For `Endpoint.authorize` and for redaction."""
        return tuple(secret.reveal() for secret in self.secrets)


@dataclass(frozen=True)
class ProfileStatus:
    """What may be told about a profile: whether it is complete, and where it stands."""

    service: str
    profile: str
    is_set: bool
    origin: str


def credentials_file(user_directory: Path) -> Path:
    """Where the file lies below ComfyUI's user folder; its server does not hand that place out."""
    return user_directory / "__controlstack" / "credentials.toml"


def find_credentials(service: str, profile: str, file: Path, environ: Mapping[str, str] | None = None) -> Credentials:
    """The environment's credentials (profile `default` only), else the file's.

    Raises CredentialsMissing with what to do, also for half a set and for values no key can have.
    """
    found = look_up_credentials(service, profile, file, environ)
    if found is None:
        vault = VAULTS[service]
        pairs = zip(vault.fields, vault.variables[0], strict=True)
        names = " and ".join(variable for field, variable in pairs if field not in vault.optional)
        variables = f" The environment may have it as {names}." if profile == DEFAULT_PROFILE else ""
        what = f"There is no key for {service}, profile '{profile}'."
        raise CredentialsMissing(f"{what} {where_to_enter(service, profile)}{variables}")
    return found


def where_to_enter(service: str, profile: str = DEFAULT_PROFILE) -> str:
    """What to do about a key that is missing or wrong, as a sentence."""
    command = f"set {service}" + (f" --profile {profile}" if profile != DEFAULT_PROFILE else "")
    return f"Enter it in ComfyUI under Settings, ControlStack, or run {in_terminal(command)}."


def in_terminal(command: str) -> str:
    """The command with the only folder in which it works."""
    return f"`{_COMMAND} {command}` in the folder custom_nodes"


def list_profiles(file: Path, environ: Mapping[str, str] | None = None) -> list[ProfileStatus]:
    """Every service's default profile and every profile of the file."""
    stored = read_profiles(file)
    pairs = {(service, DEFAULT_PROFILE) for service in VAULTS} | {pair for pair in stored if pair[0] in VAULTS}
    found: list[ProfileStatus] = []
    for service, profile in sorted(pairs):
        try:
            credentials = look_up_credentials(service, profile, file, environ)
            found.append(ProfileStatus(service, profile, bool(credentials), credentials.origin if credentials else ""))
        except CredentialsMissing as incomplete:
            found.append(ProfileStatus(service, profile, False, str(incomplete)))
    return found


def store_credentials(service: str, profile: str, values: Mapping[str, str], file: Path) -> None:
    """Write one profile, replacing what it had; the file appears whole or not at all, readable by its owner only.

    Raises ValueError (never naming the value) for a value that no key can have, CredentialsMissing for unknown names.
    """
    vault = _vault(service)
    _check_profile(profile)
    for name in vault.fields:
        if problem := _problem(name, values.get(name, ""), name in vault.optional):
            raise ValueError(problem)
    profiles = read_profiles(file)
    profiles[(service, profile)] = {name: values[name] for name in vault.fields if values.get(name)}
    _write(file, profiles)


def remove_credentials(service: str, profile: str, file: Path) -> bool:
    """Forget one profile; whether there was one."""
    profiles = read_profiles(file)
    if profiles.pop((service, profile), None) is None:
        return False
    _write(file, profiles)
    return True


def read_profiles(file: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The tables of the file by (service, profile); empty without a file.

    Reads `[service.profile]` headers, `name = "text"` lines, literal '...' strings and comments: all that a file of
    keys needs of TOML, on Python 3.10 as well, which has no TOML reader. Raises CredentialsMissing naming the line
    number, never its content.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsMissing(f"{file} cannot be read: {type(error).__name__}. Check the file.") from None
    if os.name == "posix" and file.stat().st_mode & 0o077:
        logging.getLogger(__name__).warning("%s can be read by other users: run chmod 600 on it.", file)
    profiles: dict[tuple[str, str], dict[str, str]] = {}
    table: dict[str, str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        header = re.fullmatch(r"\[\s*([\w-]+)\s*\.\s*([\w-]+)\s*\]\s*(#.*)?", line, re.ASCII)
        pair = re.fullmatch(r"""([\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*')\s*(#.*)?""", line, re.ASCII)
        if header:
            table = profiles.setdefault((header[1], header[2]), {})
        elif pair and table is not None:
            table[pair[1]] = _unquote(pair[2], file, number)
        else:
            raise CredentialsMissing(f'{file}, line {number}: expected [service.profile] or name = "text". Correct it.')
    return profiles


def _vault(service: str) -> Vault:
    if service not in VAULTS:
        raise CredentialsMissing(f"There is no service '{service}'. It must be one of {', '.join(VAULTS)}.")
    return VAULTS[service]


def _check_profile(profile: str) -> None:
    if not _NAME.fullmatch(profile):
        rule = "it must be 1 to 64 letters, digits, '-' or '_'"
        shown = f"'{profile}'" if len(profile) <= 20 else f"{len(profile)} characters long"  # a key pasted there
        raise CredentialsMissing(f"profile is {shown}: {rule}. It is the name of a profile, never a key.")


def look_up_credentials(
    service: str, profile: str, file: Path, environ: Mapping[str, str] | None = None
) -> Credentials | None:
    """The same, but None where nothing at all is set. Raises CredentialsMissing for what is set and cannot work."""
    vault = _vault(service)
    _check_profile(profile)
    environ = os.environ if environ is None else environ
    if profile == DEFAULT_PROFILE:
        for names in vault.variables:
            values = [environ.get(name, "").strip() for name in names]
            if any(values):
                return _credentials(service, profile, names, values, "the environment")
    table = read_profiles(file).get((service, profile))
    if table is None:
        return None
    return _credentials(service, profile, vault.fields, [table.get(name, "") for name in vault.fields], str(file))


def _credentials(service: str, profile: str, names: Sequence[str], values: Sequence[str], origin: str) -> Credentials:
    vault = _vault(service)
    for field, name, value in zip(vault.fields, names, values, strict=True):
        if problem := _problem(name, value, field in vault.optional):
            what = f"The key for {service}, profile '{profile}', in {origin}"
            raise CredentialsMissing(f"{what}: {problem} {where_to_enter(service, profile)}")
    return Credentials(service, profile, tuple(Secret(value) for value in values), origin)


def _problem(name: str, value: str, optional: bool) -> str:
    if not value:
        return "" if optional else f"{name} is not set."
    if not value.isascii() or not value.isprintable() or any(character.isspace() for character in value):
        return f"{name} holds spaces, line breaks or other characters that no key has. Copy it again."
    if name.lower().endswith("api_key") and ":" in value:
        return f"{name} holds a colon: key and secret are two values."
    return "" if len(value) <= 1024 else f"{name} is {len(value)} characters long, which no key is. Copy it again."


def _unquote(literal: str, file: Path, number: int) -> str:
    if literal.startswith("'"):
        return literal[1:-1]
    try:
        return json.loads(literal)  # TOML's basic strings and JSON's share their escapes but \U and \e
    except ValueError:
        raise CredentialsMissing(f"{file}, line {number}: the text in quotes is not valid. Correct it.") from None


def _write(file: Path, profiles: Mapping[tuple[str, str], Mapping[str, str]]) -> None:
    lines = [_HEADER]
    for (service, profile), table in sorted(profiles.items()):
        pairs = "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())
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


def _user_directory() -> Path | None:
    """ComfyUI's user folder where the pack lies in custom_nodes."""
    return _PACK.parents[1] / "user" if _IN_COMFYUI else None


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    default = _user_directory()
    parser = argparse.ArgumentParser(prog=_COMMAND, description="Keys of the remote services. No value is ever shown.")
    parser.add_argument(
        "--user-directory", type=Path, default=default, required=default is None, help="ComfyUI's user folder"
    )
    commands = parser.add_subparsers(dest="command", metavar="list|set|remove")
    commands.add_parser("list", help="what is set (the default)")
    for name, text in (("set", "store a key from a prompt"), ("remove", "forget a stored key")):
        command = commands.add_parser(name, help=text)
        command.add_argument("service", choices=list(VAULTS))
        command.add_argument("--profile", default=DEFAULT_PROFILE)
    options = parser.parse_args(argv)
    file = credentials_file(options.user_directory)
    try:
        if options.command == "set":
            _set(options.service, options.profile, file)
        elif options.command == "remove":
            gone = remove_credentials(options.service, options.profile, file)
            sys.stdout.write(f"{options.service} {options.profile}: {'removed' if gone else 'was not there'}\n")
        else:
            for status in list_profiles(file):
                where = f" ({status.origin})" if status.origin else ""
                set_or_not = "set" if status.is_set else "not set"
                sys.stdout.write(f"{status.service:22}{status.profile:16}{set_or_not}{where}\n")
    except (CredentialsMissing, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _set(service: str, profile: str, file: Path) -> None:
    vault = _vault(service)
    _check_profile(profile)
    values: dict[str, str] = {}
    for name in vault.fields:
        optional = " (may stay empty)" if name in vault.optional else ""
        values[name] = getpass.getpass(f"{service} {profile}, {name}{optional}: ").strip()
    store_credentials(service, profile, values, file)
    sys.stdout.write(f"{service} {profile}: stored in {file}\n")


if __name__ == "__main__":
    sys.exit(main())
