"""Every endpoint through real sockets against its double: what goes well, and that the doubles are strict."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
import requests
import torch
from controlstack.api_clients.jobs.context import Report
from controlstack.api_clients.jobs.journal import Status
from controlstack.api_clients.services.endpoint import Phase
from controlstack.core.errors import ServiceError
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, ImageReference, Lora, ReferenceKind
from controlstack.tests.services.cases import CASES, PICTURE, REQUEST, Account, Case
from controlstack.tools.fake_services import modelslab, qolaba, scenario
from controlstack.tools.fake_services.__main__ import main
from controlstack.tools.fake_services.double import CONTROL, Step
from controlstack.tools.fake_services.running import Services, double_classes

EVERY = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture
def account(services: Services, tmp_path: Path) -> Account:
    return Account(services.environment, tmp_path)


@EVERY
def test_a_request_is_queued_runs_and_becomes_its_pictures(account: Account, services: Services, case: Case) -> None:
    reports: list[Report] = []
    result = account.run(case, on_report=reports.append)
    (images,) = result.images
    assert images.shape == (1, 256, 256, 3) and images.std() > 0.05
    double = services.of(case.endpoint.service)
    assert (double.paid, double.charged) == (1, 1) and result.job_id in double.jobs
    assert double.count(Step.POLL) == 2 and {Phase.QUEUED, Phase.RUNNING} & {report.phase for report in reports}
    (entry,) = account.entries
    assert entry.status is Status.DONE and entry.job_id == result.job_id
    told = json.dumps(result.info) + str(reports) + str(entry)
    assert not [key for key in services.keys if key in told]


@EVERY
def test_the_same_request_is_fetched_and_not_bought_again(account: Account, services: Services, case: Case) -> None:
    account.run(case)
    assert account.run(case).info["resumed"]
    assert services.of(case.endpoint.service).paid == 1


@EVERY
def test_what_has_no_weight_is_not_there_for_any_service(account: Account, services: Services, case: Case) -> None:
    account.run(case)
    several = PICTURE.repeat(3, 1, 1, 1)
    controls = tuple(ControlUnit(modality, several, strength=0.0, start=0.4) for modality in Modality)
    references = (ImageReference(several, 0.0, kind=ReferenceKind.FACE), ImageReference(PICTURE, 0.0, end=0.5))
    loras = (Lora(name="of_this_machine.safetensors", strength=0.0),)
    request = replace(case.request, controls=controls + case.request.controls, references=references, loras=loras)
    assert account.run(case, request=request).info["resumed"]
    assert services.of(case.endpoint.service).paid == 1


def arrived(images: torch.Tensor, picture: torch.Tensor = PICTURE) -> float:
    """How far the drawing shows the picture that was sent: the correlation of their upper halves, -1 to 1."""
    half = picture.shape[1] // 2
    pair = torch.stack([image[0, :half].mean(-1).flatten() for image in (images, picture)])
    return float(torch.corrcoef(pair)[0, 1])


WAYS = {
    "ModelsLab, uploaded": (CASES[0], {}),
    "ModelsLab, base64": (CASES[0], {"base64": True}),
    "ModelsLab, in control_image": (CASES[0], {"control_field": "control_image"}),
    "ModelsLab, in both": (CASES[0], {"control_field": "both"}),
    "ModelsLab, the other path": (CASES[0], {"api_path": "/api/v6/images/controlnet"}),
    "Enterprise, uploaded": (CASES[1], {}),
    "Enterprise, base64": (CASES[1], {"base64": True}),
    "Enterprise, the other path": (CASES[1], {"api_path": "/api/v1/enterprise/images/controlnet"}),
    "Scenario, inline": (CASES[2], {}),
    "Scenario, uploaded": (CASES[2], {"image_transfer": "upload"}),
    **{
        f"Scenario, in {name}": (CASES[2], {"control_field": name})
        for name in ("imageId", "controlImage", "controlImageId")
    },
    "Qolaba, bucket": (CASES[3], {}),
    "Qolaba, the other spelling": (CASES[3], {"route": "/getImageToImage"}),
    "Qolaba, waiting for the answer": (CASES[3], {"celery": False}),
    "Qolaba, an initial image": (CASES[4], {}),
}


@pytest.mark.parametrize(("case", "options"), WAYS.values(), ids=WAYS)
def test_a_picture_arrives_whichever_way_it_takes(
    account: Account, services: Services, case: Case, options: dict[str, Any]
) -> None:
    for seed in (1, 2):  # two jobs: ModelsLab's base64 files come in two forms
        (images,) = account.run(case, request=replace(case.request, seed=seed), options=options).images
        assert arrived(images) > 0.95
    assert services.of(case.endpoint.service).charged == 2


@EVERY
def test_several_pictures_of_one_request_are_one_batch_and_differ(account: Account, case: Case) -> None:
    (images,) = account.run(case, request=replace(case.request, batch_size=3)).images
    assert images.shape == (3, 256, 256, 3) and not torch.equal(images[0], images[1])


def test_an_answer_that_has_its_pictures_at_once_is_not_asked_for_again(account: Account, services: Services) -> None:
    services.modelslab.instant = True
    result = account.run(CASES[0])
    assert result.images and result.info["seeds"] == [7]
    assert services.modelslab.count(Step.POLL) == 0


def test_references_travel_beside_the_control(account: Account, services: Services) -> None:
    references = (ImageReference(PICTURE.flip(1), 0.5), ImageReference(PICTURE.flip(2), 0.25))
    account.run(CASES[2], request=replace(REQUEST, references=references))
    (job,) = services.scenario.jobs.values()
    assert job.body["ipAdapterScales"] == [0.5, 0.25] and len(job.body["ipAdapterImages"]) == 2


def test_a_dry_run_tells_the_price_and_makes_no_job(account: Account, services: Services) -> None:
    result = account.run(CASES[2], options={"estimate_only": True}, request=replace(REQUEST, batch_size=4))
    assert result.images == [] and result.info["estimate"] and result.info["cost"] == 12
    assert (services.scenario.paid, services.scenario.charged, account.entries) == (0, 0, [])


def test_the_seed_that_the_service_drew_is_told(account: Account) -> None:
    (seed,) = account.run(CASES[0], options={"random_seed": True}).info["seeds"]
    assert 0 <= seed < 2**32 and seed != REQUEST.seed


def test_a_double_refuses_what_its_contract_does_not_have(services: Services) -> None:
    body = {"key": modelslab.KEY, "model_id": "midjourney", "denoise": 0.5}
    answer = requests.post(f"{services.modelslab.url}/api/v5/controlnet", json=body, timeout=10)
    assert answer.status_code == 400 and "denoise Extra inputs are not permitted" in answer.json()["message"]
    basic = (scenario.KEY, scenario.SECRET)
    path = f"{services.scenario.base_url}/generate/controlnet-ip-adapter"
    answer = requests.post(path, json={"prompt": "x", "strength": 1}, auth=basic, timeout=10)
    assert answer.status_code == 400 and "strength Extra inputs" in answer.json()["reason"]
    bearer = {"Authorization": f"Bearer {qolaba.KEY}"}
    body = {"app_id": "ap-x", "seed": 1}
    answer = requests.post(f"{services.qolaba.base_url}/getImagetoImage", json=body, headers=bearer, timeout=10)
    assert answer.json()["status"] == "FAILED" and "seed Extra inputs" in answer.json()["error_data"]
    assert not any(double.charged for double in services.doubles)


def test_fake_services_say_how_to_reach_them_and_can_be_upset_from_outside(tmp_path: Path) -> None:
    port = _free_ports(len(double_classes()) + 1)
    command = [sys.executable, "-I", "-m", "controlstack.tools.fake_services", "--port", str(port), "--latency", "0"]
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


def _free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    for first in range(20_000, 30_000, count):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + count):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError(f"no {count} free ports in a row")


def _until(stream: IO[str], word: str) -> str:
    """What is written up to the line with the word."""
    lines = []
    for line in stream:
        lines.append(line)
        if word in line:
            break
    return "".join(lines)
