"""Write what is derived from the code: help pages, the English locale, and two tables of the README.

    python dev.py serve            # in one terminal
    python -m controlstack.tools.write_reference http://127.0.0.1:8188

The nodes' own words stand in their schemas only. A test fails when a derived file is stale.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..api_clients.endpoint import Endpoint
from ..api_clients.registry import ENDPOINTS
from ..core.capabilities import UNLIMITED, Capabilities
from ..core.modality import Modality
from ..core.scheduler import SchedulerName
from ..local.capabilities import SD15, TABLES
from ..local.families import Family
from ..local.library import Library, read_config
from ..local.model import DEMO_MODEL
from ..local.net_search import search_for
from ..preprocessors.detector import Method
from ..preprocessors.registry import detector_for

ROOT = Path(__file__).resolve().parent.parent
DEMO_NETS = search_for(Family.SD15, read_config(DEMO_MODEL / "unet"), Library(), DEMO_MODEL / "controlnet", {}).nets()
DEMO = replace(SD15, target="Demo model", modalities=frozenset(DEMO_NETS))


@dataclass(frozen=True)
class Column:
    """A target of the support matrix, with the table of each model family or app it has; one of them may be all."""

    title: str
    tables: Mapping[str, Capabilities]

    def cell(self, say: Callable[[Capabilities], bool | str]) -> str:
        """What all families say; where they differ, which families say what, without those that have nothing."""
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
    """Every derived file with its text. `object_info` is what the server's /object_info says."""
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
    """The README with the tables of today, each between the comments that bear its name."""
    for name, table in tables.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = readme.partition(start)
        _, _, after = rest.partition(end)
        readme = f"{before}{start}\n{table}\n{end}{after}"
    return readme


def map_table() -> str:
    """What the map of each modality shows and how it is made, as a Markdown table."""
    lines = ["| modality | its map | made by |", "|---|---|---|"]
    for modality in Modality:
        detector = detector_for(modality)
        methods = ", ".join(map(_method, detector.methods))
        lines.append(f"| `{modality.value}` | {detector.summary} | {methods} |")
    return "\n".join(lines)


def _method(method: Method) -> str:
    """A method with the size of its trained files."""
    size = sum(weights.size for weights in method.weights) / 1e6
    needs = f"{size:.{0 if size >= 10 else 1}f} MB" if size else "no trained file"
    return f"`{method.name}` ({needs})" if method.name else needs


def support_matrix(columns: Sequence[Column]) -> str:
    """Who can do what, and within which limits, as a Markdown table."""

    def row(label: str, cell: Callable[[Capabilities], bool | str]) -> str:
        return f"| {label} | {' | '.join(column.cell(cell) for column in columns)} |"

    lines = [f"|  | {' | '.join(column.title for column in columns)} |", "|---|" + "---|" * len(columns)]
    lines += [row(f"`{m.value}`", lambda t, m=m: m in t.modalities) for m in Modality]
    lines += [row(f"`{s.value}`", lambda t, s=s: s in t.schedulers) for s in SchedulerName]
    lines += [row(label, cell) for label, cell in _ABILITIES.items()]
    return "\n".join(lines)


def _endpoint_column(endpoint: Endpoint[Any]) -> Column:
    """The table for an unknown model, which admits everything, says nothing here."""

    def family(title: str) -> str:
        """`SD 1.5` of `Scenario (SD 1.5)`, `Flux Dev` of `Qolaba Flux Dev`."""
        bracket = title.removeprefix(endpoint.target)
        return bracket.strip(" ()") if bracket != title else title.partition(" ")[2]

    own = [table for table in endpoint.tables if table.target != endpoint.target]
    return Column(endpoint.target, {family(table.target): table for table in own})


def _limit(name: str) -> Callable[[Capabilities], str]:
    def cell(table: Capabilities) -> str:
        allowed = table.ranges.get(name)
        if allowed is None or (name == "strength" and not table.max_controls):
            return "-"
        return (
            f"{allowed.minimum:g}"
            if allowed.minimum == allowed.maximum
            else f"{allowed.minimum:g} to {allowed.maximum:g}"
        )

    return cell


def _size(table: Capabilities) -> str:
    return "some fixed sizes" if table.sizes else _limit("width")(table)


def _count(most: int) -> str:
    return "-" if most == 0 else "any number" if most >= UNLIMITED else str(most)


def _references(table: Capabilities) -> str:
    kinds = ", ".join(sorted(kind.value for kind in table.reference_kinds))
    return f"{_count(table.max_references)}: {kinds}" if table.max_references else "-"


_ABILITIES: Mapping[str, Callable[[Capabilities], bool | str]] = {
    "controls at once": lambda table: _count(table.max_controls),
    "strength of a control": _limit("strength"),
    "start and end of a control": lambda table: table.control_windows,
    "makes maps itself (`detect: service`)": lambda table: table.detects,
    "references (IP-Adapter)": _references,
    "LoRAs": lambda table: _count(table.max_loras),
    "image to image": lambda table: table.image_to_image,
    "inpainting": lambda table: table.inpainting,
    "upscale": lambda table: table.upscale,
    "VAE of your choice": lambda table: table.own_vae,
    "width and height": _size,
    "steps": _limit("steps"),
    "guidance": _limit("guidance_scale"),
    "pictures at once": _limit("batch_size"),
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


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("Give the address of a running ComfyUI with the pack, such as http://127.0.0.1:8188")
    with urllib.request.urlopen(f"{sys.argv[1]}/object_info") as answer:
        object_info = json.load(answer)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path, text in reference_files(object_info, readme).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
