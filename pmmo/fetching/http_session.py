"""One HTTP response at a time, from servers that may do anything.

Built on requests and urllib3: connections, TLS, proxies and back-off are theirs. Redirects are
followed here, since https must not become http; no credential is ever sent (not from .netrc, not
from an address, no cookie). The speed is measured where bytes arrive, so that a server cannot drip
them in anywhere: not in a head, not between the chunks of a body.
"""

import http.client
import io
import re
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from pmmo.fetching.addresses import PASSWORD, Unusable, shown

REDIRECTS = 10
PROXIES = "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY"
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Patience:
    """How long to wait and how often to try again; seconds, bytes per second."""

    connect: float = 15.0  # until a connection stands
    stall: float = 60.0  # without any byte
    slow_window: float = 60.0  # over which the speed is measured …
    slow_rate: float = 2048.0  # … and below which a server counts as stalled
    tries: int = 6  # in a row without progress
    backoff: float = 1.0  # after the second failure in a row, then doubled each time
    backoff_max: float = 60.0
    retry_after_max: float = 120.0  # of what a server asks for

    def retries(self) -> urllib3.Retry:
        return urllib3.Retry(
            self.tries - 1,
            backoff_factor=self.backoff,
            backoff_max=self.backoff_max,
            retry_after_max=self.retry_after_max,  # type: ignore[arg-type]  # any number works
        )


class Fault(Exception):
    """What went wrong this time and may go right the next; `response` may say when."""

    def __init__(self, what: str, response: requests.Response | None = None) -> None:
        super().__init__(what)
        self.response = response


@dataclass(frozen=True)
class Version:
    """What a server says about which file it sends; two files never share all three."""

    size: int
    etag: str | None
    modified: str | None

    @property
    def validator(self) -> str | None:
        """What If-Range may carry: a strong ETag, else a date."""
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        return strong or self.modified


class _Paced(io.RawIOBase):
    """The bytes of a response, whatever they belong to.

    Raises Fault where the server sends less than `slow_rate` over `slow_window` of waiting.
    """

    def __init__(self, stream: io.BufferedReader, patience: Patience) -> None:
        self._stream, self._patience = stream, patience
        self._waited, self._count = 0.0, 0

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def readinto(self, buffer: Any) -> int:
        start = time.monotonic()
        count = self._stream.readinto1(buffer)
        self._count += count
        self._waited += time.monotonic() - start
        if self._waited >= self._patience.slow_window:
            rate = self._count / self._waited
            if rate < self._patience.slow_rate:
                raise Fault(f"the server sends only {rate:,.0f} bytes per second")
            self._waited, self._count = 0.0, 0
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


class _PacedResponse(http.client.HTTPResponse):
    def __init__(self, patience: Patience, sock: socket.socket, *arguments, **options) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_Paced(self.fp, patience))


class _Adapter(HTTPAdapter):
    """Connections, to servers and to proxies, whose responses are paced."""

    def __init__(self, patience: Patience) -> None:
        response = staticmethod(partial(_PacedResponse, patience))
        self._pools = {}
        for scheme, pool, connection in (
            ("http", urllib3.HTTPConnectionPool, HTTPConnection),
            ("https", urllib3.HTTPSConnectionPool, HTTPSConnection),
        ):
            paced = type(connection.__name__, (connection,), {"response_class": response})
            self._pools[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": paced})
        super().__init__(max_retries=0)

    def init_poolmanager(self, *arguments, **options) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *arguments, **options) -> urllib3.ProxyManager:
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: else requests reads a redirect's whole body, even where it is not to follow it."""


