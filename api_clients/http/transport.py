"""Sending calls to a service. Unpaid calls are retried; a paid call is sent at most once.

Each request runs in its own thread, while the caller's thread checks several times a second whether to stop. Each call
opens its own connection: threads share none, and no paid call goes out on a connection that the service may have closed
in the meantime.
"""

from __future__ import annotations

import email.utils
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ...core.errors import OutcomeUnknown, RateLimited, ServiceError, ServiceUnreachable
from .messages import Answer, Call, is_object, number, seconds_to_wait
from .waiting import Clock, StopCheck, backoff, interruptible, never_stop, pause

if TYPE_CHECKING:
    import requests

USER_AGENT = "ControlStack"
SHORTEST_WAIT, LONGEST_WAIT = 0.5, 60.0
TEXT_CHARACTERS = 20_000
BAD_PROXY = (  # the address is not quoted: it may contain a password
    "the proxy address in ALL_PROXY, HTTPS_PROXY, HTTP_PROXY or the system settings is not valid; "
    "write it like http://host:port or socks5h://host:port"
)


@dataclass(frozen=True)
class Limits:
    """Limits of one call.

    `connect`: seconds to connect. `read`: seconds of silence while an unpaid call is answered. `paid_read`: the same
    for a paid call, which a service may answer only after it has generated. `patience`: seconds during which an unpaid
    call is retried. `answer_bytes`: maximum size of an answer.
    """

    connect: float = 10.0
    read: float = 60.0
    paid_read: float = 600.0
    patience: float = 90.0
    answer_bytes: int = 128 * 2**20


class Abandoned(Exception):
    """The caller stopped during a paid call. `reason` is what its stop check raised."""

    def __init__(self, reason: BaseException) -> None:
        self.reason = reason
        super().__init__("stopped during a paid call")


def service_url(base_url: str, variable: str, environ: Mapping[str, str] | None = None) -> str:
    """The base URL of a service, without a trailing slash: the environment variable's if it is set, else `base_url`.

    Raises ServiceUnreachable if the variable is not a plain http or https URL.
    """
    value = (os.environ if environ is None else environ).get(variable, "").strip()
    if not value:
        return base_url.rstrip("/")
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good, parts = False, urlsplit("")
    plain = value.isascii() and value.isprintable() and " " not in value
    if not good or not plain or "@" in parts.netloc or parts.query or parts.fragment:
        raise ServiceUnreachable(
            f"{variable} is not a valid address. It must consist of http:// or https://, a host, and optionally a port "
            f"and a path, without a key in it. Correct or unset it."
        )
    return value.rstrip("/")


def requested_wait(answer: Answer, wall: float) -> float | None:
    """Seconds that the answer asks to wait, None if it does not ask.

    Read from Retry-After (seconds or a date; `wall` is the time now) and from `retry_after` or `remainingSeconds` in
    the body (docs/services/modelslab.md 3.4, docs/services/scenario.md 8). The longest of them counts.
    """
    header = next((value for name, value in answer.headers.items() if name.lower() == "retry-after"), "")
    date = email.utils.parsedate_tz(header) if number(header) is None else None
    waits = (number(header), email.utils.mktime_tz(date) - wall if date else None, seconds_to_wait(answer))
    return max((max(wait, 0.0) for wait in waits if wait is not None), default=None)


