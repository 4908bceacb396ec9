"""Every endpoint through real sockets against its double: what goes well, and that the doubles are strict."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
import requests
from controlstack.api_clients.endpoint import Phase
from controlstack.api_clients.journal import Standing
from controlstack.api_clients.pursuit import Report
from controlstack.core.errors import ServiceError
from controlstack.tests.services.__main__ import main
from controlstack.tests.services.cases import CASES, Account, Case
from controlstack.tests.services.double import CONTROL, Step
from controlstack.tests.services.running import Services

EVERY = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture
def account(services: Services, tmp_path: Path) -> Account:
    return Account(services.environment, tmp_path)


@EVERY
def test_a_request_is_queued_runs_and_becomes_its_pictures(account: Account, services: Services, case: Case) -> None:
    reports: list[Report] = []
    result = account.run(case, on_state=reports.append)
    (images,) = result.images
    assert images.shape == (1, 256, 256, 3) and images.std() > 0.05
    double = services.of(case.endpoint.service)
    assert (double.paid, double.charged) == (1, 1) and result.job_id in double.jobs
    assert double.count(Step.POLL) == 2 and {Phase.QUEUED, Phase.RUNNING} & {report.phase for report in reports}
    (entry,) = account.entries
    assert entry.standing is Standing.DONE and entry.job_id == result.job_id
    told = json.dumps(result.info) + str(reports) + str(entry)
    assert not [key for key in services.keys if key in told]


@EVERY
def test_the_same_request_is_fetched_and_not_bought_again(account: Account, services: Services, case: Case) -> None:
    account.run(case)
    assert account.run(case).info["resumed"]
    assert services.of(case.endpoint.service).paid == 1


def test_fake_services_say_how_to_reach_them_and_can_be_upset_from_outside(tmp_path: Path) -> None:
    port = _four_free_ports()
    command = [sys.executable, "-I", "-m", "controlstack.tests.services", "--port", str(port), "--latency", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            told = _until(process.stdout, "curl")
            exported = dict(re.findall(r"^  export (\w+)=(\S+)$", told, re.MULTILINE))
            for name, value in exported.items():
                assert f"$env:{name} = '{value}'" in told and f"  set {name}={value}" in told
            account = Account(exported, tmp_path)
            assert account.run(CASES[0]).images[0].shape == (1, 256, 256, 3)
            double = exported["CONTROLSTACK_MODELSLAB_URL"] + CONTROL
            order = {
                "plan": {"poll": ["failed job"], "upload": [{"status": 502, "text": "<html>"}, {"fault": "RESET"}]}
            }
            assert requests.post(double, json=order, timeout=10).json()["paid"] == 1
            with pytest.raises(ServiceError, match="Failed, Try Again"):
                account.run(CASES[0], force_new=True)
            assert requests.get(double, timeout=10).json()["seen"] == {"submit": 2, "poll": 3, "upload": 4, "result": 1}
        finally:
            process.kill()


def test_taken_ports_are_a_sentence(services: Services, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", str(services.modelslab.server.server_port)]) == 1
    assert "are not all free" in capsys.readouterr().err


def _four_free_ports() -> int:
    for first in range(20_000, 30_000, 4):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + 4):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no four free ports in a row")


def _until(stream: IO[str], word: str) -> str:
    """What is written up to the line with the word."""
    lines = []
    for line in stream:
        lines.append(line)
        if word in line:
            break
    return "".join(lines)
