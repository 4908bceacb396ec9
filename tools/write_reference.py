"""The reference, derived from nodes and capability tables: help pages, English locale, two tables of the README.

The texts of the nodes are written once, in their schemas. `python dev.py docs` writes the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..api_clients.registry import ENDPOINTS
from ..api_clients.services.endpoint import Endpoint
from ..core.capabilities import UNLIMITED, Capabilities, Range
from ..core.modality import Modality
from ..core.scheduler import SchedulerName
from ..local.model.capabilities import SD15, TABLES
from ..local.model.source import DEMO_MODEL
from ..models.families import Family
from ..models.library import Library, read_config
from ..models.net_search import NetSearch
from ..preprocessors.detector import Method
from ..preprocessors.detectors.registry import detector_for

ROOT = Path(__file__).resolve().parent.parent
_DEMO_UNET = read_config(DEMO_MODEL / "unet")
DEMO_NETS = NetSearch(Family.SD15, _DEMO_UNET["cross_attention_dim"], Library(), DEMO_MODEL / "controlnet").nets()
DEMO = replace(SD15, target="Demo model", controls=replace(SD15.controls, modalities=frozenset(DEMO_NETS)))


@dataclass(frozen=True)
class Column:
    """A target of the support matrix, with the capability table of each of its model families or apps, by name."""

    title: str
    tables: Mapping[str, Capabilities]

    def cell(self, say: Callable[[Capabilities], bool | str]) -> str:
        """The text for one row. Where families differ, each answer names its families; those with none are left out."""
        groups: dict[str, list[str]] = {}
        for family, table in self.tables.items():
            said = say(table)
            groups.setdefault({True: "yes", False: "-"}.get(said, said), []).append(family)
        if len(groups) == 1:
            return next(iter(groups))
        parts = [(text, ", ".join(families)) for text, families in groups.items() if text != "-"]
        return "; ".join(families if text == "yes" else f"{text} ({families})" for text, families in parts)


LOCAL_FAMILIES = {table.target.removeprefix("Local "): table for table in TABLES.values()}
LOCAL = (Column("Local", LOCAL_FAMILIES), Column(DEMO.target, {"": DEMO}))


def reference_files(object_info: Mapping[str, Any], readme: str) -> dict[Path, str]:
    """Every file of the reference with its text. `object_info` is the answer of the server's /object_info."""
    nodes = {name: node for name, node in sorted(object_info.items()) if name.startswith("ControlStack")}
    files = {ROOT / "web" / "docs" / f"{name}.md": help_page(node) for name, node in nodes.items()}
    locale = {name: _locale(node) for name, node in nodes.items()}
    files[ROOT / "locales" / "en" / "nodeDefs.json"] = json.dumps(locale, indent=2) + "\n"
    tables = {"support matrix": support_matrix([*LOCAL, *map(_endpoint_column, ENDPOINTS)]), "maps": map_table()}
    files[ROOT / "README.md"] = with_tables(readme, tables)
    return files


def help_page(node: Mapping[str, Any]) -> str:
    """The page behind a node's info button."""
    rows = [
        f"| `{name}` | {_kind(spec)} | {_limits(spec)} | {spec[1].get('tooltip', '')} |" for name, spec in _inputs(node)
    ]
    outputs = zip(node["output_name"], node["output"], node["output_tooltips"], strict=True)
    return "\n".join(
        [
            f"# {node['display_name']}",
            "",
            node["description"],
            "",
            "## Inputs",
            "",
            "| name | type | values | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
            "## Outputs",
            "",
            "| name | type | meaning |",
            "|---|---|---|",
            *(f"| `{name}` | {kind} | {tooltip or ''} |" for name, kind, tooltip in outputs),
            "",
        ]
    )


def with_tables(readme: str, tables: Mapping[str, str]) -> str:
    """The README with each table replaced, between the comments that carry its name."""
    for name, table in tables.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = readme.partition(start)
        _, _, after = rest.partition(end)
        readme = f"{before}{start}\n{table}\n{end}{after}"
    return readme


def map_table() -> str:
    """A Markdown table: what the control map of each modality shows, and the methods that compute it."""
    lines = ["| modality | its map | made by |", "|---|---|---|"]
    for modality in Modality:
        detector = detector_for(modality)
        methods = ", ".join(map(_method, detector.methods))
        lines.append(f"| `{modality.value}` | {detector.summary} | {methods} |")
    return "\n".join(lines)


