"""All doubles at once, and what points the pack at them.

A service has one name, which its document in docs/services, its module or folder in api_clients/services and the module
of its double here share.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from ...api_clients.registry import ENDPOINTS
from ...api_clients.services.endpoint import Endpoint
from .bucket import ACCESS_KEY, SECRET_KEY, BucketDouble
from .double import Double
from .modelslab import ModelsLabDouble
from .qolaba import QolabaDouble
from .scenario import ScenarioDouble

_Kind = TypeVar("_Kind", bound=Double)


def service_name(endpoint: Endpoint[Any]) -> str:
    """The name of the module or folder in api_clients/services where the endpoint is declared."""
    _, _, below = type(endpoint).__module__.partition(".services.")
    return below.partition(".")[0]


def double_class(endpoint: Endpoint[Any]) -> type[Double]:
    """The double of an endpoint's service. Raises ImportError if there is no module for it here."""
    module = importlib.import_module(f".{service_name(endpoint)}", __package__)
    own = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    (double,) = (kind for kind in own if issubclass(kind, Double))
    return double


def double_classes() -> list[type[Double]]:
    """The double of every service, in the order of the registry."""
    return list(dict.fromkeys(map(double_class, ENDPOINTS)))


class Services:
    """The doubles, on free ports or on ports in a row from `first_port`: the services' in order, then the bucket's.

    Raises OSError for a port that is taken.
    """

    def __init__(self, first_port: int = 0) -> None:
        kinds = double_classes()
        ports = iter(range(first_port, first_port + len(kinds) + 1) if first_port else [0] * (len(kinds) + 1))
        with contextlib.ExitStack() as started:
            self.doubles = tuple(started.enter_context(contextlib.closing(kind(next(ports)))) for kind in kinds)
            self.bucket = started.enter_context(contextlib.closing(BucketDouble(next(ports))))
            self.close = started.pop_all().close
        self.modelslab = self._find(ModelsLabDouble)
        self.scenario = self._find(ScenarioDouble)
        self.qolaba = self._find(QolabaDouble)

    def _find(self, kind: type[_Kind]) -> _Kind:
        return next(double for double in self.doubles if isinstance(double, kind))

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
