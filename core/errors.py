"""Every error that the pack raises on purpose. Each message says what happened, with which value, and what to do next.

ControlStackError
  InvalidRequest          the target cannot run the request; has the list of problems
  UnknownChoice           an input holds a value that is not among its choices
  ModelNotFound           a model file is missing
  ModelUnreadable         a model file is broken, or belongs to another model family
  DetectorUnavailable     a detector needs a package that is not installed
  OutOfMemory             the device has too little memory
  GenerationFailed        the engine ran, but its result is unusable
  CredentialsMissing      no key is set for a service
  ServiceUnreachable      a service cannot be reached; nothing paid was sent
  OutcomeUnknown          the connection broke after a paid request may have arrived
  JobUnfinished           a job is still running at its deadline
  JournalUnusable         the journal of paid jobs cannot be read or written
  ServiceError            a service refused a request, or reported that a job failed
    RateLimited           a service asks to wait before the next request
  ResultRefused           a result is unsafe, too large or not an image
    ResultGone            the link to a result has expired
"""

from __future__ import annotations

from collections.abc import Sequence

from .problems import Problem


class ControlStackError(Exception):
    """Base class of all errors of the pack."""


class InvalidRequest(ControlStackError):
    """The target cannot run the request. `problems` holds each reason as a whole sentence."""

    def __init__(self, target: str, problems: Sequence[Problem]) -> None:
        self.target = target
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            text = f"Invalid input. {self.problems[0]}"
        else:
            lines = "\n".join(f"- {problem}" for problem in self.problems)
            text = f"Invalid input. There are {len(self.problems)} problems:\n{lines}"
        super().__init__(text)


class UnknownChoice(ControlStackError):
    """An input holds a value that is not among its choices, such as one of another version."""

    def __init__(self, field: str, value: object, choices: Sequence[str]) -> None:
        super().__init__(f"{field} is '{value}'. It must be one of {', '.join(choices)}.")


class ModelNotFound(ControlStackError):
    """A model, ControlNet or adapter file is missing."""


class ModelUnreadable(ControlStackError):
    """A model file is broken, or belongs to another model family than the one it is used with."""


class DetectorUnavailable(ControlStackError):
    """A detector needs a package that is not installed."""


class OutOfMemory(ControlStackError):
    """The device has too little memory for the request."""


class GenerationFailed(ControlStackError):
    """The engine ran, but its result is unusable."""


class ServiceError(ControlStackError):
    """A remote service refused a request, or reported that a job failed."""


class RateLimited(ServiceError):
    """A service has too many requests and refused this one. `wait` is the seconds it asks to wait, if it says so."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class CredentialsMissing(ControlStackError):
    """No key is set for a service and profile."""


class ServiceUnreachable(ControlStackError):
    """A service, its results or the user's image host cannot be reached, or a variable that names one is wrong.

    Nothing that costs money was sent: trying again is safe and free.
    """


class OutcomeUnknown(ControlStackError):
    """The connection broke after a paid request may have reached the service. The request is not repeated."""


class JobUnfinished(ControlStackError):
    """A job did not end before its deadline. It can be fetched later by its id."""


class ResultRefused(ControlStackError):
    """A result cannot be used: its address is not allowed, or it is too large or not an image."""


class ResultGone(ResultRefused):
    """The link to a result has expired."""


class JournalUnusable(ControlStackError):
    """The journal of paid jobs cannot be read or written."""
