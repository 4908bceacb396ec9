"""Of several pictures of a job some cannot be had, or were never made: the rest comes, and is explained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from controlstack.tests.services.cases import CASES, QOLABA, Account, Case
from controlstack.tools.fake_services.double import Step
from controlstack.tools.fake_services.loopback_server import Reply, Seen
from controlstack.tools.fake_services.running import Services


def batches(cases: tuple[Case, ...]) -> tuple[Case, ...]:
    return tuple(replace(case, request=replace(case.request, batch_size=3)) for case in cases)


@pytest.fixture
def account(services: Services, tmp_path: Path) -> Account:
    return Account(services.environment, tmp_path)


@pytest.mark.parametrize("case", batches(CASES), ids=str)
@pytest.mark.parametrize("bad", [Reply(b"", 410), Reply(b"<!doctype html><p>log in")], ids=["gone", "web page"])
def test_one_picture_that_cannot_be_had_keeps_the_others_not_back(
    account: Account, services: Services, case: Case, bad: Reply
) -> None:
    double = services.of(case.endpoint.service)
    double.plan(Step.RESULT, bad)
    result = account.run(case)
    assert result.images[0].shape[0] == 2
    assert any("image 1 of 3 is missing" in note for note in result.info["notes"])
    again = account.run(case)
    assert again.images[0].shape[0] == 3 and not any("missing" in note for note in again.info.get("notes", ()))
    assert double.paid == 1


@pytest.mark.parametrize("case", batches(QOLABA), ids=str)
def test_pictures_that_the_service_dropped_are_explained(account: Account, services: Services, case: Case) -> None:
    qolaba = services.qolaba

    def all_but_two(seen: Seen) -> Any:
        whole = qolaba._finished(qolaba.jobs[seen.json["id"]])
        return {**whole, "output": {**whole["output"], "result": whole["output"]["result"][:1]}}

    qolaba.plan(Step.POLL, Reply(all_but_two))
    for result in (account.run(case), account.run(case)):
        notes = " ".join(result.info["notes"])
        assert result.images[0].shape[0] == 1
        assert f"{case.endpoint.target} made 1 of 3 images" in notes and "nudity or copyright" in notes
    assert qolaba.paid == 1
