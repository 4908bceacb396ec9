"""The registry is the one index of endpoints: each has everything that an endpoint needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from controlstack.api_clients.registry import ENDPOINTS, node_id
from controlstack.tests.service_documents import CONTRACTS, DOCUMENTED_FIELDS, TEXT
from controlstack.tests.services.cases import CASES
from controlstack.tools.example_graphs import REMOTE_GRAPHS
from controlstack.tools.fake_services.double import Step
from controlstack.tools.fake_services.running import Services, double_class, service_name

ROOT = Path(__file__).resolve().parents[2]
EVERY = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.target)


@EVERY
def test_an_endpoint_has_a_double_that_knows_its_key(endpoint: Any, services: Services) -> None:
    double = services.of(endpoint.service)
    assert double.url_variable == endpoint.url_variable
    assert any(set(names.values()) <= set(double.variables) for names in endpoint.credential_spec.variables)


@EVERY
def test_a_double_can_refuse_an_account_and_fail_a_job(endpoint: Any) -> None:
    double = double_class(endpoint)
    assert double.account_errors and set(double.account_errors) <= set(double.errors)
    assert {Step.SUBMIT, Step.POLL} <= {error.step for error in double.errors.values()}


@EVERY
def test_an_endpoint_has_a_document_of_the_name_of_its_service(endpoint: Any) -> None:
    assert f"<!-- fields {node_id(endpoint)} -->" in TEXT.get(service_name(endpoint), "")


def test_every_endpoint_has_one_case_in_the_order_of_the_registry() -> None:
    assert [case.endpoint for case in CASES] == list(ENDPOINTS)


def test_every_endpoint_has_documented_fields_and_a_strict_contract() -> None:
    assert set(DOCUMENTED_FIELDS) == set(CONTRACTS) == set(map(node_id, ENDPOINTS))


@EVERY
def test_an_endpoint_has_an_example_graph(endpoint: Any) -> None:
    assert any(node["class_type"] == node_id(endpoint) for graph in REMOTE_GRAPHS for node in graph.nodes.values())


@EVERY
def test_an_endpoint_has_a_column_of_the_support_matrix(endpoint: Any) -> None:
    assert endpoint.target in (ROOT / "README.md").read_text(encoding="utf-8")


@EVERY
def test_the_help_page_of_its_node_shows_that_an_endpoint_has_one(endpoint: Any) -> None:
    assert (ROOT / "web" / "docs" / f"{node_id(endpoint)}.md").is_file()
