"""The remote nodes in a real ComfyUI against the doubles of the services."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from controlstack.tests.comfy_server import ComfyServer, GraphRejectedError, RunResult
from controlstack.tests.server.graphs import canny_graph
from controlstack.tests.server.remote_graphs import NODES, SIZE, info, remote_graph, remote_nodes, request_graph, shown
from controlstack.tests.server.test_errors import failure
from controlstack.tools.example_graphs import node
from controlstack.tools.fake_services.double import Double, Step
from controlstack.tools.fake_services.loopback_server import Reply
from controlstack.tools.fake_services.running import Services
from PIL import Image

EVERY = pytest.mark.parametrize("kind", NODES)


@pytest.fixture(autouse=True)
def prompt_services(services: Services) -> None:
    """Jobs are done when they are first asked for, to save time."""
    for double in services.doubles:
        double.pending_polls = 0


@EVERY
def test_a_request_becomes_a_picture_at_each_service(remote_comfy: ComfyServer, services: Services, kind: str) -> None:
    result = remote_comfy.run(remote_graph(kind, 1))
    assert result.succeeded, result.error
    (picture,) = remote_comfy.images(result, "21")
    assert picture.size == (SIZE, SIZE)
    double = services.of(NODES[kind])
    assert double.paid == 1
    told = info(result)
    assert told["job_id"] == shown(result, "23") and told["job_id"] in double.jobs
    assert f"<png {SIZE}x{SIZE}>" in json.dumps(told["sent"])
    texts = [text for name, text in result.texts if name == "20"]
    assert any(told["job_id"] in text for text in texts)
    assert any(text.startswith("done") for text in texts)
    everything = json.dumps(told) + str(texts) + str(result.messages)
    assert not [key for key in services.keys if key in everything]


@EVERY
def test_the_same_graph_again_is_not_bought_again_unless_forced(
    remote_comfy: ComfyServer, services: Services, kind: str
) -> None:
    double = services.of(NODES[kind])
    graph = remote_graph(kind, 2)
    remote_comfy.run(graph)
    assert "20" in remote_comfy.run(graph).cached
    other = remote_graph(kind, 2) | {"30": node("ImageInvert", image=["20", 0])}
    other["21"]["inputs"]["images"] = ["30", 0]
    remote_comfy.run(other)
    assert double.paid == 1
    graph["20"]["inputs"]["force_new"] = True
    for expected in (2, 3):
        assert remote_comfy.run(graph).succeeded
        assert double.paid == expected


def test_all_problems_are_told_before_anything_is_sent(remote_comfy: ComfyServer, services: Services) -> None:
    graph = remote_graph("ControlStackScenario", 3, {"width": 100, "height": 512, "prompt": ""}, modelId="sd-xl")
    message = failure(remote_comfy.run(graph), "20")
    assert message.startswith("Invalid input. There are 2 problems:")
    assert not services.scenario.seen


def test_a_value_that_its_combo_does_not_have_is_refused(remote_comfy: ComfyServer, services: Services) -> None:
    graph = remote_graph("ControlStackModelsLab", 4, api_path="/elsewhere")
    try:
        message = failure(remote_comfy.run(graph), "20")
    except GraphRejectedError as rejected:  # ComfyUI 0.8 and later refuse it themselves
        message = str(rejected)
    assert "/elsewhere" in message and "/api/v5/controlnet" in message
    assert not services.modelslab.seen


def test_a_profile_without_a_key_says_how_to_store_one(remote_comfy: ComfyServer, services: Services) -> None:
    message = failure(remote_comfy.run(remote_graph("ControlStackScenario", 5, profile="second")), "20")
    assert message.startswith("There is no key for Scenario (profile 'second').")
    assert "python -m controlstack.credentials set scenario --profile second" in message
    assert not services.scenario.seen


@EVERY
def test_a_refused_key_is_a_sentence_at_the_node(remote_comfy: ComfyServer, services: Services, kind: str) -> None:
    double = services.of(NODES[kind])
    double.plan(Step.SUBMIT, double.errors["bad key"].reply)
    message = failure(remote_comfy.run(remote_graph(kind, 6)), "20")
    assert double.errors["bad key"].says in message
    assert "\n" not in message


def interrupted(
    comfy: ComfyServer, graph: Any, ready: Callable[[], None], steps_of: str = ""
) -> tuple[RunResult, float]:
    """The run of a graph that is interrupted when `ready` returns, and the seconds until ComfyUI says so.

    With `steps_of` also not before that local node makes steps: loading a model is not interrupted.
    """
    asked: list[float] = []
    told: list[float] = []
    stepping = threading.Event()

    def listen(event: str, data: dict[str, Any]) -> None:
        if event == "progress" and data["node"] == steps_of:
            stepping.set()
        if event == "execution_interrupted":
            told.append(time.monotonic())

    def interrupt() -> None:
        ready()
        assert not steps_of or stepping.wait(60)
        asked.append(time.monotonic())
        comfy.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = comfy.run(graph, on_event=listen)
    thread.join()
    assert result.interrupted
    return result, told[0] - asked[0]


def test_an_interrupt_is_felt_within_a_second_and_cancels_the_job(
    remote_comfy: ComfyServer, services: Services
) -> None:
    services.scenario.latency = 60
    graph = remote_graph("ControlStackScenario", 7)
    _, seconds = interrupted(remote_comfy, graph, lambda: services.scenario.wait_for(Step.POLL))
    assert seconds < 1
    services.scenario.wait_for(Step.CANCEL, seconds=3)
    (job,) = services.scenario.jobs.values()
    assert job.canceled
    services.scenario.latency = 0
    assert remote_comfy.run(graph).succeeded
    assert services.scenario.charged == 2


def test_an_interrupt_while_the_request_is_on_its_way_is_felt_too(
    remote_comfy: ComfyServer, services: Services
) -> None:
    services.scenario.plan(Step.SUBMIT, Reply(None, delay=4.0))
    graph = remote_graph("ControlStackScenario", 8)
    _, seconds = interrupted(remote_comfy, graph, lambda: services.scenario.wait_for(Step.SUBMIT))
    assert seconds < 1
    services.scenario.wait_for(Step.CANCEL, seconds=10)


def test_one_interrupt_stops_and_cancels_every_remote_node_of_a_graph(
    remote_comfy: ComfyServer, services: Services
) -> None:
    services.scenario.latency = 60
    graph = request_graph(9)
    for number in range(3):
        fields = {"hideResults": bool(number % 2), "intermediateImages": bool(number // 2)}
        graph |= remote_nodes("ControlStackScenario", ["10", 0], 20 + 10 * number, **fields)
    _, seconds = interrupted(remote_comfy, graph, lambda: services.scenario.wait_for(Step.POLL, 3))
    assert seconds < 1
    services.scenario.wait_for(Step.CANCEL, 3, seconds=3)
    assert [job.canceled for job in services.scenario.jobs.values()] == [True] * 3


def test_one_interrupt_stops_a_remote_job_and_a_local_one_beside_it(
    remote_comfy: ComfyServer, services: Services
) -> None:
    services.scenario.latency = 60
    graph = remote_graph("ControlStackScenario", 18)
    local = canny_graph(18, steps=500)
    for old, new in {"1": "40", "2": "41", "10": "42", "20": "43", "21": "44", "22": "45"}.items():
        graph[new] = local[old]
    graph["41"]["inputs"]["image"] = ["40", 0]
    graph["42"]["inputs"]["controls"] = ["41", 0]
    graph["44"]["inputs"] |= {"model": ["43", 0], "request": ["42", 0]}
    graph["45"]["inputs"]["images"] = ["44", 0]
    ready = partial(services.scenario.wait_for, Step.POLL)
    _, seconds = interrupted(remote_comfy, graph, ready, steps_of="44")
    assert seconds < 3  # a local step is not interrupted in its middle
    services.scenario.wait_for(Step.CANCEL, seconds=3)


def test_an_interrupt_of_fetch_job_leaves_the_job_alone(remote_comfy: ComfyServer, services: Services) -> None:
    services.scenario.latency = 60
    remote_comfy.run(remote_graph("ControlStackScenario", 19, async_only=True))
    fetch = {
        "1": node("ControlStackFetchJob", service="Scenario", profile="default", job_id="job_0001"),
        "2": node("PreviewImage", images=["1", 0]),
    }
    _, seconds = interrupted(remote_comfy, fetch, lambda: services.scenario.wait_for(Step.POLL))
    assert seconds < 1
    time.sleep(1)
    assert not services.scenario.count(Step.CANCEL)


def test_progress_is_shown_as_the_service_tells_it(remote_comfy: ComfyServer, services: Services) -> None:
    services.scenario.latency, services.scenario.pending_polls = 4, 1
    result = remote_comfy.run(remote_graph("ControlStackScenario", 20))
    states = [data["nodes"].get("20") for kind, data in result.messages if kind == "progress_state"]
    shares = [state["value"] for state in states if state]
    assert any(0.3 < share < 1 for share in shares) and shares[-1] == 1
    texts = [text for name, text in result.texts if name == "20"]
    assert any("running" in text and "%" in text and "s left" in text for text in texts)
    assert len(texts) < 30 and len(result.messages) < 100


def test_remote_nodes_of_one_graph_wait_side_by_side(remote_comfy: ComfyServer, services: Services) -> None:
    doubles: list[Double] = [services.modelslab, services.scenario, services.qolaba]
    for double in doubles:
        double.latency = 4
    graph = request_graph(10)
    for number, kind in enumerate(NODES):
        graph |= remote_nodes(kind, ["10", 0], 20 + 10 * number)
    began = time.monotonic()
    result = remote_comfy.run(graph)
    assert result.succeeded, result.error
    assert time.monotonic() - began < 14  # one behind the other they would take 20 s and more
    assert len({info(result, str(22 + 10 * number))["job_id"] for number in range(5)}) == 5


def test_a_node_that_fails_does_not_cost_its_neighbors_their_jobs(
    remote_comfy: ComfyServer, services: Services
) -> None:
    services.scenario.latency = 3
    graph = request_graph(11) | remote_nodes("ControlStackScenario", ["10", 0], 20)
    both = graph | remote_nodes("ControlStackModelsLab", ["10", 0], 30)
    services.modelslab.plan(Step.SUBMIT, Reply(services.modelslab.errors["credits"].reply.body, 402, delay=1.5))
    assert "Insufficient credits" in failure(remote_comfy.run(both), "30")
    time.sleep(1)
    assert services.scenario.charged == 1 and not services.scenario.count(Step.CANCEL)
    result = remote_comfy.run(graph)
    assert result.succeeded and info(result)["resumed"]
    assert services.scenario.paid == 1


@EVERY
def test_a_job_can_be_started_now_and_fetched_later(remote_comfy: ComfyServer, services: Services, kind: str) -> None:
    double = services.of(NODES[kind])
    graph = remote_graph(kind, 12, async_only=True)
    started = remote_comfy.run(graph)
    assert started.succeeded
    assert "21" not in started.outputs, "there is no picture to show yet, and none is shown"
    job_id = shown(started, "23")
    assert job_id in double.jobs and not double.count(Step.RESULT)
    assert started.texts[-1] == ("20", f"started, job {job_id}")
    service = remote_comfy.object_info(kind)["display_name"].removeprefix("Generate with ")
    fetch = {
        "1": node("ControlStackFetchJob", service=service, profile="default", job_id=f" {job_id} "),
        "2": node("PreviewImage", images=["1", 0]),
        "3": node("PreviewAny", source=["1", 1]),
    }
    result = remote_comfy.run(fetch)
    assert result.succeeded, result.error
    assert remote_comfy.images(result, "2")[0].size == (SIZE, SIZE)
    assert info(result, "3")["job_id"] == job_id
    assert double.paid == 1


def test_a_picture_that_was_missing_is_fetched_by_the_same_graph_again(
    remote_comfy: ComfyServer, services: Services
) -> None:
    remote_comfy.run(remote_graph("ControlStackScenario", 21, {"batch_size": 2}, async_only=True))
    fetch = {
        "1": node("ControlStackFetchJob", service="Scenario", profile="default", job_id="job_0001"),
        "2": node("PreviewImage", images=["1", 0]),
    }
    services.scenario.plan(Step.RESULT, Reply(b"expired", 410))
    for pictures in (1, 2):
        assert len(remote_comfy.images(remote_comfy.run(fetch), "2")) == pictures


def test_fetching_nothing_and_the_unknown_are_sentences(remote_comfy: ComfyServer, services: Services) -> None:
    fetch = {
        "1": node("ControlStackFetchJob", service="Scenario", profile="default", job_id=""),
        "2": node("PreviewImage", images=["1", 0]),
    }
    assert "job_id is empty. Copy the id of the job" in failure(remote_comfy.run(fetch), "1")
    fetch["1"]["inputs"]["job_id"] = "job_9999"
    assert "Job job_9999 not found" in failure(remote_comfy.run(fetch), "1")


def test_an_estimate_tells_the_price_and_shows_no_picture(remote_comfy: ComfyServer, services: Services) -> None:
    graph = remote_graph("ControlStackScenario", 13, {"batch_size": 4}, estimate_only=True)
    result = remote_comfy.run(graph)
    assert result.succeeded, result.error
    assert "21" not in result.outputs
    assert info(result)["cost"] == 12 and info(result)["estimate"]
    assert ("20", "price: 12.0") in result.texts
    assert (services.scenario.paid, services.scenario.charged) == (0, 0)


def picture(width: int, height: int) -> Reply:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(stream, "PNG")
    return Reply(stream.getvalue(), headers={"Content-Type": "image/png"})


def test_pictures_of_one_size_are_a_batch_and_of_several_a_list(remote_comfy: ComfyServer, services: Services) -> None:
    result = remote_comfy.run(remote_graph("ControlStackModelsLab", 14, {"batch_size": 2}))
    assert [image.size for image in remote_comfy.images(result, "21")] == [(SIZE, SIZE)] * 2
    services.modelslab.plan(Step.RESULT, picture(64, 64), picture(96, 64))
    result = remote_comfy.run(remote_graph("ControlStackModelsLab", 15, {"batch_size": 2}))
    assert result.succeeded, result.error
    assert [image.size for image in remote_comfy.images(result, "21")] == [(64, 64), (96, 64)]
    assert "different sizes (64x64, 96x64)" in str(info(result)["notes"])


def test_the_node_s_own_fields_and_the_request_s_reach_the_body(remote_comfy: ComfyServer, services: Services) -> None:
    graph = remote_graph(
        "ControlStackModelsLab",
        16,
        {"vae": "my-vae", "upscale": True, "loras": ["5", 0]},
        model_id="my-model",
        model_family="sd15",
        tomesd=False,
        controlnet_conditioning_scale=0.7,
    )
    graph["5"] = node("ControlStackLora", lora_name="(remote)", remote_id="more_details", strength=0.5)
    result = remote_comfy.run(graph)
    assert result.succeeded, result.error
    assert remote_comfy.images(result, "21")[0].size == (2 * SIZE, 2 * SIZE)
    expected = {
        "vae": "my-vae",
        "upscale": "yes",
        "lora_model": "more_details",
        "lora_strength": "0.5",
        "model_id": "my-model",
        "tomesd": "no",
        "controlnet_conditioning_scale": 0.7,
    }
    (job,) = services.modelslab.jobs.values()
    assert {name: job.body[name] for name in expected} == expected
    assert {name: info(result)["sent"][name] for name in expected} == expected


def test_a_lora_without_file_and_id_is_a_sentence(remote_comfy: ComfyServer) -> None:
    graph = remote_graph("ControlStackModelsLab", 17, {"loras": ["5", 0]})
    graph["5"] = node("ControlStackLora", lora_name="(remote)", remote_id=" ", strength=0.5)
    assert "remote_id is empty" in failure(remote_comfy.run(graph), "5")
    graph["5"]["inputs"] |= {"lora_name": "../../secret.safetensors"}
    try:
        assert "ComfyUI has no LoRA of this name" in failure(remote_comfy.run(graph), "5")
    except GraphRejectedError as rejected:
        assert "value_not_in_list" in str(rejected)
