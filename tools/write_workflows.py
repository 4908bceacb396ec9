"""The files in workflows/, derived from tools/example_graphs.py: graphs for the editor, API twins, and images.

`python dev.py docs` writes the graphs; with `--images` it also runs them, for their images: the input images, then
the results. A graph that downloads weights is not run; its image is the contact sheet.
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
WORKFLOWS = ROOT / "workflows"
LONGEST_SIDE = 1200  # pixels of an image beside a graph
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
    """Run the graph on the server at that address; the input images, then the results."""
    body = json.dumps({"prompt": graph.nodes, "client_id": "dev.py docs"}).encode()
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


def side_by_side(images: list[Image.Image], height: int = 256, row: int = 6) -> Image.Image:
    """The images on white, at most `row` of them in a row."""
    scaled = [p.resize((round(p.width * height / p.height), height), Image.Resampling.LANCZOS) for p in images]
    gap = 8
    rows = [scaled[start : start + row] for start in range(0, len(scaled), row)]
    width = max(sum(image.width + gap for image in line) for line in rows) - gap
    sheet = Image.new("RGB", (width, len(rows) * (height + gap) - gap), "white")
    for number, line in enumerate(rows):
        left = 0
        for image in line:
            sheet.paste(image, (left, number * (height + gap)))
            left += image.width + gap
    return sheet


def image_of(server: str, graph: ExampleGraph) -> Image.Image:
    """The input images and the results; for a graph that downloads weights, the contact sheet."""
    if graph.fetches:
        return Image.open(ROOT / "docs" / "preprocessors.png").convert("RGB")
    return side_by_side(run(server, graph))


def graph_files(object_info: Mapping[str, Any]) -> dict[Path, str]:
    """Each graph as the editor saves it, and its API twin. `object_info` is the answer of the server's /object_info."""
    files: dict[Path, str] = {}
    for graph in EXAMPLE_GRAPHS:
        files[WORKFLOWS / "api" / f"{graph.name}.json"] = json.dumps(graph.nodes, indent=2) + "\n"
        files[WORKFLOWS / f"{graph.title}.json"] = json.dumps(to_workflow(graph, object_info), indent=1) + "\n"
    return files


def save_image(server: str, graph: ExampleGraph) -> Path:
    """Run the graph on the server at that address and save its image; the file."""
    image = image_of(server, graph)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = WORKFLOWS / f"{graph.title}.jpg"
    image.save(file, quality=90)
    return file
