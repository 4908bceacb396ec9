"""The control nodes in a real ComfyUI: an image becomes a map, and what is wrong or empty is said on the node."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from controlstack.core.modality import Modality
from controlstack.preprocessors.detectors.registry import detector_for
from controlstack.tests.comfy_server import ComfyServer, GraphRejectedError
from controlstack.tests.server.graphs import Graph

COMMON = {
    "image": ["1", 0],
    "detect": "local",
    "strength": 1.0,
    "start_percent": 0.0,
    "end_percent": 1.0,
    "resize": "crop",
    "enabled": True,
}
# What makes a map without trained files, on an image of 128 x 128.
MAPS: dict[str, dict[str, Any]] = {
    "Canny": {},
    "Scribble": {"method": "xdog"},
    "Inpaint": {"mask": ["2", 0]},
    "Lineart": {"method": "standard"},
    "MLSD": {"method": "opencv"},
    "Shuffle": {"seed": 3},
    "Tile": {"reduce": 4.0},
    "QRCode": {"text": "controlstack", "error_correction": "L", "quiet_zone": 2},
    "Blur": {"sigma": 3.0},
    "Gray": {},
    "LowQuality": {},
}


def control(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": f"ControlStack{kind}", "inputs": {**COMMON, **inputs}}


def image_graph(**nodes: dict[str, Any]) -> Graph:
    """The sample scene (1) and a mask of its size (2), with `nodes` whose maps are previewed."""
    graph: Graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "controlstack_scene.png"}},
        "2": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 128, "height": 128}},
    }
    for name, node in nodes.items():
        graph[name] = node
        graph[f"{name}-seen"] = {"class_type": "PreviewImage", "inputs": {"images": [name, 1]}}
    return graph


@pytest.fixture
def half_mask() -> dict[str, Any]:
    """A mask whose left half is white, made by ComfyUI's own node out of the mask 2."""
    small = {"destination": ["2", 0], "source": ["2", 0], "x": 64, "y": 0, "operation": "subtract"}
    return {"class_type": "MaskComposite", "inputs": small}


def test_every_modality_without_trained_files_makes_its_map(comfy: ComfyServer, half_mask: dict[str, Any]) -> None:
    graph = image_graph(**{kind: control(kind, **settings) for kind, settings in MAPS.items()})
    graph["3"] = half_mask
    graph["Inpaint"]["inputs"]["mask"] = ["3", 0]
    result = comfy.run(graph)
    assert result.succeeded, result.error
    seen = {kind: np.asarray(comfy.images(result, f"{kind}-seen")[0]) for kind in MAPS}
    for kind, pixels in seen.items():
        assert pixels.shape == (128, 128, 3), kind
        assert pixels.std() > 5, f"the {kind} map shows nothing"
    assert len({pixels.tobytes() for pixels in seen.values()}) == len(MAPS)
    assert (seen["Inpaint"][:, :64] == 0).all() and seen["Inpaint"][:, 64:].any()
    said = {node for node, _ in result.texts}
    assert said == {"QRCode"}, "modules of 4 pixels are too small, and nothing else is to be said"


def test_all_detectors_parameters_may_be_missing_and_are_widgets(comfy: ComfyServer) -> None:
    """Graphs and scripts from before a parameter was added keep running."""
    for modality in Modality:
        detector = detector_for(modality)
        (name,) = [
            n for n in comfy.get("/object_info") if n.lower() == f"controlstack{modality.value.replace('_', '')}"
        ]
        optional = list(comfy.object_info(name)["input_order"]["optional"])
        declared = [parameter.name for parameter in detector.parameters()]
        links = ["controls"] if detector.needs_mask else ["controls", "mask"]
        assert optional == declared + links, name


def test_an_empty_map_is_said_on_the_node_in_the_history_and_in_the_log(comfy: ComfyServer) -> None:
    flat = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}}
    graph = image_graph(lines=control("MLSD", method="opencv", image=["4", 0]))
    graph["4"] = flat
    sentence = "No straight line found in the image: the map is black there. Lower min_length."
    result = comfy.run(graph)
    assert result.succeeded, result.error
    assert result.texts == [("lines", sentence)]
    assert result.outputs["lines"]["text"] == [sentence]
    assert f"Node lines: {sentence}" in comfy.log
    assert not np.asarray(comfy.images(result, "lines-seen")[0]).any()
    graph["lines"]["inputs"]["image"] = ["1", 0]
    mended = comfy.run(graph)
    assert mended.texts == [("lines", "")], "the editor keeps a text until another comes"
    assert "lines" not in mended.outputs


