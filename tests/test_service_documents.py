"""The documents in docs/services against the nodes' options, the capability tables, the readers of answers and the
doubles: a field, option, range, default or state that stands in one place and not in another is an error.

docs/services/README.md says how the tables are written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from controlstack.api_clients.http.messages import Answer
from controlstack.api_clients.registry import ENDPOINTS, find_endpoint
from controlstack.api_clients.services.endpoint import Endpoint
from controlstack.api_clients.services.options import declared
from controlstack.api_clients.services.qolaba.tables import CONTROLNET_APPS, IMAGE_APPS, KNOWN_APPS, Source, Strength
from controlstack.api_clients.services.scenario.tables import NAMES
from controlstack.core.capabilities import Capabilities, Range
from controlstack.core.errors import OutcomeUnknown, ServiceError
from controlstack.tests.service_documents import (
    CONTRACTS,
    DOCUMENTED_FIELDS,
    NODES,
    block,
    choices,
    limits,
    plain,
    rows,
    used,
    words,
)
from controlstack.tests.services.cases import CASES
from controlstack.tools.fake_services.contracts import modelslab, qolaba, scenario

EVERY_NODE = pytest.mark.parametrize("node", NODES)

# Fields whose range differs between the capability tables of an endpoint, or for which the document has none.
BY_TABLE = {
    "ControlStackScenario": {"width", "height", "guidance", "seed"},
    "ControlStackQolabaImageToImage": {"width", "height"},
}
# Where a table of capabilities has a range under another name than the input of a field.
OTHER_RANGES = {"ControlStackModelsLab": {"controlnet_conditioning_scale": "strength"}}


def schemas(node: str) -> dict[str, dict[str, Any]]:
    """The JSON schema of every field of the double's contract."""
    return {name: field for model in CONTRACTS[node] for name, field in model.model_json_schema()["properties"].items()}


