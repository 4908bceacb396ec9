"""A service that echoes the address of a picture in the user's bucket, or a key: nobody else is told what opens it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from controlstack.core.errors import ControlStackError
from controlstack.tests.services import cases
from controlstack.tests.services.cases import CASES, Account, Case
from controlstack.tools.fake_services.bucket import ACCESS_KEY
from controlstack.tools.fake_services.double import Step
from controlstack.tools.fake_services.loopback_server import Reply, Seen
from controlstack.tools.fake_services.running import Services

QOLABA = pytest.mark.parametrize("case", cases.QOLABA, ids=str)
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "quoted": lambda link: quote(link, safe=""),
    "in HTML": lambda link: link.replace("&", "&amp;"),
}


# Where a text is cut before it is told, and how an answer carries one up to there.
CUTS: dict[str, tuple[int, Callable[[str], Reply]]] = {
    "a field": (500, lambda text: Reply({"status": "error", "message": text}, 400)),
    "a page": (500, lambda text: Reply(text.encode(), 400)),
    "a page of tags": (10_000, lambda text: Reply(text.replace("xxx", "<p>").encode(), 400)),
    "no word of a job": (200, lambda text: Reply(text.encode(), 504)),
}


@pytest.fixture
def account(services: Services, tmp_path: Path) -> Account:
    return Account(services.environment, tmp_path)


def failed(link: str) -> dict[str, Any]:
    """As pydantic says it."""
    said = f"1 validation error for Input image [type=url_parsing, input_value='{link}', input_type=str]"
    return {"status": "FAILED", "error": "Internal Error", "error_data": said}


def leaked(services: Services, account: Account, *told: str) -> list[str]:
    """What opens a picture, of all that was said and written down."""
    links = [str(job.body["image"]) for job in services.qolaba.jobs.values()]
    links += [seen.json["image"] for seen in services.qolaba.seen if seen.kind is Step.SUBMIT]
    openers = {part for link in links for part in re.findall("Signature=([0-9a-f]{64})", link)}
    assert openers, "pictures lay in the bucket"
    written = [file.read_bytes().decode(errors="replace") for file in account.journal.file.parent.iterdir()]
    return [opener for opener in (*openers, ACCESS_KEY) if any(opener in text for text in (*told, *written))]


@QOLABA
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_refusal_that_echoes_the_picture_does_not_tell_its_link(
    account: Account, services: Services, case: Case, spelling: str, caplog: pytest.LogCaptureFixture
) -> None:
    def echo(seen: Seen) -> Any:
        return failed(SPELLINGS[spelling](seen.json["image"]))

    caplog.set_level(logging.DEBUG, "controlstack")
    services.qolaba.plan(Step.SUBMIT, Reply(echo, 400))
    with pytest.raises(ControlStackError, match="1 validation error") as caught:
        account.run(case)
    assert not leaked(services, account, str(caught.value), caplog.text)


@QOLABA
@pytest.mark.parametrize("fetched", [False, True], ids=["resumed", "fetched by its id"])
def test_a_job_that_fails_later_and_echoes_the_picture_does_not_tell_its_link(
    account: Account, services: Services, case: Case, fetched: bool
) -> None:
    started = account.run(case, async_only=True)
    (job,) = services.qolaba.jobs.values()
    services.qolaba.plan(Step.POLL, Reply(failed(str(job.body["image"]))))
    with pytest.raises(ControlStackError, match="1 validation error") as caught:
        account.fetch(case, started.job_id) if fetched else account.run(case)
    assert not leaked(services, account, str(caught.value), json.dumps(started.info))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("cut", CUTS)
def test_a_key_that_lies_across_a_cut_is_not_told_by_half(
    account: Account, services: Services, case: Case, cut: str, caplog: pytest.LogCaptureFixture
) -> None:
    place, reply = CUTS[cut]
    caplog.set_level(logging.DEBUG, "controlstack")
    double = services.of(case.endpoint.service)
    for number, key in enumerate(account.credentials(case).reveal()):
        double.plan(Step.SUBMIT, reply("x" * (place - len(key) + 1) + key))
        with pytest.raises(ControlStackError) as caught:
            account.run(case, request=replace(case.request, seed=number))
        written = [file.read_bytes().decode(errors="replace") for file in account.journal.file.parent.iterdir()]
        assert not [text for text in (str(caught.value), caplog.text, *written) if key[:8] in text]
