"""Write what is derived from the code: help pages, the English locale and the support matrix of the README.

    python dev.py serve            # in one terminal
    python -m controlstack.tools.write_reference http://127.0.0.1:8188

The nodes' own words stand in their schemas only. A test fails when a derived file is stale.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.capabilities import Capabilities
from ..core.modality import Modality
from ..core.scheduler import SchedulerName
from ..local.capabilities import SD15, TABLES
from ..local.families import Family
from ..local.library import Library, read_config
from ..local.model import DEMO_MODEL
from ..local.nets import search_for

ROOT = Path(__file__).resolve().parent.parent
DEMO_NETS = search_for(Family.SD15, read_config(DEMO_MODEL / "unet"), Library(), DEMO_MODEL / "controlnet", {}).nets()
DEMO = replace(SD15, target="Demo model", modalities=frozenset(DEMO_NETS))
TARGETS = (*TABLES.values(), DEMO)
MATRIX_START, MATRIX_END = "<!-- support matrix -->", "<!-- end of support matrix -->"


def reference_files(object_info: Mapping[str, Any], readme: str) -> dict[Path, str]:
    """Every derived file with its text. `object_info` is what the server's /object_info says."""
    nodes = {name: node for name, node in sorted(object_info.items()) if name.startswith("ControlStack")}
    files = {ROOT / "web" / "docs" / f"{name}.md": help_page(node) for name, node in nodes.items()}
    locale = {name: _locale(node) for name, node in nodes.items()}
    files[ROOT / "locales" / "en" / "nodeDefs.json"] = json.dumps(locale, indent=2) + "\n"
    files[ROOT / "README.md"] = with_matrix(readme)
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


def with_matrix(readme: str) -> str:
    """The README with the support matrix of today."""
    before, _, rest = readme.partition(MATRIX_START)
    _, _, after = rest.partition(MATRIX_END)
    return f"{before}{MATRIX_START}\n{support_matrix(TARGETS)}\n{MATRIX_END}{after}"


def support_matrix(targets: tuple[Capabilities, ...]) -> str:
    """Which target has which modality and scheduler, as a Markdown table."""

    def row(label: str, cells: Iterator[str]) -> str:
        return f"| {label} | {' | '.join(cells)} |"

    def mark(present: bool) -> str:
        return "yes" if present else "-"

    lines = [row("", (t.target for t in targets)), "|---|" + "---|" * len(targets)]
    lines += [row(f"`{m.value}`", (mark(m in t.modalities) for t in targets)) for m in Modality]
    lines += [row(f"`{s.value}`", (mark(s in t.schedulers) for t in targets)) for s in SchedulerName]
    lines.append(row("IP-Adapter", (mark(t.max_references > 0) for t in targets)))
    lines.append(row("LoRA", (mark(t.max_loras > 0) for t in targets)))
    lines.append(row("image to image", (mark(t.image_to_image) for t in targets)))
    lines.append(row("inpainting", (mark(t.inpainting) for t in targets)))
    return "\n".join(lines)


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
        shown = [options[0], "..."] if options[0] in ("demo (embedded)", "automatic") else options
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
