"""What the remote nodes offer, against what the services document."""

from __future__ import annotations

from typing import Any

import pytest
from controlstack.api_clients.registry import find_endpoint
from controlstack.api_clients.services.options import declared
from controlstack.tests.comfy_server import ComfyServer
from controlstack.tests.service_documents import CONTRACTS, DOCUMENTED_FIELDS

EVERY = pytest.mark.parametrize("kind", DOCUMENTED_FIELDS)


def inputs(comfy: ComfyServer, kind: str) -> dict[str, Any]:
    described = comfy.object_info(kind)["input"]
    return {**described.get("required", {}), **described.get("optional", {})}


@EVERY
def test_every_documented_field_is_reached_from_a_graph(comfy: ComfyServer, kind: str) -> None:
    for field, place in DOCUMENTED_FIELDS[kind].items():
        node, _, name = place.rpartition(".")
        assert name in inputs(comfy, f"ControlStack{node}" if node else kind), f"{field}: no input {place}"


@pytest.mark.parametrize("kind", CONTRACTS)
def test_the_list_of_documented_fields_is_that_of_the_contract(kind: str) -> None:
    assert set(DOCUMENTED_FIELDS[kind]) == {name for model in CONTRACTS[kind] for name in model.model_fields}


@EVERY
def test_a_node_has_every_option_of_its_endpoint_with_its_limits(comfy: ComfyServer, kind: str) -> None:
    found = inputs(comfy, kind)
    for name, (default, limits) in declared(find_endpoint(kind.removeprefix("ControlStack")).options_type).items():
        told = found[name][1]
        assert told["default"] == default and told["tooltip"] == limits.tooltip, name
        assert (told.get("min"), told.get("max")) == (limits.minimum, limits.maximum), name
        assert tuple(told.get("options", ())) == limits.choices, name


@EVERY
def test_an_api_graph_needs_nothing_but_the_request_and_the_profile(comfy: ComfyServer, kind: str) -> None:
    assert set(comfy.object_info(kind)["input"]["required"]) == {"request", "profile"}


@EVERY
def test_no_input_could_hold_a_key(comfy: ComfyServer, kind: str) -> None:
    assert not [name for name in inputs(comfy, kind) if "key" in name.lower() or "secret" in name.lower()]
