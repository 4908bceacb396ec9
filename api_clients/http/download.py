"""Downloading results from URLs that a service names. The service is not trusted.

The host name is resolved once, all its addresses are checked, and the connection goes to a checked address, so a second
lookup cannot give a different one. Redirects are followed here and checked in the same way. Credentials, cookies and
logins are never sent.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

from ...core.errors import ResultGone, ResultRefused, ServiceUnreachable
from .messages import Answer
from .transport import BAD_PROXY, LONGEST_WAIT, USER_AGENT, is_loopback_name, requested_wait
from .waiting import Clock, StopCheck, backoff, interruptible, never_stop, pause

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, HTTPConnectionPool, PoolManager, Timeout

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], list[str]]

MAX_REDIRECTS = 5
_MAX_NOT_FOUND = 3  # some stores answer 404 for a moment after a file was written
_GONE = (401, 403, 404, 410)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host, from the system's resolver. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


@dataclass(frozen=True)
class Downloads:
    """What may be downloaded, and how.

    `base_url` is the configured base URL of the service. `max_bytes` limits one file. In seconds: `seconds` limits the
    whole transfer, `connect` connecting, `read` the silence between two parts, and `patience` all attempts together.
    """

    base_url: str
    max_bytes: int = 64 * 2**20
    seconds: float = 180.0
    connect: float = 10.0
    read: float = 30.0
    patience: float = 60.0
    resolver: Resolver = resolve
    clock: Clock = field(default_factory=Clock)
    should_stop: StopCheck = never_stop

    def fetch(self, url: str) -> bytes:
        """Download a file.

        Raises ResultGone if it no longer exists, ResultRefused if the address or the answer must not be used, and
        ServiceUnreachable if the network kept failing.
        """
        started, waits, reason, missing = self.clock.monotonic(), backoff(0), "", 0
        while True:
            asked: float | None = None
            try:
                return interruptible(lambda: self._follow(url), self.should_stop, self.seconds + self.connect)
            except _Temporary as failure:
                reason, asked = str(failure), failure.wait
                missing += failure.status == 404
                if missing == _MAX_NOT_FOUND:
                    raise ResultGone(f"The result at {_without_query(url)} no longer exists ({reason}).") from None
            except TimeoutError:
                reason = f"it took longer than {self.seconds:g} s"
            wait = next(waits) if asked is None else min(max(asked, 0.5), LONGEST_WAIT)
            if self.clock.monotonic() - started + wait > self.patience:
                break
            pause(wait, self.clock, self.should_stop)
        raise ServiceUnreachable(
            f"The result at {_without_query(url)} could not be downloaded: {reason}. Try again; it costs nothing."
        )

    def _follow(self, url: str) -> bytes:
        deadline = time.monotonic() + self.seconds
        for _ in range(MAX_REDIRECTS + 1):
            parts = self._parts(url)
            with self._open(url, parts) as response:
                if response.status in (301, 302, 303, 307, 308):
                    url = urljoin(url, response.headers.get("Location", ""))
                    continue
                if response.status in _GONE and response.status != 404:
                    raise ResultGone(f"The result at {_without_query(url)} no longer exists (HTTP {response.status}).")
                if response.status in (404, 408, 429) or response.status >= 500:
                    raise _Temporary(f"HTTP {response.status}", response.status, _requested_wait(response))
                if response.status != 200:
                    raise ResultRefused(
                        f"The request for {_without_query(url)} was answered with HTTP {response.status}."
                    )
                return self._read(response, url, deadline)
        raise ResultRefused(
            f"The result's address was redirected more than {MAX_REDIRECTS} times, last to {_without_query(url)}."
        )

    def _parts(self, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            port_is_good = parts.port is None or parts.port > 0
        except ValueError:
            raise ResultRefused("The result's address is not valid.") from None
        plain = url.isascii() and url.isprintable() and " " not in url
        if not parts.hostname or not plain or not port_is_good or "@" in parts.netloc:
            raise ResultRefused(f"The result's address {_without_query(url)} is not a plain http or https URL.")
        if parts.scheme != "https" and not (parts.scheme == "http" and self.base_url.startswith("http:")):
            raise ResultRefused(f"The result's address {_without_query(url)} is not https.")
        return parts

    def _read(self, response: BaseHTTPResponse, url: str, deadline: float) -> bytes:
        promised = response.headers.get("Content-Length", "")
        limit = f"the limit is {self.max_bytes / 2**20:g} MiB"
        if promised.isdecimal() and int(promised) > self.max_bytes:
            raise ResultRefused(f"The result at {_without_query(url)} has {int(promised) / 2**20:.0f} MiB; {limit}.")
        content = bytearray()
        for part in response.stream(2**16, decode_content=True):
            content += part
            if len(content) > self.max_bytes:
                raise ResultRefused(f"The result at {_without_query(url)} has at least {len(content)} bytes; {limit}.")
            if time.monotonic() > deadline:
                raise _Temporary(f"it took longer than {self.seconds:g} s")
        encoded = response.headers.get("Content-Encoding")
        if promised.isdecimal() and not encoded and len(content) < int(promised):
            raise _Temporary(f"it ended after {len(content)} of {promised} bytes")
        return bytes(content)

    def _checked_addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host. Raises ResultRefused if any of them is not allowed, OSError if there is none."""
        found = [str(ipaddress.ip_address(host))] if _is_literal(host) else self.resolver(host, port)
        for text in found:
            address = ipaddress.ip_address(text.partition("%")[0])
            if not _is_public(address) and not self._is_address_of_service(address):
                raise ResultRefused(
                    f"The result's host {host} has the address {address}, which is not on the public internet. Results "
                    f"are downloaded from such an address only if the service itself is configured there."
                )
        if not found:
            raise OSError(f"{host} has no address")
        return found

    def _is_address_of_service(self, address: Address) -> bool:
        """Whether the configured service has this address, or both are this machine."""
        base = urlsplit(self.base_url)
        host = base.hostname or ""
        try:
            found = [host] if _is_literal(host) else self.resolver(host, base.port or 443)
        except OSError:
            return False
        own = [ipaddress.ip_address(text.partition("%")[0]) for text in found]
        return address in own or (address.is_loopback and any(item.is_loopback for item in own))

    @contextmanager
    def _open(self, url: str, parts: SplitResult) -> Generator[BaseHTTPResponse]:
        """The answer to one GET, with its body unread. Network errors in the block, too, are raised as _Temporary."""
        import urllib3

        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        headers = {"User-Agent": USER_AGENT, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
        timeout = urllib3.Timeout(connect=self.connect, read=self.read)
        failure: Exception = OSError(f"{host} has no address")
        try:
            if proxy := _proxy(url, host):
                self._check_behind_proxy(host, port)
                pools, target = [_proxy_pool(proxy, timeout)], url
            else:
                addresses = self._checked_addresses(host, port)
                pools = [_direct_pool(address, parts.scheme, host, port, timeout) for address in addresses]
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                headers["Host"] = parts.netloc
            for pool in pools:
                with pool:
                    try:
                        response = pool.urlopen(
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
            raise _Temporary(_cause(error)) from None

    def _check_behind_proxy(self, host: str, port: int) -> None:
        """Check the host as far as this machine can resolve it. A name that it cannot resolve is left to the proxy."""
        try:
            self._checked_addresses(host, port)
        except OSError:
            if _is_literal(host):
                raise


class _Temporary(Exception):
    """A failure after which a retry may succeed. `wait` is the number of seconds that the server asks to wait."""

    def __init__(self, reason: str, status: int = 0, wait: float | None = None) -> None:
        self.status, self.wait = status, wait
        super().__init__(reason)


def _direct_pool(address: str, scheme: str, host: str, port: int, timeout: Timeout) -> HTTPConnectionPool:
    """Connections to exactly this address. TLS certificates are checked for the host name."""
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
        **_certificates(),
    )


def _proxy_pool(proxy: str, timeout: Timeout) -> PoolManager:
    """Connections through the user's proxy, with the login in its address. Supports every kind that `requests` does.

    Raises ServiceUnreachable if the address is not valid or the package for it is missing.
    """
    import urllib3
    from requests.utils import get_auth_from_url

    user, password = get_auth_from_url(proxy)
    secure: dict[str, Any] = {"timeout": timeout, "cert_reqs": "CERT_REQUIRED", **_certificates()}
    try:
        if proxy.startswith("socks"):
            from urllib3.contrib.socks import SOCKSProxyManager

            return SOCKSProxyManager(proxy, user or None, password or None, **secure)
        headers = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}") if user else None
        return urllib3.ProxyManager(proxy, proxy_headers=headers, **secure)
    except ImportError:
        raise ServiceUnreachable(
            f"A {proxy.partition(':')[0]}:// proxy needs the package PySocks. Run `python -m pip install PySocks` in "
            f"ComfyUI's environment, or use an http:// proxy."
        ) from None
    except ValueError:
        raise ServiceUnreachable(f"The result cannot be downloaded: {BAD_PROXY}.") from None


def _proxy(url: str, host: str) -> str | None:
    from requests.utils import get_environ_proxies, select_proxy

    if is_loopback_name(host):
        return None
    proxy = select_proxy(url, get_environ_proxies(url))
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _certificates() -> dict[str, Any]:
    """The certificate authorities to trust: those that `requests` uses, environment variables included."""
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
    """Whether the address is on the public internet.

    An IPv6 address that wraps an IPv4 address (mapped, 6to4, Teredo, NAT64) is judged by that one.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if not inner and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner:
            return _is_public(inner)
        if address.is_site_local or address in _LOCAL_NAT64:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _without_query(url: str) -> str:
    """The URL as it may be shown. Its query may hold a signature that gives access."""
    return url.partition("?")[0].partition("#")[0][:200]


def _requested_wait(response: BaseHTTPResponse) -> float | None:
    return requested_wait(Answer(response.status, None, headers=response.headers), time.time())


def _cause(error: BaseException) -> str:
    text = str(getattr(error, "reason", None) or error) or type(error).__name__
    return text.rpartition(": ")[2].strip(" )").rstrip(".")[:200] or type(error).__name__
