"""For every endpoint: a request, what connects it to its double, and how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from controlstack.api_clients.endpoint import Endpoint
from controlstack.api_clients.image_host import image_host_for
from controlstack.api_clients.job import Settings
from controlstack.api_clients.journal import Entry, Journal
from controlstack.api_clients.registry import find_endpoint
from controlstack.api_clients.run import JobResult, fetch_job, run_job
from controlstack.api_clients.store import Credentials, find_credentials
from controlstack.core.modality import Modality
from controlstack.core.request import ControlUnit, GenerationRequest
from controlstack.tests.api_clients.scripted_service import QUICK, QuickClock, entries, no_resolver

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


CASES = (
    Case(find_endpoint("ModelsLab")),
    Case(find_endpoint("ModelsLabEnterprise")),
    Case(find_endpoint("Scenario")),
    Case(find_endpoint("QolabaControlNet")),
    Case(find_endpoint("QolabaImageToImage"), replace(REQUEST, controls=(), init_image=PICTURE, denoise=0.6)),
)


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
        """The case's request, with `arguments` for run_job; `options` and `request` stand in for the case's."""
        arguments.setdefault("settings", self.settings())
        options = case.endpoint.options_type(**{**case.options, **arguments.pop("options", {})})
        return run_job(
            case.endpoint,
            arguments.pop("request", case.request),
            options,
            credentials=self.credentials(case),
            journal=self.journal,
            host=image_host_for(case.endpoint, options, self._file, self.environ),
            **arguments,
        )

    def fetch(self, case: Case, job_id: str) -> JobResult:
        credentials, settings = self.credentials(case), self.settings()
        return fetch_job(case.endpoint, job_id, credentials=credentials, journal=self.journal, settings=settings)

    def credentials(self, case: Case) -> Credentials:
        return find_credentials(case.endpoint.service, "default", self._file, self.environ)

    @property
    def entries(self) -> list[Entry]:
        return entries(self.journal)
