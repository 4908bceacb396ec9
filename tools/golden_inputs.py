"""The golden file that guards saved graphs: names and order of every node's inputs and outputs.

Saved graphs store widget values by position, so an input may be appended, never moved or removed. The file is a
guard: nothing rewrites it, except that ``python dev.py docs --accept-inputs`` records what was added.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "server" / "golden_inputs.json"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}

Signature = dict[str, list[str]]


def signature(node: Mapping[str, Any]) -> Signature:
    """The names of a node's widgets in order (saved graphs store their values by position), links, and outputs."""
    inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    return {
        "widgets": [name for name, spec in inputs.items() if spec[0] in WIDGETS],
        "links": [name for name, spec in inputs.items() if spec[0] not in WIDGETS],
        "outputs": list(node["output_name"]),
    }


def with_additions(golden: Mapping[str, Signature], object_info: Mapping[str, Any]) -> dict[str, Signature]:
    """`golden` with the nodes, inputs and outputs that were added since.

    Raises ValueError, naming each, if anything recorded was moved, renamed or removed.
    """
    now = {name: signature(node) for name, node in object_info.items() if name.startswith("ControlStack")}
    broken = [f"{name}: the node is gone." for name in golden if name not in now]
    for name, recorded in golden.items():
        current = now.get(name, recorded)
        for kind in ("widgets", "outputs"):
            if current[kind][: len(recorded[kind])] != recorded[kind]:
                broken.append(f"{name}: {kind} were {recorded[kind]} and are {current[kind]}. Only append to them.")
        if gone := set(recorded["links"]) - set(current["links"]):
            broken.append(f"{name}: the links {sorted(gone)} are gone.")
    if broken:
        raise ValueError("Saved graphs would break:\n" + "\n".join(broken))
    return dict(sorted(now.items()))


def golden_text(golden: Mapping[str, Signature]) -> str:
    """The content of the golden file."""
    return json.dumps(golden, indent=2) + "\n"
