"""`python -m controlstack.credentials`: list, store and remove the keys of the remote services."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import CredentialsMissing
from ..registry import SPECS
from .specs import COMMAND, DEFAULT_PROFILE, IN_COMFYUI, PACK, CredentialSpec
from .store import check_profile, credentials_file, list_profiles, remove_credentials, store_credentials


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit status."""
    default = PACK.parents[1] / "user" if IN_COMFYUI else None
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Keys of the remote services. No value is ever displayed."
    )
    parser.add_argument(
        "--user-directory", type=Path, default=default, required=default is None, help="ComfyUI's user folder"
    )
    commands = parser.add_subparsers(dest="command", metavar="list|set|remove")
    commands.add_parser("list", help="show which keys are set (the default)")
    for name, text in (("set", "ask for a key and store it"), ("remove", "delete a stored key")):
        command = commands.add_parser(name, help=text)
        command.add_argument("service", choices=list(SPECS))
        command.add_argument("--profile", default=DEFAULT_PROFILE)
    options = parser.parse_args(argv)
    file = credentials_file(options.user_directory)
    try:
        if options.command == "set":
            _set(SPECS[options.service], options.profile, file)
        elif options.command == "remove":
            removed = remove_credentials(SPECS[options.service], options.profile, file)
            sys.stdout.write(f"{options.service} {options.profile}: {'removed' if removed else 'was not stored'}\n")
        else:
            _list(file)
    except (CredentialsMissing, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _list(file: Path) -> None:
    for status in list_profiles(SPECS, file):
        where = f" ({status.origin})" if status.origin else ""
        sys.stdout.write(f"{status.service:22}{status.profile:16}{'set' if status.is_set else 'not set'}{where}\n")


def _set(spec: CredentialSpec, profile: str, file: Path) -> None:
    check_profile(profile)
    values: dict[str, str] = {}
    for name in spec.fields:
        optional = " (optional)" if name in spec.optional else ""
        values[name] = getpass.getpass(f"{spec.service} {profile}, {name}{optional}: ").strip()
    store_credentials(spec, profile, values, file)
    sys.stdout.write(f"{spec.service} {profile}: stored in {file}\n")


if __name__ == "__main__":
    sys.exit(main())
