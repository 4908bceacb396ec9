"""Every error the pack raises on purpose. Each message says what happened, with which value, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import problems as problem_kinds


@dataclass(frozen=True)
class Problem:
    """One thing that keeps a request from running."""

    field: str
    value: str
    limit: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field} is {self.value}: {self.limit}. {self.remedy}"


class ControlStackError(Exception):
    """Base of all of them."""


class InvalidRequest(ControlStackError):
    """What was asked cannot be done by its target; `problems` lists every reason."""

    def __init__(self, target: str, problems: Sequence[Problem] | Sequence[problem_kinds.Problem]) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            text = f"{target} cannot use this. {self.problems[0]}"
        else:
            lines = "\n".join(f"- {problem}" for problem in self.problems)
            text = f"{target} cannot use this, for {len(self.problems)} reasons:\n{lines}"
        super().__init__(text)


class UnknownChoice(ControlStackError):
    """A combo holds a value that this version does not know."""

    def __init__(self, field: str, value: object, choices: Sequence[str]) -> None:
        super().__init__(f"{field} is '{value}': it must be one of {', '.join(choices)}. Choose one of these.")


class ModelNotFound(ControlStackError):
    """A model, net or adapter file is missing."""


class ModelUnreadable(ControlStackError):
    """A model file is there but broken, or of another family than it is used for."""


class DetectorUnavailable(ControlStackError):
    """A detector needs a package that is not installed."""


class OutOfMemory(ControlStackError):
    """The device has too little memory for the request."""


class GenerationFailed(ControlStackError):
    """The engine ran but its result cannot be used."""


class ServiceError(ControlStackError):
    """A remote service refused a request, or reported that a job failed."""


class RateLimited(ServiceError):
    """A service takes no request now and did not take this one; `wait` is the seconds it asks to wait, if it says."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class CredentialsMissing(ControlStackError):
    """No key is set for a service and profile."""


class ServiceUnreachable(ControlStackError):
    """There is no way to a service, its results or the user's image host now, or a variable that names one is wrong.

    Of what costs money nothing was sent: trying again is safe and charges nothing.
    """


class OutcomeUnknown(ControlStackError):
    """The connection broke after a paid request may have reached the service: it is not repeated."""


class JobUnfinished(ControlStackError):
    """A job did not end before its deadline; it can be fetched later by its id."""


class ResultRefused(ControlStackError):
    """A result could not be used: address not allowed, too large, or not an image."""


class ResultGone(ResultRefused):
    """The address holds nothing any more: the link has expired."""


class JournalUnusable(ControlStackError):
    """The journal of paid jobs cannot be read or written."""
