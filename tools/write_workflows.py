"""Write workflows/*.json, their API twins and their pictures from tools/example_graphs.py.

    python dev.py serve            # in one terminal
    python -m controlstack.tools.write_workflows http://127.0.0.1:8188

Every graph is run on that server for its picture: what goes in on the left, what comes out on the right.
"""

from __future__ import annotations

import io
import json
import sys
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from .example_graphs import EXAMPLE_GRAPHS, ExampleGraph

ROOT = Path(__file__).resolve().parent.parent
COLUMN, GAP = 440, 80
SIZES = {
    "ControlStackRequest": (380, 560),
    "ControlStackLoadModel": (380, 230),
    "ControlStackControlNetModels": (380, 520),
    "ControlStackGenerateLocal": (380, 320),
    "ControlStackScheduler": (380, 130),
    "ControlStackReference": (380, 200),
    "ControlStackExplain": (380, 300),
    "LoadImage": (340, 320),
    "PreviewImage": (380, 300),
    "SaveImage": (380, 340),
}
CONTROL_SIZE = (380, 300)


def to_workflow(graph: ExampleGraph, object_info: Mapping[str, Any]) -> dict[str, Any]:
    """The graph as the editor saves it (workflow format 0.4)."""
    nodes: dict[str, dict[str, Any]] = {}
    tops: Counter[int] = Counter()
    for order, key in enumerate(sorted(graph.nodes, key=list(graph.columns).index)):
        content = graph.nodes[key]
        info = object_info[content["class_type"]]
        specs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        column = graph.columns[key]
        width, height = SIZES.get(content["class_type"], CONTROL_SIZE)
        nodes[key] = {
            "id": int(key),
            "type": content["class_type"],
            "pos": [column * COLUMN, tops[column]],
            "size": [width, height],
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": [
                {"name": name, "type": spec[0], "link": None} for name, spec in specs.items() if not _is_widget(spec)
            ],
            "outputs": [
                {"name": name, "type": kind, "links": []}
                for name, kind in zip(info["output_name"], info["output"], strict=True)
            ],
            "properties": {"Node name for S&R": content["class_type"]},
            "widgets_values": _widget_values(content["inputs"], specs),
        }
        tops[column] += height + GAP
    links: list[list[Any]] = []
    for key, content in graph.nodes.items():
        for slot, entry in enumerate(nodes[key]["inputs"]):
            if entry["name"] in content["inputs"]:
                source, output = content["inputs"][entry["name"]]
                entry["link"] = len(links) + 1
                nodes[source]["outputs"][output]["links"].append(entry["link"])
                links.append([entry["link"], int(source), output, int(key), slot, entry["type"]])
    return {
        "last_node_id": max(int(key) for key in nodes),
        "last_link_id": len(links),
        "nodes": list(nodes.values()),
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _is_widget(spec: list) -> bool:
    return isinstance(spec[0], list) or spec[0] in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def _widget_values(inputs: Mapping[str, Any], specs: Mapping[str, list]) -> list[Any]:
    values: list[Any] = []
    for name, spec in specs.items():
        if _is_widget(spec):
            values.append(inputs[name])
            if len(spec) > 1 and spec[1].get("control_after_generate"):
                values.append("fixed")
            if len(spec) > 1 and spec[1].get("image_upload"):
                values.append("image")
    return values


def run(server: str, graph: ExampleGraph) -> list[Image.Image]:
    """The pictures that go in and the one that comes out."""
    body = json.dumps({"prompt": graph.nodes, "client_id": "write_workflows"}).encode()
    ask = urllib.request.Request(f"{server}/prompt", body, {"Content-Type": "application/json"})
    prompt = json.load(urllib.request.urlopen(ask))["prompt_id"]
    while not (history := json.load(urllib.request.urlopen(f"{server}/history/{prompt}"))):
        time.sleep(0.5)
    if history[prompt]["status"]["status_str"] != "success":
        sys.exit(f"{graph.name} failed: {history[prompt]['status']['messages'][-1]}")
    inputs = [
        {"filename": n["inputs"]["image"], "type": "input"}
        for n in graph.nodes.values()
        if n["class_type"] == "LoadImage"
    ]
    outputs = history[prompt]["outputs"]["22"]["images"]
    maps = [image for key in ("3",) for image in history[prompt]["outputs"].get(key, {}).get("images", [])]
    return [_fetch(server, image) for image in [*inputs, *maps, *outputs]]


def _fetch(server: str, image: Mapping[str, str]) -> Image.Image:
    query = urllib.parse.urlencode({key: image[key] for key in ("filename", "subfolder", "type") if key in image})
    return Image.open(io.BytesIO(urllib.request.urlopen(f"{server}/view?{query}").read())).convert("RGB")


def side_by_side(pictures: list[Image.Image], height: int = 256) -> Image.Image:
    """The pictures in a row on white."""
    scaled = [p.resize((round(p.width * height / p.height), height), Image.Resampling.LANCZOS) for p in pictures]
    gap = 8
    sheet = Image.new("RGB", (sum(p.width + gap for p in scaled) - gap, height), "white")
    left = 0
    for picture in scaled:
        sheet.paste(picture, (left, 0))
        left += picture.width + gap
    return sheet


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("Give the address of a running ComfyUI with the pack, such as http://127.0.0.1:8188")
    server = sys.argv[1]
    object_info = json.load(urllib.request.urlopen(f"{server}/object_info"))
    folder = ROOT / "workflows"
    (folder / "api").mkdir(parents=True, exist_ok=True)
    for graph in EXAMPLE_GRAPHS:
        api = json.dumps(graph.nodes, indent=2) + "\n"
        (folder / "api" / f"{graph.name}.json").write_text(api, encoding="utf-8")
        workflow = json.dumps(to_workflow(graph, object_info), indent=1) + "\n"
        (folder / f"{graph.title}.json").write_text(workflow, encoding="utf-8")
        side_by_side(run(server, graph)).save(folder / f"{graph.title}.jpg", quality=90)
        print(graph.title)


if __name__ == "__main__":
    main()