class Transport:
    """Sends calls to one service on behalf of one job. Not to be shared between threads.

    `authorize` adds the credentials to a call, `redact` removes them from a text, `notify` receives a message before
    each wait.
    """

    def __init__(
        self,
        base_url: str,
        authorize: Callable[[Call], Call],
        *,
        redact: Callable[[str], str] = str,
        should_stop: StopCheck = never_stop,
        notify: Callable[[str], None] | None = None,
        limits: Limits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.base_url = base_url
        self.host = urlsplit(base_url).netloc
        self.clock = clock or Clock()
        self.limits = limits or Limits()
        self._authorize, self._redact = authorize, redact
        self._should_stop = should_stop
        self._notify: Callable[[str], None] = notify or (lambda _: None)

    def ask(
        self, call: Call, *, patience: float | None = None, settled: Callable[[Answer], bool] | None = None
    ) -> Answer:
        """The answer to an unpaid call. Network errors, 408, 429 and 5xx are retried for `patience` seconds.

        An answer for which `settled` returns True is not retried, whatever its status. When the time is over, the last
        answer is returned. Raises ServiceUnreachable if there was none.
        """
        assert not call.paid
        patience = self.limits.patience if patience is None else patience
        started, waits = self.clock.monotonic(), backoff(0)
        while True:
            asked: float | None = None
            answer: Answer | None = None
            reason = ""
            try:
                answer = interruptible(lambda: self._exchange(call, self.limits.read), self._should_stop, self._longest)
                if not worth_repeating(answer.status) or (settled and settled(answer)):
                    return answer
                asked = requested_wait(answer, self.clock.wall())
                reason = f"HTTP {answer.status}"
            except (_NotSent, _Interrupted, TimeoutError) as failure:
                reason = str(failure)
            wait = next(waits) if asked is None else min(max(asked, SHORTEST_WAIT), LONGEST_WAIT)
            if self.clock.monotonic() - started + wait > patience:
                if answer is not None:
                    return answer
                raise ServiceUnreachable(
                    f"{self.host} cannot be reached: {reason}. This call costs nothing, so trying again is safe."
                ) from None
            self._notify(f"{self.host}: {reason}; asking again in {wait:.0f} s")
            pause(wait, self.clock, self._should_stop)

    def pay(
        self,
        call: Call,
        *,
        patience: float,
        on_late: Callable[[Callable[[], Answer]], None],
        heartbeat: Callable[[], None] = never_stop,
        busy: Callable[[Answer], RateLimited | None] = lambda _: None,
    ) -> Answer:
        """The answer to a paid call, which is sent once.

        Only a rate limit is retried: HTTP 429, or an answer in which `busy` recognizes one. The service did not accept
        such a call. It is retried at the time the service asks for, for up to `patience` seconds.

        Raises ServiceUnreachable if nothing was sent, OutcomeUnknown if the call may have arrived but no answer came,
        and Abandoned if the stop check raised during the call. After Abandoned and after a timeout, `on_late` receives
        the outcome (see `interruptible`). `heartbeat` is called before each stop check.
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
                    lambda: self._outcome(call), check, self.limits.connect + self.limits.paid_read, on_late
                )
            except TimeoutError as failure:
                raise self._unknown(str(failure)) from None
            except KeyboardInterrupt as reason:
                raise Abandoned(reason) from None
            limited = busy(answer)
            if answer.status != 429 and limited is None:
                return answer
            asked = requested_wait(answer, self.clock.wall())
            asked = limited.wait if asked is None and limited else asked
            wait = next(waits) if asked is None else max(asked, SHORTEST_WAIT)
            if self.clock.monotonic() - started + wait > patience:
                return answer
            self._notify(f"{self.host} accepts no more requests now; sending the request again in {wait:.0f} s")
            pause(wait, self.clock, beat)

    @property
    def _longest(self) -> float:
        return self.limits.connect + 2 * self.limits.read

    def _outcome(self, call: Call) -> Answer:
        try:
            return self._exchange(call, self.limits.paid_read)
        except _NotSent as failure:
            raise ServiceUnreachable(
                f"{self.host} cannot be reached: {failure}. Nothing was sent and nothing charged. Try again."
            ) from None
        except _Interrupted as failure:
            raise self._unknown(str(failure)) from None

    def _unknown(self, reason: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"The connection to {self.host} broke after the request was sent: {reason}. The request may have been "
            f"accepted and charged."
        )

    def _exchange(self, call: Call, read: float) -> Answer:
        """Send one request and read its whole answer. Raises _NotSent, _Interrupted, or ServiceError for a redirect."""
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
                    auth=_keep_headers,
                    stream=True,
                )
                content = _read(response, self.limits.answer_bytes)
        except (requests.RequestException, OSError, ValueError) as error:
            reason = _reason(error, self.limits.connect, read)
            raise (_Interrupted if body is None or body.started else _NotSent)(reason) from None
        if 300 <= response.status_code < 400:
            raise ServiceError(
                f"{self.host} answered with a redirect (HTTP {response.status_code}). Redirects are not followed, "
                f"because the key would be sent to the new address. Check the service's address."
            )
        return _answer(response, content, self._redact)


class _NotSent(Exception):
    """No byte of the body was sent."""


class _Interrupted(Exception):
    """The connection failed while the body was being sent, or afterwards."""


class _Body:
    """A request body that records whether any of it was handed to the connection.

    This tells failures to connect (TLS and proxies included), which come before, from failures of a sent request.
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
    """Whether the host is this machine, which no proxy can reach."""
    return host == "localhost" or host.endswith(".localhost") or host == "::1" or host.startswith("127.")


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An `auth` that changes nothing. Without one, requests overwrites Authorization with a login from ~/.netrc."""
    return request


def worth_repeating(status: int) -> bool:
    """Whether an unpaid call that got this HTTP status may succeed later."""
    return status in (408, 429) or status >= 500


def _read(response: requests.Response, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for part in response.iter_content(2**16):
        parts.append(part)
        size += len(part)
        if size > limit:
            raise OSError(f"the answer is larger than {limit // 2**20} MiB")
    promised = response.headers.get("Content-Length", "")
    if promised.isdecimal() and not response.headers.get("Content-Encoding") and size < int(promised):
        raise OSError(f"the answer ended after {size} of {promised} bytes")
    return b"".join(parts)


def _answer(response: requests.Response, content: bytes, redact: Callable[[str], str]) -> Answer:
    text = content.decode("utf-8", errors="replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    json_object = value if is_object(value) else None
    return Answer(response.status_code, json_object, redact(text)[:TEXT_CHARACTERS], response.headers, redact)


def _reason(error: BaseException, connect: float, read: float) -> str:
    import requests

    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {connect:g} s"
    if isinstance(error, requests.ReadTimeout):
        return f"no answer within {read:g} s"
    if isinstance(error, requests.exceptions.InvalidURL) or not isinstance(error, OSError):
        return BAD_PROXY  # the service's own address was checked before
    root = _root(error)
    text = getattr(root, "strerror", None) or str(root) or type(root).__name__
    if "timed out" in text:
        return f"no data for {read:g} s"
    return text.strip().rstrip(".")[:300]


def _root(error: BaseException) -> BaseException:
    for _ in range(10):
        inner = [getattr(error, "reason", None), error.__cause__, *reversed(error.args)]
        deeper = next((item for item in inner if isinstance(item, BaseException)), None)
        if deeper is None:
            break
        error = deeper
    return error
