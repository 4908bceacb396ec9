"""Fetching results from addresses that a service names, as if the service were hostile.

An address is resolved here, every address it has is judged, and the connection goes to the one that was judged: there
is no second look-up that could answer differently. Redirects are followed by hand, each judged the same way. No
credentials, cookies or logins go along.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

from ..core.errors import ResultGone, ResultRefused, ServiceUnreachable
from .endpoint import Endpoint
from .images import is_inline
from .messages import Answer
from .transport import BAD_PROXY, LONGEST_WAIT, USER_AGENT, Transport, is_loopback_name, told_wait
from .waiting import Clock, Stop, backoff, interruptible, never, pause

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, HTTPConnectionPool, PoolManager, Timeout

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], list[str]]

MOST_REDIRECTS = 5
_MOST_MISSING = 3  # 404s: some stores show a new file after a moment
_GONE = (401, 403, 404, 410)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")


def resolve(host: str, port: int) -> list[str]:
    """Every address of the host, by the system's resolver. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


@dataclass(frozen=True)
class Downloads:
    """What may be fetched and how: `base_url` is the service's, as configured.

    Bytes at most, seconds for the whole transfer, to connect, between two parts of it, and to go on trying.
    """

    base_url: str
    max_bytes: int = 64 * 2**20
    seconds: float = 180.0
    connect: float = 10.0
    read: float = 30.0
    patience: float = 60.0
    resolver: Resolver = resolve
    clock: Clock = field(default_factory=Clock)
    should_stop: Stop = never

    def fetch(self, url: str) -> bytes:
        """The content. Raises ResultGone where it is not there any more, ResultRefused where it must not or cannot be
        used, ServiceUnreachable where the network kept failing; trying again costs nothing."""
        started, waits, reason, missing = self.clock.monotonic(), backoff(0), "", 0
        while True:
            told: float | None = None
            try:
                return interruptible(lambda: self._follow(url), self.should_stop, self.seconds + self.connect)
            except _Passing as failure:
                reason, told = str(failure), failure.wait
                missing += failure.status == 404
                if missing == _MOST_MISSING:
                    raise ResultGone(f"The result is not at {_shown(url)} any more ({reason}).") from None
            except TimeoutError:
                reason = f"it took longer than {self.seconds:g} s"
            wait = next(waits) if told is None else min(max(told, 0.5), LONGEST_WAIT)
            if self.clock.monotonic() - started + wait > self.patience:
                break
            pause(wait, self.clock, self.should_stop)
        raise ServiceUnreachable(
            f"The result at {_shown(url)} could not be fetched: {reason}. Try again: it costs nothing."
        )

    def _follow(self, url: str) -> bytes:
        deadline = time.monotonic() + self.seconds
        for _ in range(MOST_REDIRECTS + 1):
            parts = self._parts(url)
            with self._open(url, parts) as response:
                if response.status in (301, 302, 303, 307, 308):
                    url = urljoin(url, response.headers.get("Location", ""))
                    continue
                if response.status in _GONE and response.status != 404:
                    raise ResultGone(f"The result is not at {_shown(url)} any more (HTTP {response.status}).")
                if response.status in (404, 408, 429) or response.status >= 500:
                    raise _Passing(f"HTTP {response.status}", response.status, _told(response))
                if response.status != 200:
                    raise ResultRefused(f"The result at {_shown(url)} was answered with HTTP {response.status}.")
                return self._read(response, url, deadline)
        raise ResultRefused(f"The result's address leads on more than {MOST_REDIRECTS} times, last to {_shown(url)}.")

    def _parts(self, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            port_is_good = parts.port is None or parts.port > 0
        except ValueError:
            raise ResultRefused("The result's address is not valid.") from None
        plain = url.isascii() and url.isprintable() and " " not in url
        if not parts.hostname or not plain or not port_is_good or "@" in parts.netloc:
            raise ResultRefused(f"The result's address {_shown(url)} is not one to fetch from.")
        if parts.scheme != "https" and not (parts.scheme == "http" and self.base_url.startswith("http:")):
            raise ResultRefused(f"The result's address {_shown(url)} is not https.")
        return parts

    def _read(self, response: BaseHTTPResponse, url: str, deadline: float) -> bytes:
        promised = response.headers.get("Content-Length", "")
        limit = f"{self.max_bytes / 2**20:g} MiB are the limit"
        if promised.isdecimal() and int(promised) > self.max_bytes:
            raise ResultRefused(f"The result at {_shown(url)} has {int(promised) / 2**20:.0f} MiB; {limit}.")
        content = bytearray()
        for part in response.stream(2**16, decode_content=True):
            content += part
            if len(content) > self.max_bytes:
                raise ResultRefused(f"The result at {_shown(url)} has more than {len(content)} bytes; {limit}.")
            if time.monotonic() > deadline:
                raise _Passing(f"it took longer than {self.seconds:g} s")
        encoded = response.headers.get("Content-Encoding")
        if promised.isdecimal() and not encoded and len(content) < int(promised):
            raise _Passing(f"it ended after {len(content)} of {promised} bytes")
        return bytes(content)

    def _judge(self, host: str, port: int, resolver: Resolver | None = None) -> list[str]:
        """The host's addresses, all of them good. Raises ResultRefused if one is not, OSError without any."""
        found = [str(ipaddress.ip_address(host))] if _is_literal(host) else (resolver or self.resolver)(host, port)
        for text in found:
            address = ipaddress.ip_address(text.partition("%")[0])
            if not _is_public(address) and not self._is_at_home(address):
                raise ResultRefused(
                    f"The result's address {host} leads to {address}, which is not on the public internet: it is not "
                    f"fetched. Only a service whose own address lies there may do that."
                )
        if not found:
            raise OSError(f"{host} has no address")
        return found

    def _is_at_home(self, address: Address) -> bool:
        """Whether the service itself, as configured, is reached at this address (or both are this machine)."""
        base = urlsplit(self.base_url)
        host = base.hostname or ""
        try:
            found = [host] if _is_literal(host) else self.resolver(host, base.port or 443)
        except OSError:
            return False
        own = [ipaddress.ip_address(text.partition("%")[0]) for text in found]
        return address in own or (address.is_loopback and any(item.is_loopback for item in own))

    @contextmanager
    def _open(self, url: str, parts: SplitResult) -> Iterator[BaseHTTPResponse]:
        """The answer to one GET, its body unread. Raises _Passing for network errors, also those of reading it."""
        import urllib3

        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        headers = {"User-Agent": USER_AGENT, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
        timeout = urllib3.Timeout(connect=self.connect, read=self.read)
        failure: Exception = OSError(f"{host} has no address")
        try:
            if proxy := _proxy(url, host):
                self._judge_behind_proxy(host, port)
                routes, target = [_way_through(proxy, timeout)], url
            else:
                routes = [_way_to(address, parts.scheme, host, port, timeout) for address in self._judge(host, port)]
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                headers["Host"] = parts.netloc
            for route in routes:
                with route:
                    try:
                        response = route.urlopen(
                            "GET", target, headers=headers, redirect=False, retries=False, preload_content=False
                        )
                    except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
                        failure = error
                        continue
                    try:
                        yield response
                    finally:
                        response.close()
                    return
            raise failure
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Passing(_cause(error)) from None

    def _judge_behind_proxy(self, host: str, port: int) -> None:
        """A proxy resolves names itself; what can be known here is judged, a name unknown here is the proxy's."""
        try:
            self._judge(host, port)
        except OSError:
            if _is_literal(host):
                raise


def fetch_result(endpoint: Endpoint[Any], transport: Transport, downloads: Downloads, output: str) -> bytes:
    """What stands behind a result reference of a done job: inline data as it is, an address fetched.

    Raises ResultGone or ResultRefused for a result that cannot be had, ServiceError where the service does not say
    where it is, ServiceUnreachable.
    """
    if call := endpoint.locate(output):
        answer = transport.ask(call)
        if answer.status in (404, 410):
            raise ResultGone(f"{endpoint.target} does not have the result any more (HTTP {answer.status}).")
        output = endpoint.read_location(answer)
    return output.encode() if is_inline(output) else downloads.fetch(output)


class _Passing(Exception):
    """A failure that may pass. `wait` is what the server asks for, in seconds."""

    def __init__(self, reason: str, status: int = 0, wait: float | None = None) -> None:
        self.status, self.wait = status, wait
        super().__init__(reason)


def _way_to(address: str, scheme: str, host: str, port: int, timeout: Timeout) -> HTTPConnectionPool:
    """Connections to exactly this address, with TLS for the host's own name."""
    import urllib3

    if scheme == "http":
        return urllib3.HTTPConnectionPool(address, port, timeout=timeout)
    return urllib3.HTTPSConnectionPool(
        address,
        port,
        timeout=timeout,
        server_hostname=host,
        assert_hostname=host,
        cert_reqs="CERT_REQUIRED",
        **_authorities(),
    )


def _way_through(proxy: str, timeout: Timeout) -> PoolManager:
    """Connections through the user's proxy, with the login in its address if there is one; every kind that paid calls
    can take. Raises ServiceUnreachable for an address that is none, and without the package for it."""
    import urllib3
    from requests.utils import get_auth_from_url

    user, password = get_auth_from_url(proxy)
    secure: dict[str, Any] = {"timeout": timeout, "cert_reqs": "CERT_REQUIRED", **_authorities()}
    try:
        if proxy.startswith("socks"):
            from urllib3.contrib.socks import SOCKSProxyManager

            return SOCKSProxyManager(proxy, user or None, password or None, **secure)
        headers = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}") if user else None
        return urllib3.ProxyManager(proxy, proxy_headers=headers, **secure)
    except ImportError:
        advice = "Run `python -m pip install PySocks` in ComfyUI's environment, or name an http:// proxy"
        raise ServiceUnreachable(f"The proxy {proxy.partition(':')[0]}:// needs PySocks. {advice}.") from None
    except ValueError:
        raise ServiceUnreachable(f"The result cannot be fetched: {BAD_PROXY}.") from None


def _proxy(url: str, host: str) -> str | None:
    from requests.utils import get_environ_proxies, select_proxy

    if is_loopback_name(host):
        return None
    proxy = select_proxy(url, get_environ_proxies(url))
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _authorities() -> dict[str, Any]:
    """Whom to trust: what requests trusts, or the file or folder that its users name in the environment."""
    from requests.certs import where

    chosen = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or where()
    return {"ca_cert_dir" if Path(chosen).is_dir() else "ca_certs": chosen}


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_public(address: Address) -> bool:
    """On the public internet, also in what an IPv6 address wraps (mapped, 6to4, Teredo, NAT64)."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if not inner and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner:
            return _is_public(inner)
        if address.is_site_local or address in _LOCAL_NAT64:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _shown(url: str) -> str:
    """The address without its query, which may be a signature that opens it."""
    return url.partition("?")[0].partition("#")[0][:200]


def _told(response: BaseHTTPResponse) -> float | None:
    return told_wait(Answer(response.status, None, headers=response.headers), time.time())


def _cause(error: BaseException) -> str:
    text = str(getattr(error, "reason", None) or error) or type(error).__name__
    return text.rpartition(": ")[2].strip(" )").rstrip(".")[:200] or type(error).__name__
