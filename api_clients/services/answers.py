"""Readers for the answers of services, whose spellings and shapes differ from answer to answer."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ...core.errors import OutcomeUnknown, RateLimited, ServiceError
from ..credentials.specs import in_terminal
from ..http.messages import Answer, is_array, is_object, seconds_to_wait

# A later poll may succeed: time-out, conflict, too early, too many requests.
_TRANSIENT = frozenset({408, 409, 425, 429})
_HINTS: Mapping[int, str] = {
    401: f"Check the key of this profile in ComfyUI under Settings, ControlStack, or run {in_terminal('list')}.",
    402: "Add credits to the account at the service, then queue the graph again.",
    403: "Check that the key, its plan and its project may use this model.",
    404: "The model, the job or this endpoint does not exist or no longer exists. Check the ids.",
    413: "The images are too large for one request. Use smaller images.",
}
# A wrong match here is harmless: the job is polled again and not paid for again.
_ACCOUNT = re.compile(
    r"\bkeys?\b|api_?key|credit|subscri|\bplans?\b|limit exceeded|balance|payment|billing|quota|upgrade", re.IGNORECASE
)
_ACCOUNT_HINT = "Check the key, its plan and its credits."
_LONGEST_TEXT = 500


def field(answer: Answer, name: str) -> Any:
    """A top-level field of the JSON, None if it is missing."""
    return None if answer.json is None else answer.json.get(name)


def words(value: object) -> str:
    """The text of a field that may be a string, a list, or an object of lists (Laravel's validation errors)."""
    if is_object(value):
        return "; ".join(f"{name}: {words(item)}" for name, item in value.items() if words(item))
    if is_array(value):
        return ", ".join(filter(None, map(words, value)))
    return "" if value is None or value is True or value is False else str(value).strip()


def message(answer: Answer, names: Iterable[str]) -> str:
    """The message of an answer: its named JSON fields in order, otherwise the text of the page without tags."""
    if answer.json is not None:
        said = dict.fromkeys(filter(None, (words(answer.json.get(name)) for name in names)))
        return answer.redact(" ".join(said))[:_LONGEST_TEXT]
    page = re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", answer.text[: 20 * _LONGEST_TEXT])
    return answer.redact(" ".join(html.unescape(page).split()))[:_LONGEST_TEXT]


def strings(value: object) -> tuple[str, ...]:
    """The result references in a field that may be "", a string, a list, or an object with `url`; no thumbnails."""
    if isinstance(value, str):
        return (value.strip(),) if value.strip() else ()
    if is_object(value):
        return strings(value.get("result")) or strings(value.get("url"))
    if is_array(value):
        return tuple(found for item in value for found in strings(item))
    return ()


def identifier(value: object) -> str:
    """An id that may be a number or a string; "" if there is none."""
    return "" if value is None or isinstance(value, (bool, Mapping, list)) else str(value).strip()


def worth_asking_again(answer: Answer) -> bool:
    """Whether a later poll may succeed after this HTTP status."""
    return answer.status in _TRANSIENT or answer.status >= 500


def is_about_account(said: str) -> bool:
    """Whether a message is about the key, the plan or the credits, which says nothing about a job."""
    return bool(_ACCOUNT.search(said))


def refusal(target: str, answer: Answer, said: str, *, account: bool = False) -> ServiceError:
    """The error for a refused request. `said` is the service's reason; `account`: it is about the account.

    Says what the service answered, and what to do about it if the status or the reason tells.
    """
    text = (
        f"{target} refused the request: {_sentence(said)}"
        if said
        else f"{target} refused the request without a reason."
    )
    if answer.status >= 400 or not said:
        text += f" The HTTP status was {answer.status}."
    if answer.status == 429:
        return RateLimited(text, seconds_to_wait(answer, said))
    hint = _HINTS.get(answer.status) or (_ACCOUNT_HINT if account else "")
    return ServiceError(f"{text} {hint}" if hint else text)


def _sentence(said: str) -> str:
    return said if said.endswith((".", "!", "?")) else f"{said}."


def unclear(target: str, answer: Answer, said: str) -> OutcomeUnknown:
    """The error for an answer to a paid request that leaves open whether the job was accepted."""
    what = f": {said}" if said else ""
    return OutcomeUnknown(
        f"{target} answered HTTP {answer.status} without a job id{what}. The request may have been accepted and "
        "charged, so it is not repeated. Check the account at the service before you queue it again."
    )
