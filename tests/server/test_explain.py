"""Explain Request for the services: problems or the exact body, with nothing sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from controlstack.api_clients.registry import ENDPOINTS, node_id
from controlstack.tests.comfy_server import ComfyServer
from controlstack.tests.server.remote_graphs import NODES, SIZE, info, remote_graph, request_graph
from controlstack.tests.server.test_errors import failure
from controlstack.tools.example_graphs import node
from controlstack.tools.fake_services.running import Services

TARGETS = {endpoint.target: node_id(endpoint) for endpoint in ENDPOINTS}


def explained(comfy: ComfyServer, target: str, seed: int, request: dict[str, Any] | None = None, **more: Any) -> str:
    graph = request_graph(seed, **(request or {}))
    graph["30"] = node("ControlStackExplain", request=["10", 0], target=target, **more)
    result = comfy.run(graph)
    assert result.succeeded, result.error
    return "".join(result.outputs["30"]["text"])


def body_of(text: str) -> dict[str, Any]:
    return json.loads(text[text.index("{") :])


@pytest.mark.parametrize("target", TARGETS)
def test_the_body_is_the_one_that_the_node_sends(remote_comfy: ComfyServer, services: Services, target: str) -> None:
    text = explained(remote_comfy, target, 400)
    assert not any(double.seen for double in services.doubles) and not services.bucket.seen
    assert text.startswith(f"{target} can run this request. It would be sent with POST to http://127.0.0.1:")
    body = body_of(text)
    assert f"<png {SIZE}x{SIZE}>" in body.values()
    for double in services.doubles:
        double.pending_polls = 0
    kind = TARGETS[target]
    sent = info(remote_comfy.run(remote_graph(kind, 400)))["sent"]
    if NODES[kind].startswith("modelslab"):
        assert body.pop("key") == "<redacted>"
    assert body == sent


@pytest.mark.parametrize("target", TARGETS)
def test_problems_are_listed_one_a_line_without_a_key_or_an_image_host(comfy: ComfyServer, target: str) -> None:
    lines = explained(comfy, target, 401, {"width": 100, "prompt": ""}).splitlines()
    assert any(line.startswith("width is 100, but") for line in lines)
    assert any(line.startswith("prompt is empty, but") or "needs a prompt." in line for line in lines)


def test_a_connected_model_is_asked_for_the_files_that_generating_would_need(comfy: ComfyServer) -> None:
    graph = request_graph(420, vae="nope.safetensors", loras=["5", 0])
    graph["5"] = node("ControlStackLora", lora_name="(remote)", remote_id="style-7", strength=0.5)
    graph["20"] = node("ControlStackLoadModel", model_name="demo (embedded)", precision="auto")
    graph["30"] = node("ControlStackExplain", request=["10", 0], target="Local SD 1.5", model=["20", 0])
    result = comfy.run(graph)
    assert result.succeeded, result.error
    text = "".join(result.outputs["30"]["text"])
    assert "lora 1 is 'style-7', which is stored with a service" in text
    assert "vae is 'nope.safetensors', which is not in" in text
    assert "can run" not in text


def test_a_picture_that_has_no_way_to_the_service_is_a_problem(comfy: ComfyServer) -> None:
    text = explained(comfy, "Qolaba ControlNet", 402)
    assert text.startswith(
        "Qolaba ControlNet accepts images only by a public address, and the image connected to image has"
    )
    address = '{"image_url": "https://me.example/map.png"}'
    assert body_of(explained(comfy, "Qolaba ControlNet", 402, fields=address))["image"] == "https://me.example/map.png"


def test_the_node_s_own_fields_can_be_given(comfy: ComfyServer) -> None:
    text = explained(comfy, "Scenario", 403, fields='{"modelId": "sd-xl", "imageHide": true}')
    assert "512 to 2048" in text
    fields = '{"modelId": "my-model", "imageHide": true, "estimate_only": true}'
    text = explained(comfy, "Scenario", 403, fields=fields)
    assert "dryRun=true" in text.splitlines()[0]
    assert "The family of 'my-model' is not known" in text
    assert body_of(text[text.index("\n{") :])["imageHide"] is True


@pytest.mark.parametrize(
    ("target", "fields", "says"),
    [
        ("ModelsLab", '{"track_id": 17}', "track_id is 17. It must be a text."),
        ("ModelsLab", '{"model_id": 5}', "model_id is 5. It must be a text."),
        ("ModelsLab Enterprise", '{"webhook": 5}', "webhook is 5. It must be a text."),
        ("Scenario", '{"modelId": null}', 'modelId is None. It must be a text. Set it to "flux.1-dev".'),
        ("Qolaba ControlNet", '{"image_url": 5}', "image_url is 5. It must be a text."),
    ],
)
def test_fields_of_a_wrong_kind_are_problems(comfy: ComfyServer, target: str, fields: str, says: str) -> None:
    assert explained(comfy, target, 405, fields=fields).startswith(says)


@pytest.mark.parametrize("fields", ["nonsense", "[1]", '{"model": 1}'])
def test_fields_that_are_none_are_a_sentence(comfy: ComfyServer, fields: str) -> None:
    graph = request_graph(404)
    graph["30"] = node("ControlStackExplain", request=["10", 0], target="Scenario", fields=fields)
    message = failure(comfy.run(graph), "30")
    assert "It must be a JSON object with only these fields of Scenario: modelId, model_family," in message


def test_a_local_target_is_asked_anew_at_every_run(comfy: ComfyServer) -> None:
    """What can run depends on the files of today."""
    graph = request_graph(430)
    graph["30"] = node("ControlStackExplain", request=["10", 0], target="Local SD 1.5")
    comfy.run(graph)
    again = comfy.run(graph)
    assert again.succeeded, again.error
    assert "30" in again.executed and "10" in again.cached
