"""What the credentials of each service consist of, and how a user enters them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PROFILE = "default"
PACK = Path(__file__).absolute().parents[2]  # not resolved: a link in custom_nodes leads to a clone elsewhere
IN_COMFYUI = PACK.parent.name == "custom_nodes"
COMMAND = f"python -m {PACK.name if IN_COMFYUI else 'controlstack'}.credentials"


@dataclass(frozen=True)
class CredentialSpec:
    """The credentials of one service.

    `title` is the service's name for users and `fields` are the names in the credentials file. Each of `variables`
    maps every field to an environment variable; the first of them with any variable set is used. `optional` fields may
    be empty.
    """

    title: str
    fields: tuple[str, ...]
    variables: tuple[Mapping[str, str], ...]
    optional: frozenset[str] = frozenset()


SPECS: Mapping[str, CredentialSpec] = {
    "modelslab": CredentialSpec("ModelsLab", ("api_key",), ({"api_key": "MODELSLAB_API_KEY"},)),
    "modelslab_enterprise": CredentialSpec(
        "ModelsLab Enterprise", ("api_key",), ({"api_key": "MODELSLAB_ENTERPRISE_API_KEY"},)
    ),
    "scenario": CredentialSpec(
        "Scenario",
        ("api_key", "api_secret"),
        (
            {"api_key": "SCENARIO_SDK_API_KEY", "api_secret": "SCENARIO_SDK_API_SECRET"},
            {"api_key": "SCENARIO_API_KEY", "api_secret": "SCENARIO_API_SECRET"},
        ),
    ),
    "qolaba": CredentialSpec("Qolaba", ("api_key",), ({"api_key": "QOLABA_API_KEY"},)),
    "image_host": CredentialSpec(
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
    ),
}


def where_to_enter(service: str, profile: str = DEFAULT_PROFILE) -> str:
    """A sentence that says how to enter a key that is missing or wrong."""
    command = f"set {service}" + (f" --profile {profile}" if profile != DEFAULT_PROFILE else "")
    return f"Enter it in ComfyUI under Settings, ControlStack, or run {in_terminal(command)}."


def in_terminal(command: str) -> str:
    """The command of the credentials tool, with the folder in which it works."""
    return f"`{COMMAND} {command}` in the folder custom_nodes"