def leaves(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema without its alternatives and its list."""
    for part in schema.get("anyOf", [schema]):
        if part.get("type") == "array":
            yield from leaves(part["items"])
        elif part.get("type") != "null":
            yield part


def bound(schema: dict[str, Any], end: str, exclusive: str) -> float | None:
    for part in leaves(schema):
        if end in part:
            return float(part[end])
        if exclusive in part:
            return float(part[exclusive]) - (1 if part["type"] == "integer" else 0)
    return None


def test_every_endpoint_has_a_contract_documented_fields_and_a_case() -> None:
    assert set(CONTRACTS) == set(NODES), "the double's contract"
    assert set(DOCUMENTED_FIELDS) == set(NODES), "the tables of fields in docs/services"
    assert {case.endpoint for case in CASES} == set(ENDPOINTS), "tests/services/cases.py"


@EVERY_NODE
def test_the_document_the_double_and_the_nodes_know_the_same_fields(node: str) -> None:
    documented = [plain(row["field"]) for row in rows(f"fields {node}")]
    assert len(set(documented)) == len(documented)
    assert set(documented) == set(schemas(node)), "the double's contract"
    assert all(re.fullmatch(r"\w*\.\w+", place) for place in DOCUMENTED_FIELDS[node].values()), "the inputs"


@EVERY_NODE
def test_the_double_holds_the_ranges_and_choices_of_the_document(node: str) -> None:
    for row in rows(f"fields {node}"):
        name, cell = plain(row["field"]), used(row)
        schema = schemas(node)[name]
        minimum, maximum, step = limits(cell)
        assert bound(schema, "minimum", "exclusiveMinimum") == minimum, name
        assert bound(schema, "maximum", "exclusiveMaximum") == maximum, name
        assert next((part["multipleOf"] for part in leaves(schema) if "multipleOf" in part), None) == step, name
        if not cell.startswith("see ") and row["type"] != "yes/no":
            enums = [part.get("enum", [part["const"]] if "const" in part else []) for part in leaves(schema)]
            assert {value for enum in enums for value in enum} == set(choices(cell)), name


@EVERY_NODE
def test_the_double_requires_what_the_document_calls_always_sent(node: str) -> None:
    required = {name for model in CONTRACTS[node] for name, field in model.model_fields.items() if field.is_required()}
    assert {plain(row["field"]) for row in rows(f"fields {node}") if row["sent"] == "always"} == required


@EVERY_NODE
def test_every_fact_has_a_source_and_a_confidence(node: str) -> None:
    for row in rows(f"fields {node}"):
        assert row["source"] and row["confidence"] in ("documented", "recorded", "code", "inferred"), row


def shown(value: object) -> str:
    """A default as the document writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


@EVERY_NODE
def test_the_document_lists_the_options_of_the_node_with_their_defaults_and_ranges(node: str) -> None:
    documented = {plain(row["option"]): row for row in rows(f"options {node}")}
    options = declared(find_endpoint(node.removeprefix("ControlStack")).options_type)
    assert list(documented) and set(documented) == set(options)
    for name, (default, option) in options.items():
        row = documented[name]
        assert plain(row["default"]) == shown(default), name
        assert set(choices(row["range"])) == set(option.choices), name
        assert limits(row["range"])[:2] == (option.minimum, option.maximum), name


@EVERY_NODE
def test_an_option_named_like_a_field_has_its_default_where_the_service_has_one(node: str) -> None:
    options = declared(find_endpoint(node.removeprefix("ControlStack")).options_type)
    for row in rows(f"fields {node}"):
        name = plain(row["field"])
        if name in options and row["type"] == "yes/no" and plain(row["default"]):
            assert shown(options[name][0]) == row["default"], name


def tables(node: str) -> tuple[Capabilities, ...]:
    return find_endpoint(node.removeprefix("ControlStack")).tables


def spread(found: Range) -> tuple[float, float]:
    return found.minimum, found.maximum


def ranged(node: str) -> dict[str, str]:
    """The name that each documented field has in the `ranges` of a capability table: that of its input."""
    inputs = (place.rpartition(".") for place in DOCUMENTED_FIELDS[node].values())
    derived = {
        field: name
        for field, (kind, _, name) in zip(DOCUMENTED_FIELDS[node], inputs, strict=True)
        if kind in ("Request", "Reference") or (kind, name) == ("Canny", "strength")
    }
    apart = BY_TABLE.get(node, set())
    return {field: name for field, name in derived.items() if field not in apart} | OTHER_RANGES.get(node, {})


@EVERY_NODE
def test_the_capability_tables_have_the_ranges_of_the_document(node: str) -> None:
    documented = {plain(row["field"]): limits(used(row)) for row in rows(f"fields {node}")}
    for table in tables(node):
        for field, name in ranged(node).items():
            if name in table.ranges:
                assert spread(table.ranges[name]) == documented[field][:2], (table.target, field)


@pytest.mark.parametrize("node", ["ControlStackModelsLab", "ControlStackModelsLabEnterprise"])
def test_clip_skip_counts_from_one_at_the_service(node: str) -> None:
    (row,) = (row for row in rows(f"fields {node}") if row["field"] == "`clip_skip`")
    minimum, maximum, _ = limits(row["range"])
    for table in tables(node):
        assert (1, table.prompts.max_clip_skip + 1) == (minimum, maximum)


def family_table(node: str, family: str) -> Capabilities:
    """The capability table of a family that the option `model_family` names."""
    endpoint: Endpoint[Any] = find_endpoint(node.removeprefix("ControlStack"))
    return endpoint.capabilities(endpoint.options_type(model_family=family))


@pytest.mark.parametrize("node", ["ControlStackModelsLab", "ControlStackModelsLabEnterprise", "ControlStackScenario"])
def test_each_family_takes_the_controls_of_the_document(node: str) -> None:
    for row in rows(f"controls {node}"):
        taken = family_table(node, row["family"]).controls.modalities
        names = {NAMES[modality] if node == "ControlStackScenario" else modality.value for modality in taken}
        assert names == set(words(row["controls"])), row["family"]


def test_the_doubles_know_the_controls_of_the_documents() -> None:
    standard, enterprise, other = (
        {row["family"]: set(words(row["controls"])) for row in rows(f"controls ControlStack{name}")}
        for name in ("ModelsLab", "ModelsLabEnterprise", "Scenario")
    )
    assert set(modelslab.KINDS) == set().union(*standard.values())
    assert set(modelslab.FLUX_KINDS) == standard["flux"]
    assert set(modelslab.ENTERPRISE_KINDS) == set().union(*enterprise.values())
    assert set(scenario.SD15_NAMES) == other["sd15"] and set(scenario.SDXL_NAMES) == other["sdxl"]
    assert set(scenario.FLUX_NAMES) == other["flux-dev"] == other["flux-schnell"]


def test_each_family_of_scenario_has_the_ranges_of_the_document() -> None:
    for row in rows("ranges ControlStackScenario"):
        ranges = family_table("ControlStackScenario", row["family"]).ranges
        minimum, maximum, step = limits(row["width and height"])
        for side in ("width", "height"):
            assert (ranges[side].minimum, ranges[side].maximum, ranges[side].multiple) == (minimum, maximum, step)
        assert spread(ranges["guidance_scale"]) == limits(row["guidance"])[:2], row["family"]


@pytest.mark.parametrize(
    ("name", "field", "own"),
    [
        ("ControlStackModelsLab ControlStackModelsLabEnterprise", "scheduler", set[str]()),
        ("ControlStackScenario", "scheduler", {"TCDScheduler"}),
    ],
)
def test_the_schedulers_are_those_of_the_document(name: str, field: str, own: set[str]) -> None:
    documented = set(re.findall(r"\w+Scheduler", block(f"schedulers {name}")))
    for node in name.split():
        (enum,) = (part["enum"] for part in leaves(schemas(node)[field]))
        assert set(enum) == documented, "the double's contract"
        for table in tables(node):
            assert {scheduler.value for scheduler in table.schedulers.names} == documented - own, table.target


STRENGTH = {Strength.CLOSER: "closer", Strength.FARTHER: "farther", Strength.IGNORED: "ignored"}
SOURCE = {Source.CONTROL: "control", Source.INIT_IMAGE: "init_image", Source.REFERENCE: "reference"}


def test_the_apps_of_qolaba_are_those_of_the_document() -> None:
    documented = {row["app"]: row for row in rows("apps")}
    assert set(documented) == {app.name for app in KNOWN_APPS}
    for app in KNOWN_APPS:
        row = documented[app.name]
        pages = {(True, True): "both", (True, False): "CN", (False, True): "I2I"}
        assert plain(row["id"]) == app.app_id
        assert row["page"] == pages[app in CONTROLNET_APPS, app in IMAGE_APPS], app.name
        assert set(words(row["image from"])) == {SOURCE[source] for source in app.sources}, app.name
        assert set(words(row["acting fields"])) == app.fields, app.name
        sizes = row["sizes (width x height)"]
        assert set(words(sizes)) == {f"{width}x{height}" for width, height in app.sizes}, app.name
        assert row["strength"] == STRENGTH[app.strength], app.name


def test_the_double_of_qolaba_knows_the_apps_of_the_document() -> None:
    live = {plain(row["id"]): row for row in rows("apps") if "retired" not in row["app"]}
    retired = {plain(row["id"]) for row in rows("apps") if "retired" in row["app"]}
    assert set(qolaba.RETIRED) == retired
    assert {app: set(words(row["acting fields"])) for app, row in live.items()} == qolaba.ACTING
    sizes = {app: set(words(row["sizes (width x height)"])) for app, row in live.items()}
    assert {app: {f"{w}x{h}" for w, h in pairs} for app, pairs in qolaba.SIZES.items()} == {
        app: found for app, found in sizes.items() if found
    }


def state(endpoint: Endpoint[Any], step: str, answer: Answer) -> str:
    try:
        read = endpoint.read_submit(answer) if step == "submit" else endpoint.read_poll(answer)
    except OutcomeUnknown:
        return "unknown"
    except ServiceError:
        return "refused"
    return read.phase.value


@EVERY_NODE
def test_answers_are_read_as_the_document_says(node: str) -> None:
    page = node.replace("ModelsLabEnterprise", "ModelsLab").replace("QolabaImageToImage", "QolabaControlNet")
    endpoint = find_endpoint(node.removeprefix("ControlStack"))
    table = rows(f"answers {page}")
    assert {row["step"] for row in table} == {"submit", "poll"}
    for row in table:
        answer = Answer(int(row["HTTP"]), json.loads(plain(row["answer"])))
        assert state(endpoint, row["step"], answer) == row["state"], row
