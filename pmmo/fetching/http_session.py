"""HTTP responses, one at a time, from servers that are not trusted.

requests and urllib3 provide connections, TLS, proxies and back-off. This module follows redirects
itself, because https must not become http. It never sends a credential: none from .netrc, none from
an address, and no cookie.
"""

import http.client
import re
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from pmmo.core.errors import PmmoError

REDIRECTS = 10
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Patience:
    """Time limits (seconds), the lowest accepted speed (bytes per second) and retries."""

    connect: float = 15.0  # to establish a connection
    stall: float = 60.0  # without receiving a byte
    slow_window: float = 60.0  # period over which the speed is measured
    slow_rate: float = 2048.0  # below this speed a server counts as stalled
    tries: int = 6  # consecutive tries without progress
    backoff: float = 1.0  # after the second consecutive failure, then doubled each time
    backoff_max: float = 60.0
    retry_after_max: float = 120.0  # limit on a server's Retry-After

    def retries(self) -> urllib3.Retry:
        return urllib3.Retry(
            self.tries - 1,
            backoff_factor=self.backoff,
            backoff_max=self.backoff_max,
            retry_after_max=self.retry_after_max,  # type: ignore[arg-type] # takes fractions, too
        )


class Unusable(PmmoError):
    """This address does not provide the file; another mirror may."""


class Fault(Exception):
    """A failure that a retry may fix; `response` may contain a Retry-After."""

    def __init__(self, what: str, response: requests.Response | None = None) -> None:
        super().__init__(what)
        self.response = response


@dataclass(frozen=True)
class Version:
    """The server's identification of a file; two files never share all three values."""

    size: int
    etag: str | None
    modified: str | None

    @property
    def validator(self) -> str | None:
        """The value for If-Range: a strong ETag, else a date."""
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        return strong or self.modified


def shown(url: str) -> str:
    """The address without its possible secrets, for messages and records."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class _HeadDeadline:
    """A connection with a time limit on a response's head as a whole."""

    def getresponse(self):
        seconds = self.timeout if isinstance(self.timeout, int | float) else 60.0
        timer = threading.Timer(2 * seconds, self._hang_up, [self.sock])
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()
        finally:
            timer.cancel()

    @staticmethod
    def _hang_up(sock: socket.socket) -> None:
        with suppress(OSError):  # already closed
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Http(urllib3.HTTPConnectionPool):
    class ConnectionCls(_HeadDeadline, HTTPConnection):
        pass


class _Https(urllib3.HTTPSConnectionPool):
    class ConnectionCls(_HeadDeadline, HTTPSConnection):
        pass


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments, **options) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Http, "https": _Https}


def new_session() -> requests.Session:
    """A session with keep-alive and the environment's proxies that sends no secret."""
    session = requests.Session()
    session.mount("http://", _Adapter(max_retries=0))
    session.mount("https://", _Adapter(max_retries=0))
    session.auth = lambda request: request  # prevents requests from reading .netrc
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.clear()
    session.headers.update({"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "pmmo"})
    return session


def check_address(url: str) -> None:
    """Raise Unusable if an address is not http(s), or contains a user name and password."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        good = False
    if not good:
        raise Unusable(
            f"{url.rpartition('@')[2]}: is not an address that starts with http:// or https://."
        )
    if "@" in parts.netloc:
        raise Unusable(
            f"{shown(url)}: the address contains a name or password; none is ever sent. Download "
            "the file yourself and give its path as data.source."
        )


def get(session: requests.Session, url: str, headers: dict, patience: Patience):
    """The response (200, 206 or 416, body unread) to a GET after redirects.

    Raises Fault if a retry may help, and Unusable if it will not.
    """
    seen: set[str] = set()
    while True:
        check_address(url)
        if url in seen or len(seen) > REDIRECTS:
            raise Unusable(f"{shown(url)}: the server redirects in circles.")
        seen.add(url)
        with translated(url):
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
        target = _joined(url, response.headers["Location"])
        if url.startswith("https:") and not target.startswith("https:"):
            raise Unusable(f"{shown(url)}: redirects from https to {shown(target)}; not followed.")
        url = target
    status = f"the server answers {response.status_code} {response.reason or ''}".rstrip()
    if response.status_code in (200, 206, 416):
        return response
    response.close()
    if response.status_code in TRY_AGAIN:
        raise Fault(status, response)
    hints = {401: " and wants a password; none is ever sent", 407: ": the proxy wants a password"}
    raise Unusable(f"{shown(url)}: {status}{hints.get(response.status_code, '')}.")


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise Unusable(f"{shown(url)}: redirects to nowhere ({location!r:.80}).") from None


@contextmanager
def translated(url: str):
    """Translate errors of requests and urllib3 to Fault, or to Unusable for a bad address."""
    try:
        yield
    except requests.exceptions.ProxyError as error:
        proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)) or ""
        raise Fault(
            f"the proxy {shown(proxy)} set by the environment (HTTP_PROXY, HTTPS_PROXY, "
            f"ALL_PROXY) does not serve: {_root(error)}"
        ) from None
    except requests.exceptions.SSLError as error:
        if "certificate" in str(error).lower():
            raise Unusable(f"{shown(url)}: its certificate is refused ({_root(error)}).") from None
        raise Fault(f"no secure connection: {_root(error)}") from None
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
        raise Fault("the server does not answer or has stopped sending") from None
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Fault(f"the connection failed: {_root(error)}") from None
    except ValueError as error:  # requests parses a redirect's target even if it does not follow it
        raise Unusable(f"{shown(url)}: the server redirects to nowhere ({error}).") from None


def _root(error: BaseException) -> str:
    """The innermost cause in a few words; requests and urllib3 wrap it several times."""
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
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])


class Speed:
    """Raises Fault if the speed over `slow_window` is below `slow_rate`."""

    def __init__(self, patience: Patience) -> None:
        self.patience, self.start, self.count = patience, time.monotonic(), 0

    def moved(self, count: int) -> None:
        self.count += count
        elapsed = time.monotonic() - self.start
        if elapsed >= self.patience.slow_window:
            if self.count < self.patience.slow_rate * elapsed:
                raise Fault(f"the server sends only {self.count / elapsed:,.0f} bytes per second")
            self.start, self.count = time.monotonic(), 0


class Tries:
    """Counts consecutive failures, and waits after each (Retry-After, or back-off)."""

    def __init__(self, patience: Patience, name: str) -> None:
        self.patience, self.name, self.retry = patience, name, patience.retries()

    def progress(self) -> None:
        """Reset the count of failures."""
        self.retry = self.patience.retries()

    def failed(self, fault: Fault) -> None:
        """Sleep before the next try; raise Unusable if no try is left."""
        try:
            self.retry = self.retry.increment("GET", error=fault)
        except urllib3.exceptions.MaxRetryError:
            times = f", {self.patience.tries} times in a row" if self.patience.tries > 1 else ""
            raise Unusable(f"{self.name}: {fault}{times}.") from None
        try:
            self.retry.sleep(fault.response.raw if fault.response is not None else None)
        except urllib3.exceptions.InvalidHeader:
            self.retry.sleep()
