"""A ComfyUI that is killed while paid jobs run picks them up when it is started again, and pays nothing more."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from controlstack.api_clients.registry import ENDPOINTS
from controlstack.tests.comfy_server import ComfyServer, comfy_server
from controlstack.tests.server.graphs import Graph
from controlstack.tests.server.remote_graphs import NODES, info, remote_nodes, request_graph
from controlstack.tools.fake_services.running import Services, double_class

BOUGHT = list(Counter(map(double_class, ENDPOINTS)).values())  # of each double: one job for each of its nodes


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_a_killed_comfyui_resumes_its_paid_jobs_when_the_same_prompt_is_queued_again(
    services: Services, tmp_path: Path
) -> None:
    graph = request_graph(31)
    firsts = range(20, 20 + 10 * len(NODES), 10)
    for first, kind in zip(firsts, NODES, strict=True):
        graph |= remote_nodes(kind, ["10", 0], first)
    for double in services.doubles:
        double.latency = 1e9
    with comfy_server(tmp_path, environment=services.environment) as comfy:
        running = threading.Thread(target=run_to_the_end_of_the_server, args=(comfy, graph))
        running.start()
        wait_until_every_job_was_asked_for(services)
        comfy.server.process.kill()
        comfy.server.process.wait()
        running.join(60)
    assert [double.paid for double in services.doubles] == BOUGHT
    for double in services.doubles:
        double.latency = 0.0
    with comfy_server(tmp_path, environment=services.environment) as comfy:
        result = comfy.run(graph)
        assert result.succeeded, result.error
        for first in firsts:
            (picture,) = comfy.images(result, str(first + 1))
            assert picture.size == (256, 256)
            assert info(result, str(first + 2))["resumed"]
    assert [double.paid for double in services.doubles] == BOUGHT


def run_to_the_end_of_the_server(comfy: ComfyServer, graph: Graph) -> None:
    with suppress(Exception):
        comfy.run(graph)


def wait_until_every_job_was_asked_for(services: Services, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while [sum(job.polls > 0 for job in double.jobs.values()) for double in services.doubles] != BOUGHT:
        assert time.monotonic() < end, "not every job was bought and asked for"
        time.sleep(0.1)
