"""Write workflows/*.json, their API twins and their pictures from tools/example_graphs.py.

    python dev.py fake-services    # in one terminal; sets out what the next one needs in its environment
    python dev.py serve            # in another one
    python -m controlstack.tools.write_workflows http://127.0.0.1:8188 [TITLE ...]

Every graph that fetches nothing is run on that server for its picture: what goes in comes first, then what comes out.
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
    "ControlStackPreset": (380, 180),
    "LoadImage": (340, 320),
    "PreviewImage": (380, 420),
    "SaveImage": (380, 340),
    "SolidMask": (380, 130),
    "FeatherMask": (380, 160),
}
CONTROL_SIZE = (380, 420)
WIDGET = 26  # what one widget adds to a node's height


def to_workflow(graph: ExampleGraph, object_info: Mapping[str, Any]) -> dict[str, Any]:
    """The graph as the editor saves it (workflow format 0.4)."""
    nodes: dict[str, dict[str, Any]] = {}
    tops: Counter[int] = Counter()
    for order, key in enumerate(sorted(graph.nodes, key=list(graph.columns).index)):
        content = graph.nodes[key]
        info = object_info[content["class_type"]]
        specs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        column = graph.columns[key]
        widgets = _widget_values(content["inputs"], specs)
        width, height = SIZES.get(content["class_type"], CONTROL_SIZE)
        height = max(height, WIDGET * len(widgets) + GAP)
        nodes[key] = {
            "id": int(key),
            "type": content["class_type"],
            "pos": [column * COLUMN, tops[column]],
            "size": [width, height],
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": _sockets(content["inputs"], specs),
            "outputs": [
                {"name": name, "type": kind, "links": []}
                for name, kind in zip(info["output_name"], info["output"], strict=True)
            ],
            "properties": {"Node name for S&R": content["class_type"]},
            "widgets_values": widgets,
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


def _sockets(inputs: Mapping[str, Any], specs: Mapping[str, list]) -> list[dict[str, Any]]:
    """The inputs that links go into: those without a widget, and widgets that have a link instead of a value."""
    found = [{"name": name, "type": spec[0], "link": None} for name, spec in specs.items() if not _is_widget(spec)]
    for name, spec in specs.items():
        if _is_widget(spec) and isinstance(inputs[name], list):
            found.append({"name": name, "type": spec[0], "link": None, "widget": {"name": name}})
    return found


def _is_widget(spec: list) -> bool:
    return isinstance(spec[0], list) or spec[0] in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def _widget_values(inputs: Mapping[str, Any], specs: Mapping[str, list]) -> list[Any]:
    values: list[Any] = []
    for name, spec in specs.items():
        if _is_widget(spec):
            linked = isinstance(inputs[name], list)
            values.append(spec[1]["default"] if linked else inputs[name])
            if len(spec) > 1 and spec[1].get("control_after_generate"):
                values.append("fixed")
            if len(spec) > 1 and spec[1].get("image_upload"):
                values.append("image")
    return values


def run(server: str, graph: ExampleGraph) -> list[Image.Image]:
    """The pictures that go in and those that come out."""
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
    shown = history[prompt]["outputs"]
    outputs = [image for key in sorted(shown, key=int) for image in shown[key].get("images", [])]
    return [_fetch(server, image) for image in [*inputs, *outputs]]


def _fetch(server: str, image: Mapping[str, str]) -> Image.Image:
    query = urllib.parse.urlencode({key: image[key] for key in ("filename", "subfolder", "type") if key in image})
    return Image.open(io.BytesIO(urllib.request.urlopen(f"{server}/view?{query}").read())).convert("RGB")


def side_by_side(pictures: list[Image.Image], height: int = 256, row: int = 6) -> Image.Image:
    """The pictures on white, up to `row` of them beside each other."""
    scaled = [p.resize((round(p.width * height / p.height), height), Image.Resampling.LANCZOS) for p in pictures]
    gap = 8
    rows = [scaled[start : start + row] for start in range(0, len(scaled), row)]
    width = max(sum(picture.width + gap for picture in line) for line in rows) - gap
    sheet = Image.new("RGB", (width, len(rows) * (height + gap) - gap), "white")
    for number, line in enumerate(rows):
        left = 0
        for picture in line:
            sheet.paste(picture, (left, number * (height + gap)))
            left += picture.width + gap
    return sheet


def picture_of(server: str, graph: ExampleGraph) -> Image.Image:
    """What the graph shows; for one that fetches trained files, the contact sheet that tools/ drew of them."""
    if graph.fetches:
        return Image.open(ROOT / "docs" / "preprocessors.png").convert("RGB")
    return side_by_side(run(server, graph))


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("Give the address of a running ComfyUI with the pack, such as http://127.0.0.1:8188")
    server, titles = sys.argv[1], sys.argv[2:]
    object_info = json.load(urllib.request.urlopen(f"{server}/object_info"))
    folder = ROOT / "workflows"
    (folder / "api").mkdir(parents=True, exist_ok=True)
    for graph in EXAMPLE_GRAPHS:
        if titles and graph.title not in titles:
            continue
        api = json.dumps(graph.nodes, indent=2) + "\n"
        (folder / "api" / f"{graph.name}.json").write_text(api, encoding="utf-8")
        workflow = json.dumps(to_workflow(graph, object_info), indent=1) + "\n"
        (folder / f"{graph.title}.json").write_text(workflow, encoding="utf-8")
        picture = picture_of(server, graph)
        picture.thumbnail((1200, 1200))
        picture.save(folder / f"{graph.title}.jpg", quality=90)
        print(graph.title)


if __name__ == "__main__":
    main()
