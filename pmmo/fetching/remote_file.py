"""A remote file that is read by HTTP ranges.

Every response must be exactly the range that was asked for, of the version that was seen first:
bytes of two files never mix. A server without ranges is read through from the start, where that
is allowed, and what is not needed is dropped on the way.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import requests

from pmmo.core.errors import PmmoError
from pmmo.fetching.addresses import Address, Unusable
from pmmo.fetching.http_session import (
    Fault,
    Patience,
    Tries,
    Version,
    check_address,
    get,
    new_session,
    translated,
)
from pmmo.hdf5.sources import BUFFER, SIGNATURE

BLOCK = 1 << 16  # bytes; HDF5 metadata is read and kept in such blocks
KEPT_BLOCKS = 256  # of metadata, 16 MiB: far more than the published file's 0.1 MB
HEAD_BLOCKS = 16  # kept in passing by a server without ranges
PROGRESS = 1 << 18  # bytes after which a failure counts as the first again
PASSES = 8  # of a whole file without ranges


class Changed(PmmoError):
    """The file behind the address is not the one seen before."""


@dataclass
class Body:
    """A response under way: the file's bytes from `position` to `end`."""

    response: requests.Response
    position: int
    end: int
    name: str

    def read(self, most: int) -> bytes:
        """At least one byte; Fault where none comes."""
        with translated(self.response.url, self.name):
            data = self.response.raw.read1(min(most, self.end - self.position))
        if not data:
            raise Fault(f"the server stopped {self.end - self.position:,} bytes too early")
        self.position += len(data)
        return data


Result = TypeVar("Result")


