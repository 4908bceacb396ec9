"""The one index of remote endpoints. Nodes, settings, matrix and tests derive from it or are checked against it.

New endpoints go to the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.errors import UnknownChoice
from .credentials.specs import IMAGE_HOST, CredentialSpec
from .services.endpoint import Endpoint
from .services.modelslab.endpoint import ModelsLab, ModelsLabEnterprise
from .services.qolaba.endpoint import QolabaControlNet, QolabaImageToImage
from .services.scenario.endpoint import Scenario

ENDPOINTS: tuple[Endpoint[Any], ...] = (
    ModelsLab(),
    ModelsLabEnterprise(),
    Scenario(),
    QolabaControlNet(),
    QolabaImageToImage(),
)

SPECS: Mapping[str, CredentialSpec] = {
    spec.service: spec for spec in (*(endpoint.credential_spec for endpoint in ENDPOINTS), IMAGE_HOST)
}
"""The credentials that a user can enter, by service."""


def find_endpoint(name: str) -> Endpoint[Any]:
    """The endpoint with this class name or target, e.g. `ModelsLabEnterprise` or `ModelsLab Enterprise`.

    Raises UnknownChoice for any other name.
    """
    for endpoint in ENDPOINTS:
        if name in (type(endpoint).__name__, endpoint.target):
            return endpoint
    raise UnknownChoice("endpoint", name, [endpoint.target for endpoint in ENDPOINTS])


def node_id(endpoint: Endpoint[Any]) -> str:
    """The id of the endpoint's node. Saved graphs contain it, so the class name of an endpoint never changes."""
    return f"ControlStack{type(endpoint).__name__}"
