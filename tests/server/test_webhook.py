"""The webhook receiver: whoever knows the address may end a wait, and can do nothing else."""

from __future__ import annotations

import threading
import time

import requests
from controlstack.tests.comfy_server import ComfyServer
from controlstack.tests.server.remote_graphs import info, remote_graph
from controlstack.tools.fake_services.double import Step
from controlstack.tools.fake_services.running import Services


def notify(comfy: ComfyServer, token: str) -> requests.Response:
    """What a service posts, with a picture of an attacker's own."""
    told = {"status": "success", "output": ["https://evil.example/1.png"]}
    return requests.post(f"{comfy.url}/controlstack/webhook/{token}", json=told, timeout=30)


def test_a_call_of_the_service_ends_the_wait_and_its_content_is_ignored(
    remote_comfy: ComfyServer, services: Services
) -> None:
    double = services.modelslab
    double.pending_polls = 0
    double.latency = 20
    rung: list[float] = []

    def finish() -> None:
        double.wait_for(Step.SUBMIT)
        time.sleep(1)
        double.latency = 0
        (job,) = double.jobs.values()
        rung.append(time.monotonic())
        assert notify(remote_comfy, str(job.body["webhook"]).rpartition("/")[2]).status_code == 204

    thread = threading.Thread(target=finish)
    thread.start()
    result = remote_comfy.run(remote_graph("ControlStackModelsLab", 300))
    ended = time.monotonic()
    thread.join()
    assert result.succeeded, result.error
    assert ended - rung[0] < 5, "the service had asked to wait for 20 s"
    (job,) = double.jobs.values()
    assert str(job.body["webhook"]).startswith("https://comfy.example/controlstack/webhook/")
    assert info(result)["sent"]["webhook"] == "<the address of this ComfyUI>"


def test_unknown_addresses_answer_like_known_ones(remote_comfy: ComfyServer) -> None:
    answer = notify(remote_comfy, "guessed")
    assert (answer.status_code, answer.text) == (204, "")


def test_an_address_of_the_user_s_own_is_kept(remote_comfy: ComfyServer, services: Services) -> None:
    services.modelslab.pending_polls = 0
    graph = remote_graph("ControlStackModelsLab", 301, webhook="https://me.example/hook")
    assert remote_comfy.run(graph).succeeded
    (job,) = services.modelslab.jobs.values()
    assert job.body["webhook"] == "https://me.example/hook"