def test_a_drawing_on_paper_is_said_on_the_node_and_a_map_made_from_it_is_not(comfy: ComfyServer) -> None:
    graph = image_graph(
        drawn=control("Scribble", detect="none", image=["5", 0]),
        made=control("Scribble", method="xdog", image=["5", 0], controls=["drawn", 0]),
    )
    graph["4"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 64}}
    graph["5"] = {"class_type": "MaskToImage", "inputs": {"mask": ["4", 0]}}
    result = comfy.run(graph)
    assert result.succeeded, result.error
    said = {node: text for node, text in result.texts if text}
    assert said["drawn"].startswith("The image shows dark lines on a light background")
    assert "Generate Locally inverts it. A service gets it unchanged." in said["drawn"]
    assert "light background" not in said["made"]
    assert np.asarray(comfy.images(result, "drawn-seen")[0]).min() == 255, "the map output is what the user brought"


def test_inpaint_without_a_mask_is_refused_before_anything_runs(comfy: ComfyServer) -> None:
    status, answer = comfy.post(image_graph(fill=control("Inpaint")))
    assert status == 400
    (error,) = answer["node_errors"]["fill"]["errors"]
    assert (error["message"], error["details"]) == ("Required input is missing", "mask")


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        (control("QRCode", text="x" * 600), "image is 128x128. The QR code of"),
        (control("QRCode", text="hello", background="pink"), "background is 'pink'. It must be one of white, gray."),
        (control("Scribble", method="crayon"), "method is 'crayon'. It must be one of hed, pidinet, xdog."),
        (control("Shuffle", seed=["5", 0]), "seed is -4. It must be a number from 0 to 4294967295."),
    ],
)
def test_a_mistake_is_one_sentence_at_its_node(comfy: ComfyServer, node: dict[str, Any], sentence: str) -> None:
    graph = image_graph(wrong=node)
    graph["5"] = {"class_type": "PrimitiveInt", "inputs": {"value": -4}}
    try:
        result = comfy.run(graph)
    except GraphRejectedError as rejected:  # ComfyUI 0.8 and later refuse unknown combo values themselves
        assert rejected.answer["node_errors"]["wrong"]["errors"][0]["type"] == "value_not_in_list"
        return
    assert result.error is not None and result.error["node_id"] == "wrong"
    assert sentence in result.error["exception_message"]


def test_the_user_can_stop_it_between_two_images_of_a_batch(comfy: ComfyServer) -> None:
    def stop_after_two(kind: str, data: dict[str, Any]) -> None:
        if kind == "progress" and data["node"] == "warp" and data["value"] >= 2 and not asked:
            asked.append(time.monotonic())
            threading.Thread(target=comfy.interrupt).start()

    asked: list[float] = []
    graph = image_graph(warp=control("Shuffle", image=["4", 0], seed=11))
    graph["4"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["5", 0], "amount": 300}}
    graph["5"] = {"class_type": "LoadImage", "inputs": {"image": "controlstack_photo.jpg"}}
    result = comfy.run(graph, on_event=stop_after_two)
    assert result.interrupted
    assert time.monotonic() - asked[0] < 10
    assert max(done for node, done, _ in result.progress if node == "warp") < 300


def test_transparency_counts(comfy: ComfyServer, half_mask: dict[str, Any]) -> None:
    """ComfyUI's masks are 1 where an image is transparent: here in its left half."""
    graph = image_graph(gray=control("Gray", image=["4", 0]))
    graph["3"] = half_mask
    graph["4"] = {"class_type": "JoinImageWithAlpha", "inputs": {"image": ["1", 0], "alpha": ["3", 0]}}
    result = comfy.run(graph)
    assert result.succeeded, result.error
    pixels = np.asarray(comfy.images(result, "gray-seen")[0])
    assert pixels.shape == (128, 128, 3)
    assert not pixels[:, :64].any() and pixels[:, 64:].min() > 0


@pytest.mark.parametrize("way", [{"enabled": False}, {"detect": "none"}, {"detect": "service"}])
def test_without_local_detection_the_image_goes_through_untouched(comfy: ComfyServer, way: dict[str, Any]) -> None:
    """HED's trained file is not there, so this would fail if it were looked for."""
    graph = image_graph(edges=control("HED", **way))
    graph["plain-seen"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    result = comfy.run(graph)
    assert result.succeeded, result.error
    (through,), (plain,) = comfy.images(result, "edges-seen"), comfy.images(result, "plain-seen")
    assert np.array_equal(np.asarray(through), np.asarray(plain))