def _method(method: Method) -> str:
    """The name of a method with the size of its weights."""
    size = sum(weights.size for weights in method.weights) / 1e6
    needs = f"{size:.{0 if size >= 10 else 1}f} MB" if size else "no trained file"
    return f"`{method.name}` ({needs})" if method.name else needs


def support_matrix(columns: Sequence[Column]) -> str:
    """A Markdown table: what each target supports, and within which limits."""

    def row(label: str, cell: Callable[[Capabilities], bool | str]) -> str:
        return f"| {label} | {' | '.join(column.cell(cell) for column in columns)} |"

    lines = [f"|  | {' | '.join(column.title for column in columns)} |", "|---|" + "---|" * len(columns)]
    lines += [row(f"`{m.value}`", lambda t, m=m: m in t.controls.modalities) for m in Modality]
    lines += [row(f"`{s.value}`", lambda t, s=s: s in t.schedulers.names) for s in SchedulerName]
    lines += [row(label, cell) for label, cell in _ABILITIES.items()]
    return "\n".join(lines)


def _endpoint_column(endpoint: Endpoint[Any]) -> Column:
    """An endpoint's column, without its table for unknown models, which allows everything."""

    def family(title: str) -> str:
        """`SD 1.5` of `Scenario (SD 1.5)`, `Flux Dev` of `Qolaba Flux Dev`."""
        bracket = title.removeprefix(endpoint.target)
        return bracket.strip(" ()") if bracket != title else title.partition(" ")[2]

    own = [table for table in endpoint.tables if table.target != endpoint.target]
    return Column(endpoint.target, {family(table.target): table for table in own})


def _span(allowed: Range | None) -> str:
    if allowed is None:
        return "-"
    if allowed.minimum == allowed.maximum:
        return f"{allowed.minimum:g}"
    return f"{allowed.minimum:g} to {allowed.maximum:g}"


def _limit(name: str) -> Callable[[Capabilities], str]:
    return lambda table: _span(table.ranges.get(name))


def _size(table: Capabilities) -> str:
    return "some fixed sizes" if table.sizes else _limit("width")(table)


def _count(most: int) -> str:
    return "-" if most == 0 else "any number" if most >= UNLIMITED else str(most)


def _references(table: Capabilities) -> str:
    kinds = ", ".join(sorted(kind.value for kind in table.references.kinds))
    return f"{_count(table.references.maximum)}: {kinds}" if table.references.maximum else "-"


_ABILITIES: Mapping[str, Callable[[Capabilities], bool | str]] = {
    "controls at once": lambda table: _count(table.controls.maximum),
    "strength of a control": lambda table: _span(table.controls.strength if table.controls.maximum else None),
    "start and end of a control": lambda table: table.controls.windows,
    "makes maps itself (`detect: service`)": lambda table: table.controls.detects,
    "references (IP-Adapter)": _references,
    "LoRAs": lambda table: _count(table.loras.maximum),
    "image to image": lambda table: table.init_images.accepted,
    "inpainting": lambda table: table.init_images.inpainting,
    "upscale": lambda table: table.upscale,
    "VAE of your choice": lambda table: table.vae,
    "width and height": _size,
    "steps": _limit("steps"),
    "guidance": _limit("guidance_scale"),
    "images at once": _limit("batch_size"),
}


def _inputs(node: Mapping[str, Any]) -> Iterator[tuple[str, list]]:
    for group in ("required", "optional"):
        yield from node["input"].get(group, {}).items()


def _kind(spec: list) -> str:
    return "COMBO" if isinstance(spec[0], list) else spec[0]


def _limits(spec: list) -> str:
    options = spec[0] if isinstance(spec[0], list) else spec[1].get("options")
    default = spec[1].get("default")
    if options:
        # What a user's model folders hold is not part of the reference.
        shown = [options[0], "..."] if options[0] in ("demo (embedded)", "(remote)", "automatic") else options
        return f"{', '.join(shown)} (default {default})"
    if "min" in spec[1]:
        return f"{spec[1]['min']} to {spec[1]['max']} (default {default})"
    return "" if default in (None, "") else f"default {default}"


def _locale(node: Mapping[str, Any]) -> dict[str, Any]:
    outputs = zip(node["output_name"], node["output_tooltips"], strict=True)
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": {name: {"name": name, "tooltip": spec[1].get("tooltip", "")} for name, spec in _inputs(node)},
        "outputs": {str(i): {"name": name, "tooltip": tip or ""} for i, (name, tip) in enumerate(outputs)},
    }
