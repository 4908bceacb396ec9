"""Every endpoint through real sockets against its double: what goes well, and that the doubles are strict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from controlstack.api_clients.endpoint import Phase
from controlstack.api_clients.journal import Standing
from controlstack.api_clients.pursuit import Report
from controlstack.tests.services.cases import CASES, Account, Case
from controlstack.tests.services.double import Step
from controlstack.tests.services.running import Services

EVERY = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture
def account(services: Services, tmp_path: Path) -> Account:
    return Account(services, tmp_path)


@EVERY
def test_a_request_is_queued_runs_and_becomes_its_pictures(account: Account, case: Case) -> None:
    reports: list[Report] = []
    result = account.run(case, on_state=reports.append)
    (images,) = result.images
    assert images.shape == (1, 256, 256, 3) and images.std() > 0.05
    double = account.double(case)
    assert (double.paid, double.charged) == (1, 1) and result.job_id in double.jobs
    assert double.count(Step.POLL) == 2 and {Phase.QUEUED, Phase.RUNNING} & {report.phase for report in reports}
    (entry,) = account.entries
    assert entry.standing is Standing.DONE and entry.job_id == result.job_id
    told = json.dumps(result.info) + str(reports) + str(entry)
    assert not [key for key in account.services.keys if key in told]


@EVERY
def test_the_same_request_is_fetched_and_not_bought_again(account: Account, case: Case) -> None:
    account.run(case)
    assert account.run(case).info["resumed"]
    assert account.double(case).paid == 1
