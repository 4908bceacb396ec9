"""For every endpoint: a request, what connects it to its double, and how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from controlstack.api_clients.credentials.store import Credentials, find_credentials
from controlstack.api_clients.jobs import context
from controlstack.api_clients.jobs.context import Caller, Settings
from controlstack.api_clients.jobs.journal import Entry, Journal
from controlstack.api_clients.jobs.results import JobResult
from controlstack.api_clients.jobs.run import RemoteRequest, RunMode, fetch_job, image_host_for, run_job
from controlstack.api_clients.registry import ENDPOINTS
from controlstack.api_clients.services.endpoint import Endpoint
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest
from controlstack.tests.api_clients.scripted_service import QUICK, QuickClock, entries, no_resolver
from controlstack.tools.fake_services.running import double_class, service_name

PICTURE = torch.linspace(0, 1, 256 * 256 * 3).reshape(1, 256, 256, 3)
CANNY = ControlUnit(Modality.CANNY, PICTURE)
REQUEST = GenerationRequest(prompt="a lighthouse at dawn", width=256, height=256, seed=7, controls=(CANNY,))


@dataclass(frozen=True)
class Case:
    """One endpoint with a request that it takes."""

    endpoint: Endpoint[Any]
    request: GenerationRequest = REQUEST
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.endpoint.target


# What an endpoint may be given, the most usual first.
REQUESTS = {
    "control": REQUEST,
    "init_image": replace(REQUEST, controls=(), init_image=PICTURE, denoise=0.6),
    "prompt": replace(REQUEST, controls=()),
}


def usual_case(endpoint: Endpoint[Any]) -> Case:
    """The endpoint with the first of REQUESTS that it accepts, or with the one that its double names."""
    named = double_class(endpoint).tested_with.get(type(endpoint).__name__)
    for request in [REQUESTS[named]] if named else REQUESTS.values():
        if not endpoint.check(request, endpoint.options_type()):
            return Case(endpoint, request)
    raise AssertionError(f"{endpoint.target} accepts none of {', '.join(REQUESTS)}. Add one to REQUESTS.")


CASES = tuple(map(usual_case, ENDPOINTS))
ONE_OF_EACH_SERVICE = tuple({service_name(case.endpoint): case for case in reversed(CASES)}.values())[::-1]
QOLABA = tuple(case for case in CASES if case.endpoint.service == "qolaba")


class Account:
    """A user of the doubles in a folder of their own: journal, keys and clock."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.journal = Journal(folder / "user" / "__controlstack" / "jobs.sqlite")
        self.environ = dict(environment)
        self.clock = QuickClock()
        self._file = folder / "no_credentials.toml"

    def settings(self, **changes: Any) -> Settings:
        base = Settings(limits=QUICK, clock=self.clock, environ=self.environ, resolver=no_resolver)
        return replace(base, **changes)

    def run(self, case: Case, **arguments: Any) -> JobResult:
        """Run the case's request.

        `options` and `request` replace those of the case. The other `arguments` are fields of the values that run_job
        takes.
        """

        def taken(*names: str) -> dict[str, Any]:
            return {name: arguments.pop(name) for name in names if name in arguments}

        options = case.endpoint.options_type(**{**case.options, **arguments.pop("options", {})})
        mode, caller = RunMode(**taken("force_new", "async_only")), Caller(**taken("on_report", "should_stop"))
        settings = arguments.pop("settings", None) or self.settings()
        remote = RemoteRequest(case.endpoint, arguments.pop("request", case.request), options)
        assert not arguments
        host = image_host_for(case.endpoint, options, self._file, self.environ)
        return run_job(remote, context.Account(self.credentials(case), self.journal, host), mode, caller, settings)

    def fetch(self, case: Case, job_id: str) -> JobResult:
        account = context.Account(self.credentials(case), self.journal)
        return fetch_job(case.endpoint, job_id, account, settings=self.settings())

    def credentials(self, case: Case) -> Credentials:
        return find_credentials(case.endpoint.credential_spec, "default", self._file, self.environ)

    @property
    def entries(self) -> list[Entry]:
        return entries(self.journal)