class HttpFile:
    """The file at an address, which is asked only for the bytes that are read.

    `moved(count)` is told of each portion that arrives. `version` is what the server calls this
    file.
    """

    def __init__(
        self,
        address: Address,
        *,
        allow_full_download: bool,
        patience: Patience | None,
    ) -> None:
        check_address(address.url)
        self.url, self.name = address.url, address.name
        self.patience = patience or Patience()
        self.moved: Callable[[int], object] = lambda count: None
        self._received = self._last_failure = 0
        self._blocks: dict[int, bytes] = {}
        self._session = new_session(self.patience)
        self._through: Body | None = None  # the pass under way at a server without ranges
        self._passes = 0
        try:
            self._persist(self._probe)
            if not self.ranges and not allow_full_download:
                raise Unusable(
                    f"{self.name}: the server cannot send parts of a file, so that all "
                    f"{self.version.size:,} bytes would have to be moved. To allow it, set "
                    "data.allow_full_download: true in params.yaml; or give a path or another "
                    "address as data.source."
                )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "HttpFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._end_pass()
        self._session.close()

    @property
    def size(self) -> int:
        return self.version.size

    # -- requests

    def _get(self, headers: dict[str, str]) -> requests.Response:
        response = get(self._session, self.url, self.name, headers, self.patience)
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        kind = response.headers.get("Content-Type", "").lower()
        if encoding != "identity":
            what = f"the server sends the file encoded as {encoding!r:.40}, against the request"
        elif kind.startswith(("text/html", "application/xhtml")) and response.status_code != 416:
            what = "the server sends a web page instead of the file"
        elif kind.startswith("multipart/"):
            what = "the server sends several parts where one was asked for"
        else:
            return response
        response.close()
        raise Unusable(f"{self.name}: {what}.")

    def _probe(self) -> None:
        """Learn size, version and whether the server sends ranges; keep the first block."""
        response = self._get({"Range": f"bytes=0-{BLOCK - 1}"})
        try:
            if response.status_code == 416:
                raise Unusable(f"{self.name}: the file there is empty.")
            self.ranges = response.status_code == 206
            if self.ranges:
                size: int | None
                start, stop, size = self._content_range(response)
                end = min(BLOCK, size)
                if (start, stop) != (0, end):
                    raise Fault(f"the server sent bytes {start}–{stop}, asked for 0–{end}")
            else:
                size = _length(response)
                end = min(BLOCK, size or BLOCK)
            if size is None:
                raise Unusable(f"{self.name}: the server does not say how large the file is.")
            body = self._body(response, 0, end)
            first = self._fill(body)
            if first[: len(SIGNATURE)] != SIGNATURE:
                raise Unusable(
                    f"{self.name}: what the server sends is not an HDF5 file (it starts with "
                    f"{first[: len(SIGNATURE)]!r})."
                )
            self.version = _version(response, size)
            self._blocks = {0: first}
        finally:
            response.close()

    def _content_range(self, response: requests.Response) -> tuple[int, int, int]:
        """(start, stop, size) that a 206 claims to send; stop is exclusive."""
        text = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", text.strip())
        if not match:
            raise Fault(
                f"the server sent a part without saying which (Content-Range: {text!r:.80})"
            )
        start, last, size = map(int, match.groups())
        return start, last + 1, size

    def _body(self, response: requests.Response, start: int, end: int) -> Body:
        length = _length(response)
        if length is not None and response.status_code == 206 and length != end - start:
            raise Fault(f"the server announced {length:,} bytes, asked for {end - start:,}")
        return Body(response, start, end, self.name)

    def _check_version(self, response: requests.Response, size: int | None) -> None:
        now = _version(response, self.version.size if size is None else size)
        if now != self.version:
            raise Changed(
                f"{self.name}: the file there changed from {self.version!s:.200} to {now!s:.200}."
            )

    def _open_range(self, start: int, end: int) -> Body:
        headers = {"Range": f"bytes={start}-{end - 1}"}
        if self.version.validator:
            headers["If-Range"] = self.version.validator
        response = self._get(headers)
        try:
            if response.status_code == 416:
                size = response.headers.get("Content-Range", "").rpartition("/")[2]
                if size.isdigit() and int(size) != self.size:
                    raise Changed(f"{self.name}: the file there has {size} bytes now.")
                raise Unusable(f"{self.name}: the server has no bytes {start:,}–{end - 1:,}.")
            if response.status_code == 200:
                self._check_version(response, _length(response))
                raise Fault("the server sent the whole file where a part was asked for")
            found = self._content_range(response)
            self._check_version(response, found[2])
            if found[:2] != (start, end):
                raise Fault(
                    f"the server sent bytes {found[0]:,}–{found[1] - 1:,}, asked for "
                    f"{start:,}–{end - 1:,}"
                )
            return self._body(response, start, end)
        except BaseException:
            response.close()
            raise

    def _open_through(self, start: int) -> Body:
        """The pass through the whole file, moved forward to `start`; begun anew to go back."""
        if self._through is None or self._through.position > start:
            self._end_pass()
            if self._passes >= PASSES:
                raise Unusable(f"{self.name}: had to be read {PASSES} times from its start.")
            self._passes += 1
            response = self._get({})
            try:
                if response.status_code != 200:
                    raise Fault(f"the server answers {response.status_code} to a whole download")
                self._check_version(response, _length(response))
                self._through = self._body(response, 0, self.size)
            except BaseException:
                response.close()
                raise
        body = self._through
        while body.position < start:
            block, rest = divmod(body.position, BLOCK)
            if block < HEAD_BLOCKS and rest == 0 and body.position + BLOCK <= start:
                self._blocks[block] = self._fill(body, body.position + BLOCK)
            else:
                self._count(body.read(min(BUFFER, start - body.position)))
        return body

    def _end_pass(self) -> None:
        if self._through:
            self._through.response.close()
            self._through = None

    # -- bytes

    def _count(self, data: bytes) -> bytes:
        self._received += len(data)
        self.moved(len(data))
        return data

    def _fill(self, body: Body, end: int | None = None) -> bytes:
        """All bytes of a body up to `end`."""
        parts, end = [], body.end if end is None else end
        while body.position < end:
            parts.append(self._count(body.read(end - body.position)))
        return b"".join(parts)

    def _persist(self, attempt: Callable[[], Result], tries: Tries | None = None) -> Result:
        """The result of `attempt`, tried again after each Fault as long as `tries` lets it."""
        tries = tries or Tries(self.patience, self.name)
        while True:
            try:
                return attempt()
            except Fault as fault:
                self._end_pass()
                if self._received - self._last_failure >= PROGRESS:
                    tries.progress()
                self._last_failure = self._received
                tries.failed(fault)

    def _fetch_blocks(self, first: int, last: int) -> None:
        if len(self._blocks) + last - first > KEPT_BLOCKS:
            raise Unusable(
                f"{self.name}: holds far more metadata than the published layout has. Download "
                "it yourself and give its path as data.source."
            )
        start, end = first * BLOCK, min(last * BLOCK, self.size)
        body = self._open_range(start, end) if self.ranges else self._open_through(start)
        try:
            data = self._fill(body, end)
        finally:
            if self.ranges:
                body.response.close()
        for block in range(first, last):
            self._blocks[block] = data[(block - first) * BLOCK :][:BLOCK]

    def read(self, offset: int, length: int) -> bytes:
        """Bytes for the metadata, from blocks that are kept."""
        first, last = offset // BLOCK, -(-(offset + length) // BLOCK)
        missing = [block for block in range(first, last) if block not in self._blocks]
        if missing:
            wanted = missing[0], missing[-1] + 1
            self._persist(lambda: self._fetch_blocks(*wanted))
        data = b"".join(self._blocks[block] for block in range(first, last))
        return data[offset - first * BLOCK :][:length]

    def stream(self, offset: int, length: int) -> Iterator[memoryview]:
        """The bytes from `offset` on, as they arrive; goes on where a connection broke."""
        position, end = offset, offset + length
        body: Body | None = None

        def portion() -> bytes:
            nonlocal body
            if body is None:
                opened = self._open_range(position, end) if self.ranges else None
                body = opened or self._open_through(position)
            try:
                return self._count(body.read(min(BUFFER, end - position)))
            except Fault:
                body.response.close()
                body = None
                raise

        tries = Tries(self.patience, self.name)  # counted over all portions
        try:
            while position < end:
                data = self._persist(portion, tries)
                position += len(data)
                yield memoryview(data)
        finally:
            if body is not None and self.ranges:
                body.response.close()


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "").strip()
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


def _version(response: requests.Response, size: int) -> Version:
    return Version(size, response.headers.get("ETag"), response.headers.get("Last-Modified"))