def new_session(patience: Patience) -> requests.Session:
    """A session that keeps its connections, uses the environment's proxies, and sends no secret."""
    session = _Session()
    session.mount("http://", _Adapter(patience))
    session.mount("https://", _Adapter(patience))
    session.auth = lambda request: request  # stops requests from looking into .netrc
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.clear()
    session.headers.update({"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "pmmo"})
    return session


def check_address(url: str) -> None:
    """Unusable where an address is not plain http(s), or carries a name and password."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of the host or the port
        good = False
    if not good:
        raise Unusable(
            f"{shown(url)}: is not an address that starts with http:// or https:// and a host."
        )
    if "@" in parts.netloc:
        raise Unusable(f"{shown(url)}: {PASSWORD}")


def get(session: requests.Session, url: str, name: str, headers: dict, patience: Patience):
    """The response (200, 206 or 416, body unread) to a GET after redirects.

    Fault where trying again may help, Unusable, with the address's `name`, where it will not. Of
    the addresses that a server redirects to, messages have the host alone.
    """
    seen, where = set(), name
    while True:
        check_proxy(url, where)
        seen.add(url)
        with translated(url, where):
            response = session.get(
                url,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=(patience.connect, patience.stall),
            )
        if not response.is_redirect:
            break
        response.close()
        target = _joined(url, response.headers["Location"], where)
        host = "/".join(shown(target).split("/")[:3])
        if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
            raise Unusable(f"{where}: redirects from https to {host}; not followed.")
        if target in seen or len(seen) > REDIRECTS:
            raise Unusable(f"{where}: the server redirects in circles.")
        url, where = target, f"{name} (redirected to {host})"
    if response.status_code in (200, 206, 416):
        return response
    response.close()
    phrase = http.client.responses.get(response.status_code, "")
    status = f"the server answers {response.status_code} {phrase}".rstrip()
    if response.status_code in TRY_AGAIN:
        raise Fault(status, response)
    hints = {401: " and wants a password; none is ever sent", 407: ": the proxy wants a password"}
    raise Unusable(f"{where}: {status}{hints.get(response.status_code, '')}.")


def _joined(url: str, location: str, where: str) -> str:
    try:
        target = urljoin(url, location)
        check_address(target)
    except (ValueError, Unusable):
        raise Unusable(f"{where}: the server redirects to nowhere.") from None
    return target


def proxy_for(url: str) -> str | None:
    return requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))


def check_proxy(url: str, where: str) -> None:
    """Unusable where the environment's proxy for `url` is no address."""
    proxy = proxy_for(url)
    try:
        if proxy is None or urllib3.util.parse_url(proxy).host:
            return
    except urllib3.exceptions.LocationParseError:
        pass
    raise Unusable(f"{where}: the proxy set by the environment ({PROXIES}) is no address.")


@contextmanager
def translated(url: str, where: str):
    """What requests and urllib3 raise, as Fault in words, or Unusable for a bad address."""
    try:
        yield
    except requests.exceptions.ProxyError as error:
        raise Fault(
            f"the proxy {shown(proxy_for(url) or '')} set by the environment ({PROXIES}) does not "
            f"serve: {_root(error)}"
        ) from None
    except requests.exceptions.SSLError as error:
        if "certificate" in str(error).lower():
            raise Unusable(f"{where}: its certificate is refused ({_root(error)}).") from None
        raise Fault(f"no secure connection: {_root(error)}") from None
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
        raise Fault("the server does not answer or has stopped sending") from None
    except ValueError as error:  # requests or urllib3 make nothing of the address or the proxy
        raise Unusable(f"{where}: cannot be asked ({_root(error)}).") from None
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Fault(f"the connection failed: {_root(error)}") from None


def _root(error: BaseException) -> str:
    """The innermost cause in a few words: requests and urllib3 wrap it several times over."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((item for item in error.args if isinstance(item, BaseException)), None)
        if inner is None:
            inner = error.__context__ if not str(error) else None
        if inner is None:
            break
        error = inner
    if isinstance(error, http.client.IncompleteRead):
        return "the server stopped too early"
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^.*object at 0x\w+>: |^.*Connection\w*\(.*?\): ", "", text)
    return re.sub(r"\S*(//|[@?])\S*", "…", text)[:200]  # without addresses, whole or in part


class Tries:
    """Counts failures in a row, and waits after each as long as the server asks."""

    def __init__(self, patience: Patience, name: str) -> None:
        self.patience, self.name, self.retry = patience, name, patience.retries()

    def progress(self) -> None:
        """The next failure counts as the first."""
        self.retry = self.patience.retries()

    def failed(self, fault: Fault) -> None:
        """Sleep before the next try; Unusable where none is left."""
        try:
            self.retry = self.retry.increment("GET", error=fault)
        except urllib3.exceptions.MaxRetryError:
            times = f", {self.patience.tries} times in a row" if self.patience.tries > 1 else ""
            raise Unusable(f"{self.name}: {fault}{times}.") from None
        try:
            self.retry.sleep(fault.response.raw if fault.response is not None else None)
        except urllib3.exceptions.InvalidHeader:
            self.retry.sleep()
