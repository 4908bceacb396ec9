"""What the credentials of each service consist of, and how a user enters them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PROFILE = "default"
API_KEY = "api_key"  # the field of a key that a service issues; it has no colon
PACK = Path(__file__).absolute().parents[2]  # not resolved: a link in custom_nodes leads to a clone elsewhere
IN_COMFYUI = PACK.parent.name == "custom_nodes"
COMMAND = f"python -m {PACK.name if IN_COMFYUI else 'controlstack'}.credentials"


@dataclass(frozen=True)
class CredentialSpec:
    """The credentials of one service.

    `service` is the name of its tables in the credentials file, `title` the name shown to users and `fields` are the
    names in the file. Each of `variables` maps every field to an environment variable; the first of them with any
    variable set is used. `optional` fields may be empty.
    """

    service: str
    title: str
    fields: tuple[str, ...]
    variables: tuple[Mapping[str, str], ...]
    optional: frozenset[str] = frozenset()


IMAGE_HOST = CredentialSpec(
    "image_host",
    "Image host (S3)",
    ("bucket", "endpoint_url", "region", "access_key", "secret_key"),
    (
        {
            "bucket": "CONTROLSTACK_IMAGE_HOST_BUCKET",
            "endpoint_url": "CONTROLSTACK_IMAGE_HOST_ENDPOINT",
            "region": "CONTROLSTACK_IMAGE_HOST_REGION",
            "access_key": "CONTROLSTACK_IMAGE_HOST_ACCESS_KEY",
            "secret_key": "CONTROLSTACK_IMAGE_HOST_SECRET_KEY",
        },
    ),
    optional=frozenset({"endpoint_url", "region", "access_key", "secret_key"}),
)


def api_key_spec(service: str, title: str) -> CredentialSpec:
    """The spec of a service with a single key, in the environment variable `<SERVICE>_API_KEY`."""
    return CredentialSpec(service, title, (API_KEY,), ({API_KEY: f"{service.upper()}_API_KEY"},))


def where_to_enter(service: str, profile: str = DEFAULT_PROFILE) -> str:
    """A sentence that says how to enter a key that is missing or wrong."""
    command = f"set {service}" + (f" --profile {profile}" if profile != DEFAULT_PROFILE else "")
    return f"Enter it in ComfyUI under Settings, ControlStack, or run {in_terminal(command)}."


def in_terminal(command: str) -> str:
    """The command of the credentials tool, with the folder in which it works."""
    return f"`{COMMAND} {command}` in the folder custom_nodes"
