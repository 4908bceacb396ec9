"""Sending calls to a service: what may be sent again is, what costs money is sent at most once.

Every request runs in a thread of its own, and the caller's thread looks several times a second whether to stop. There
is one session per call: no connection is shared between threads, and no paid call goes out on a connection that the
other side may have closed meanwhile.
"""

from __future__ import annotations

import email.utils
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..core.errors import OutcomeUnknown, RateLimited, ServiceError, ServiceUnreachable
from .endpoint import Endpoint
from .messages import Answer, Call, number, seconds_to_wait
from .waiting import Clock, Stop, backoff, interruptible, never, pause

if TYPE_CHECKING:
    import requests

USER_AGENT = "ControlStack"
SHORTEST_WAIT, LONGEST_WAIT = 0.5, 60.0
TEXT_CHARACTERS = 20_000
BAD_PROXY = (  # never quoted: it may hold a login
    "the proxy's address, in ALL_PROXY, HTTPS_PROXY, HTTP_PROXY or the system's settings, is not one to connect to; "
    "write it like http://host:port or socks5h://host:port"
)


@dataclass(frozen=True)
class Limits:
    """Seconds to connect, to wait for an answer, the same for a paid call (which may generate before it answers), and
    to go on trying an unpaid call; bytes an answer may have."""

    connect: float = 10.0
    read: float = 60.0
    paid_read: float = 600.0
    patience: float = 90.0
    answer_bytes: int = 128 * 2**20


class Abandoned(Exception):
    """The caller stopped while a paid call was on its way; `reason` is what its stop-callback raised."""

    def __init__(self, reason: BaseException) -> None:
        self.reason = reason
        super().__init__("stopped while a paid call was on its way")


def service_url(endpoint: Endpoint[Any], environ: Mapping[str, str] | None = None) -> str:
    """The endpoint's base URL or the one that its variable puts in its place, without a slash at the end.

    Raises ServiceUnreachable for a variable that is no address.
    """
    value = (os.environ if environ is None else environ).get(endpoint.url_variable, "").strip()
    if not value:
        return endpoint.base_url.rstrip("/")
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good, parts = False, urlsplit("")
    plain = value.isascii() and value.isprintable() and " " not in value
    if not good or not plain or "@" in parts.netloc or parts.query or parts.fragment:
        rule = "it must be http:// or https://, a host and at most a port and a path, without a key in it"
        raise ServiceUnreachable(f"{endpoint.url_variable} is not an address: {rule}. Correct or unset it.")
    return value.rstrip("/")


def told_wait(answer: Answer, wall: float) -> float | None:
    """The longest wait in seconds that an answer asks for, None if it asks for none.

    Read from the header Retry-After (seconds or a date) and from `retry_after` or `remainingSeconds` of the body
    (docs/services/modelslab.md 3.4, docs/services/scenario.md 8).
    """
    header = next((value for name, value in answer.headers.items() if name.lower() == "retry-after"), "")
    date = email.utils.parsedate_tz(header) if number(header) is None else None
    waits = (number(header), email.utils.mktime_tz(date) - wall if date else None, seconds_to_wait(answer))
    return max((max(wait, 0.0) for wait in waits if wait is not None), default=None)


