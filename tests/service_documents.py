"""The tables of docs/services, whose README says how they are written, and the doubles' contracts beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from controlstack.api_clients.registry import ENDPOINTS, node_id
from controlstack.tools.fake_services.running import double_class
from pydantic import BaseModel

DOCUMENTS = Path(__file__).resolve().parent.parent / "docs" / "services"
TEXT = {page.stem: page.read_text(encoding="utf-8") for page in sorted(DOCUMENTS.glob("*.md")) if page.stem != "README"}
NODES = tuple(map(node_id, ENDPOINTS))

Row = dict[str, str]


def block(name: str) -> str:
    """What stands between `<!-- name -->` and `<!-- end of name -->` in the documents."""
    for text in TEXT.values():
        found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", text, re.DOTALL)
        if found:
            return found[1]
    raise AssertionError(f"no table {name}")


def rows(name: str) -> list[Row]:
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in block(name).strip().splitlines()]
    header, _, *body = lines
    return [dict(zip(header, cells, strict=True)) for cells in body]


def plain(cell: str) -> str:
    return "" if cell == "-" else cell.strip("`")


def words(cell: str) -> tuple[str, ...]:
    return () if cell == "-" else tuple(re.split(r",\s+", cell.strip()))


def choices(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def limits(cell: str) -> tuple[float | None, float | None, float | None]:
    """Minimum, maximum and step of `64 to 1024, step 8`; each None where it is not said. `above 0` counts as 0."""
    found = re.fullmatch(r"(?:above )?(-?[\d.]+) to (-?[\d.]+)(?:, step (\d+))?", cell)
    if not found:
        return None, None, None
    return float(found[1]), float(found[2]), float(found[3]) if found[3] else None


def used(row: Row) -> str:
    return row["range"] if row["used"] == "same" else row["used"]


def documented_fields(node: str) -> dict[str, str]:
    """The documented fields, each with the input of a node through which a graph reaches it; none without a table.

    `Request.prompt` is the input `prompt` of `ControlStackRequest`, `.model_id` one of the endpoint's own node.
    """
    if not any(f"<!-- fields {node} -->" in text for text in TEXT.values()):
        return {}
    return {plain(row["field"]): plain(row["input"]) for row in rows(f"fields {node}")}


DOCUMENTED_FIELDS: Mapping[str, Mapping[str, str]] = {
    node: fields for node in NODES if (fields := documented_fields(node))
}
# The strict models that the doubles check bodies with, typed in apart from the documents.
CONTRACTS: Mapping[str, Sequence[type[BaseModel]]] = {
    node_id(endpoint): models
    for endpoint in ENDPOINTS
    if (models := double_class(endpoint).contracts.get(type(endpoint).__name__))
}
