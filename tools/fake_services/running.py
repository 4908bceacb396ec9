"""All doubles at once, and what points the pack at them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from ...api_clients.registry import ENDPOINTS
from .bucket import ACCESS_KEY, SECRET_KEY, BucketDouble
from .double import Double
from .modelslab import ModelsLabDouble
from .qolaba import QolabaDouble
from .scenario import ScenarioDouble


class Services:
    """The doubles, on free ports or on four in a row from `first_port`. Raises OSError for a port that is taken."""

    def __init__(self, first_port: int = 0) -> None:
        ports = iter(range(first_port, first_port + 4) if first_port else (0, 0, 0, 0))
        with contextlib.ExitStack() as started:
            self.modelslab = started.enter_context(contextlib.closing(ModelsLabDouble(next(ports))))
            self.scenario = started.enter_context(contextlib.closing(ScenarioDouble(next(ports))))
            self.qolaba = started.enter_context(contextlib.closing(QolabaDouble(next(ports))))
            self.bucket = started.enter_context(contextlib.closing(BucketDouble(next(ports))))
            self.close = started.pop_all().close

    @property
    def doubles(self) -> tuple[Double, ...]:
        return self.modelslab, self.scenario, self.qolaba

    def of(self, service: str) -> Double:
        """The double that plays an endpoint's `service`. Raises KeyError where there is none."""
        places = {endpoint.service: endpoint.url_variable for endpoint in ENDPOINTS}
        return {double.url_variable: double for double in self.doubles}[places[service]]

    @property
    def addresses(self) -> dict[str, str]:
        """The variables that lead the pack here."""
        return {double.url_variable: double.base_url for double in self.doubles}

    @property
    def environment(self) -> Mapping[str, str]:
        """Everything that a process needs to use the doubles: addresses, fake keys and the image host."""
        keys = {name: value for double in self.doubles for name, value in double.variables.items()}
        return {**self.addresses, **keys, **self.bucket.variables}

    @property
    def keys(self) -> list[str]:
        """Every value that must not show anywhere."""
        return [value for double in self.doubles for value in double.variables.values()] + [ACCESS_KEY, SECRET_KEY]

    def reset(self) -> None:
        """As if just started; what was uploaded stays."""
        for double in self.doubles:
            double.reset()
        self.bucket.reset()


@contextlib.contextmanager
def running_services() -> Iterator[Services]:
    """All doubles on free ports, closed at the end."""
    services = Services()
    with contextlib.closing(services):
        yield services