class Transport:
    """The way to one service for one job. Not shared between threads.

    `authorize` puts the credentials into a call, `told` takes them out of a text, `notify` is told about waits.
    """

    def __init__(
        self,
        base_url: str,
        authorize: Callable[[Call], Call],
        *,
        told: Callable[[str], str] = str,
        should_stop: Stop = never,
        notify: Callable[[str], None] | None = None,
        limits: Limits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.base_url = base_url
        self.host = urlsplit(base_url).netloc
        self.clock = clock or Clock()
        self.limits = limits or Limits()
        self._authorize, self._told = authorize, told
        self._should_stop = should_stop
        self._notify = notify or (lambda _: None)

    def ask(
        self, call: Call, *, patience: float | None = None, settled: Callable[[Answer], bool] | None = None
    ) -> Answer:
        """The answer to an unpaid call, sent again after network errors, 408, 429 and 5xx for `patience` seconds.

        An answer for which `settled` holds is not asked for again, whatever its status. When patience ends, the last
        answer is returned; ServiceUnreachable is raised if there was none.
        """
        assert not call.paid
        patience = self.limits.patience if patience is None else patience
        started, waits = self.clock.monotonic(), backoff(0)
        while True:
            told: float | None = None
            answer: Answer | None = None
            reason = ""
            try:
                answer = interruptible(lambda: self._exchange(call, self.limits.read), self._should_stop, self._longest)
                if not worth_repeating(answer.status) or (settled and settled(answer)):
                    return answer
                told = told_wait(answer, self.clock.wall())
                reason = f"HTTP {answer.status}"
            except (_NotSent, _Broken, TimeoutError) as failure:
                reason = str(failure)
            wait = next(waits) if told is None else min(max(told, SHORTEST_WAIT), LONGEST_WAIT)
            if self.clock.monotonic() - started + wait > patience:
                if answer is not None:
                    return answer
                safe = "This call costs nothing and trying again is safe"
                raise ServiceUnreachable(f"{self.host} cannot be reached: {reason}. {safe}.") from None
            self._notify(f"{self.host}: {reason}; asking again in {wait:.0f} s")
            pause(wait, self.clock, self._should_stop)

    def pay(
        self,
        call: Call,
        *,
        patience: float,
        late: Callable[[Callable[[], Answer]], None],
        heartbeat: Stop = never,
        busy: Callable[[Answer], RateLimited | None] = lambda _: None,
    ) -> Answer:
        """The answer to a call that costs money, sent once; only after a refusal for too many requests it is sent
        again, when the service says so and for `patience` seconds. That is HTTP 429, or what `busy` reads as one.

        Raises ServiceUnreachable where nothing was sent, OutcomeUnknown where it may have arrived but no answer came,
        and Abandoned where the stop-callback raised meanwhile. In the last case, and after a timeout, `late` gets the
        outcome (see `interruptible`). `heartbeat` is called with the stop-callback.
        """
        assert call.paid

        def beat() -> None:
            heartbeat()
            self._should_stop()

        def check() -> None:
            try:
                beat()
            except BaseException as reason:
                raise Abandoned(reason) from None

        started, waits = self.clock.monotonic(), backoff(2)
        while True:
            self._should_stop()
            try:
                answer = interruptible(
                    lambda: self._outcome(call), check, self.limits.connect + self.limits.paid_read, late
                )
            except TimeoutError as failure:
                raise self._unknown(str(failure)) from None
            except KeyboardInterrupt as reason:
                raise Abandoned(reason) from None
            limited = busy(answer)
            if answer.status != 429 and limited is None:
                return answer
            told = told_wait(answer, self.clock.wall())
            told = limited.wait if told is None and limited else told
            wait = next(waits) if told is None else max(told, SHORTEST_WAIT)
            if self.clock.monotonic() - started + wait > patience:
                return answer
            self._notify(f"{self.host} takes no more requests now; sending the request again in {wait:.0f} s")
            pause(wait, self.clock, beat)

    @property
    def _longest(self) -> float:
        return self.limits.connect + 2 * self.limits.read

    def _outcome(self, call: Call) -> Answer:
        try:
            return self._exchange(call, self.limits.paid_read)
        except _NotSent as failure:
            known = "Nothing was sent and nothing charged"
            raise ServiceUnreachable(f"{self.host} cannot be reached: {failure}. {known}; try again.") from None
        except _Broken as failure:
            raise self._unknown(str(failure)) from None

    def _unknown(self, reason: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"The connection to {self.host} broke after the request was sent: {reason}. It may have been accepted and "
            f"charged."
        )

    def _exchange(self, call: Call, read: float) -> Answer:
        """One request and its whole answer. Raises _NotSent or _Broken; ServiceError for a redirect."""
        import requests

        assert call.path.startswith("/")
        call = self._authorize(call)
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"}
        body = None
        if call.body is not None:
            body = _Body(json.dumps(call.body, allow_nan=False).encode())
            headers["Content-Type"] = "application/json"
        try:
            with requests.Session() as session:
                session.trust_env = not is_loopback_name(urlsplit(self.base_url).hostname or "")
                response = session.request(
                    call.method,
                    self.base_url + call.path,
                    params=dict(call.query),
                    data=body,
                    headers={**headers, **call.headers},
                    timeout=(self.limits.connect, read),
                    allow_redirects=False,
                    auth=_as_it_is,
                    stream=True,
                )
                content = _read(response, self.limits.answer_bytes)
        except (requests.RequestException, OSError, ValueError) as error:
            reason = _reason(error, self.limits.connect, read)
            raise (_Broken if body is None or body.started else _NotSent)(reason) from None
        if 300 <= response.status_code < 400:
            raise ServiceError(
                f"{self.host} answered with a redirect (HTTP {response.status_code}), which is not followed because "
                f"the key would go along. Check the service's address."
            )
        return _answer(response, content, self._told)


class _NotSent(Exception):
    """No byte of the body left."""


class _Broken(Exception):
    """The connection failed with the body on its way or gone."""


class _Body:
    """A request's body that knows whether any of it was handed to the connection.

    Connecting, TLS and proxies come before that, so their failures are told from those of a request under way.
    """

    def __init__(self, data: bytes) -> None:
        self.started = False
        self._data, self._position = data, 0

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[bytes]:
        yield self.read()

    def read(self, size: int = -1) -> bytes:
        self.started = True
        end = len(self._data) if size < 0 else self._position + size
        part = self._data[self._position : end]
        self._position += len(part)
        return part


def is_loopback_name(host: str) -> bool:
    """Whether the host is this machine, where no proxy helps."""
    return host == "localhost" or host.endswith(".localhost") or host == "::1" or host.startswith("127.")


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Stands where requests would else look for a login in ~/.netrc and overwrite the header."""
    return request


def worth_repeating(status: int) -> bool:
    """Whether an unpaid call with this HTTP status may do better later."""
    return status in (408, 429) or status >= 500


def _read(response: requests.Response, limit: int) -> bytes:
    parts, size = [], 0
    for part in response.iter_content(2**16):
        parts.append(part)
        size += len(part)
        if size > limit:
            raise OSError(f"the answer is larger than {limit // 2**20} MiB")
    promised = response.headers.get("Content-Length", "")
    if promised.isdecimal() and not response.headers.get("Content-Encoding") and size < int(promised):
        raise OSError(f"the answer ended after {size} of {promised} bytes")
    return b"".join(parts)


def _answer(response: requests.Response, content: bytes, told: Callable[[str], str]) -> Answer:
    text = content.decode("utf-8", errors="replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    json_object = value if isinstance(value, dict) else None
    return Answer(response.status_code, json_object, told(text)[:TEXT_CHARACTERS], response.headers, told)


def _reason(error: BaseException, connect: float, read: float) -> str:
    import requests

    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {connect:g} s"
    if isinstance(error, requests.ReadTimeout):
        return f"no answer within {read:g} s"
    if isinstance(error, requests.exceptions.InvalidURL) or not isinstance(error, OSError):
        return BAD_PROXY  # the service's own address was judged before
    root = _root(error)
    text = getattr(root, "strerror", None) or str(root) or type(root).__name__
    if "timed out" in text:
        return f"it fell silent for {read:g} s"
    return text.strip().rstrip(".")[:300]


def _root(error: BaseException) -> BaseException:
    for _ in range(10):
        inner = [getattr(error, "reason", None), error.__cause__, *reversed(error.args)]
        deeper = next((item for item in inner if isinstance(item, BaseException)), None)
        if deeper is None:
            break
        error = deeper
    return error
