"""Fetch over HTTP from a real server on loopback, well-behaved and not."""

import json
import os
import pty
import re
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

from pmmo.core.errors import PmmoError
from pmmo.core.progress import Progress
from pmmo.fetching.fetch import fetch
from pmmo.fetching.http_session import Patience
from pmmo.fetching.remote_file import BLOCK, PASSES
from tests.file_server import FileServer
from tests.movie_files import (
    BAD,
    NAMES,
    arrays,
    columns,
    hashes,
    nbytes,
    provenance,
    write_bad,
    write_good,
)

ROWS, WIDTH = 500, 1024
THIRDS = {"train": (0, 300), "dev": (300, 350), "test": (350, ROWS)}
HASTY = Patience(
    connect=2.0, stall=0.5, slow_window=0.5, slow_rate=20_000, tries=3, backoff=0.01,
    retry_after_max=0.5,
)  # fmt: skip


def write_large(path: Path, seed: int = 0) -> Path:
    """2 MB of columns among 8 MB that nobody needs, the split last, as in the published file."""
    write_good(path, **arrays(ROWS, image=WIDTH, seed=seed), splits=THIRDS)
    with h5py.File(path, "r+") as file:
        split = file.attrs["split"]
        del file.attrs["split"]
        file["images"] = np.zeros((2000, 1000), "<i4")
        file["more"] = np.arange(10)
        file.attrs["split"] = split
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    return write_large(tmp_path_factory.mktemp("large") / "movies.hdf5")


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Another version: other values, everything in the same place."""
    return write_large(tmp_path_factory.mktemp("other") / "movies.hdf5", seed=1)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def fetched(tmp_path: Path, source: str, **options: object) -> Path:
    """Fetch; then nothing but the target is there, not even after a failure."""
    target, work = tmp_path / "data" / "movies.hdf5", tmp_path / ".work" / "fetch"
    options = {"memory_limit_gb": 1.0, "work": work, "patience": HASTY, **options}
    try:
        fetch(target, source=source, **options)
    finally:
        left = list(target.parent.iterdir())
        assert left == ([target] if target.exists() else [])
    assert list(work.iterdir()) == []
    return target


# ---- ranges


def test_only_what_is_needed_moves(tmp_path, large):
    with FileServer(large) as server:
        target = fetched(tmp_path, server.url)
    assert columns(target) == columns(large)
    with h5py.File(target) as file:
        assert json.loads(file["genres"].attrs["target_names"]) == list(NAMES)
    assert server.sent < nbytes(large) + 4 * BLOCK
    assert len(server.requests) <= 10
    assert provenance(target) == {
        "kind": "http",
        "source": server.url,
        "rows": ROWS,
        "sha256": hashes(large),
        "pinned": False,
        "note": "Unpinned: the sha256 of the columns are recorded, not compared with known ones.",
    }


def test_no_secret_leaves(tmp_path, large, monkeypatch):
    """Neither .netrc nor a cookie nor a name of this machine; and a secret address stays out."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)

    def cookie(request) -> bool:
        request.reply(Set_Cookie="id=1; Path=/")
        return request.body()

    with FileServer(large, cookie) as server:
        target = fetched(tmp_path, f"{server.url}?token=secret")
    allowed = {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}
    for headers in server.headers:
        assert set(headers) <= allowed | {"Range", "If-Range"}
        assert headers["User-Agent"] == "pmmo"
        assert headers["Accept-Encoding"] == "identity"
    assert server.requests[0][0].endswith("?token=secret")
    assert b"secret" not in target.read_bytes()
    with pytest.raises(PmmoError, match=r"name or password") as caught:
        fetched(tmp_path, "http://me:secret@127.0.0.1/movies.hdf5")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["no genres", "gap", "chunked", "external link", "web page"])
def test_bad_remote_file_is_refused(tmp_path, kind):
    path = write_bad(tmp_path / "bad.hdf5", kind)
    with FileServer(path) as server, pytest.raises(PmmoError) as caught:
        fetched(tmp_path, server.url)
    assert str(caught.value).startswith(server.url)
    assert all(word in str(caught.value) for word in BAD[kind][1].split())


def test_same_file_same_bytes_as_any_other_way(tmp_path, large):
    """Nothing in the result depends on when or how it was fetched, but for its source's name."""
    with FileServer(large) as server:
        first = fetched(tmp_path, server.url).read_bytes()
        assert fetched(tmp_path, server.url).read_bytes() == first


# ---- servers without ranges


def test_no_ranges_is_refused_with_the_size(tmp_path, large):
    with FileServer(large) as server:
        server.ranges = False
        words = rf"all {large.stat().st_size:,} bytes .*allow_full_download: true"
        with pytest.raises(PmmoError, match=words):
            fetched(tmp_path, server.url)
    assert server.sent < large.stat().st_size / 2  # what fits into the buffers on the way


def test_no_ranges_is_read_through_where_allowed(tmp_path, large):
    with FileServer(large) as server:
        server.ranges = False
        target = fetched(tmp_path, server.url, allow_full_download=True)
    assert columns(target) == columns(large)
    assert len(server.requests) <= 3


@pytest.mark.parametrize("number", [1, 2])
def test_no_ranges_and_a_broken_connection(tmp_path, large, number):
    """The second and third requests are for the metadata at the end and for the columns."""

    def broken(request) -> bool:
        return request.number == number and truncated(request)

    with FileServer(large, broken) as server:
        server.ranges = False
        target = fetched(tmp_path, server.url, allow_full_download=True)
    assert columns(target) == columns(large)


def test_no_ranges_and_a_changed_file(tmp_path, large, other):
    def change(request) -> bool:
        if request.number == 2:
            request.server.files.path, request.server.files.etag = other, '"two"'
        return False

    with FileServer(large, change) as server:
        server.ranges = False
        target = fetched(tmp_path, server.url, allow_full_download=True)
    assert columns(target) == columns(other)


def test_no_ranges_and_a_part_instead_of_the_whole(tmp_path, large):
    def part(request) -> bool:
        return request.number > 0 and request.whole(b"x" * 100, 206)

    with FileServer(large, part) as server:
        server.ranges = False
        with pytest.raises(PmmoError, match="answers 206 to a whole download, 3 times in a row"):
            fetched(tmp_path, server.url, allow_full_download=True)


def test_no_ranges_and_a_connection_that_always_breaks(tmp_path, large):
    """It gets on each time, so that it is tried again, but never to the metadata at the end."""
    with FileServer(large, truncated) as server:
        server.ranges = False
        with pytest.raises(PmmoError, match=rf"had to be read {PASSES} times from its start"):
            fetched(tmp_path, server.url, allow_full_download=True)
    assert len(server.requests) == PASSES + 1  # and the first look


# ---- faults that end well


def first_time(fault):
    """The fault once, on the first request for a column's values."""
    done = []

    def once(request) -> bool:
        if done or request.stop - request.start <= BLOCK:
            return False
        done.append(True)
        return fault(request)

    return once


def truncated(request) -> bool:
    request.reply()
    request.close_connection = True
    return request.body((request.start + request.stop) // 2)


def reset(request) -> bool:
    request.reply()
    request.body((request.start + request.stop) // 2)
    time.sleep(0.1)  # a reset takes what waits to be read with it
    return request.reset()


def stalled(request) -> bool:
    request.reply()
    request.body((request.start + request.stop) // 2)
    time.sleep(1.0)
    request.close_connection = True
    return True


def dripping(request) -> bool:
    request.reply()
    request.close_connection = True
    return request.body(request.start + 200, pause=0.02, portion=1)


def dripping_head(request) -> bool:
    for _ in range(100):
        request.wfile.write(b"H")
        time.sleep(0.05)
    return True


def unavailable(request) -> bool:
    return request.whole(b"later", 503, Retry_After="1")


def too_many(request) -> bool:
    return request.whole(b"later", 429, Retry_After="1")


def retry_at_nonsense(request) -> bool:
    return request.whole(b"later", 503, Retry_After="soon")


def wrong_range(request) -> bool:
    request.start += 8
    request.reply()
    return request.body()


def short_length(request) -> bool:
    request.reply(Content_Length=str(request.stop - request.start - 100))
    return request.body(request.stop - 100)


def long_length(request) -> bool:
    request.reply(Content_Length=str(request.stop - request.start + 100))
    request.close_connection = True
    return request.body()


def no_length(request) -> bool:
    request.reply(Content_Length=None, Connection="close")
    return request.body()


def no_length_cut(request) -> bool:
    request.reply(Content_Length=None, Connection="close")
    return request.body((request.start + request.stop) // 2)


def chunked(request) -> bool:
    request.reply(Content_Length=None, Transfer_Encoding="chunked")
    data = request.server.files.read(request.start, request.stop - request.start)
    for start in range(0, len(data), 50_000):
        part = data[start : start + 50_000]
        request.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    request.wfile.write(b"0\r\n\r\n")
    return True


def whole_file(request) -> bool:
    request.ranged, request.start, request.stop = False, 0, request.server.files.size
    request.reply()
    return request.body()


def dripping_chunk_size(request) -> bool:
    """Leading zeros of a chunk's length, which never ends."""
    request.reply(Content_Length=None, Transfer_Encoding="chunked")
    for _ in range(60):
        request.wfile.write(b"0")
        time.sleep(0.05)
    request.close_connection = True
    return True


def dripping_trailer(request) -> bool:
    """All bytes but the last chunk's, then a line of the trailer that never ends."""
    request.reply(Content_Length=None, Transfer_Encoding="chunked")
    data = request.server.files.read(request.start, request.stop - request.start)[:-1]
    request.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n")
    for _ in range(60):
        request.wfile.write(b"x")
        time.sleep(0.05)
    request.close_connection = True
    return True


def dripping_headers(request) -> bool:
    """A whole line of the head at a time."""
    request.wfile.write(b"HTTP/1.1 206 Partial\r\n")
    for number in range(60):
        request.wfile.write(f"X-{number}: x\r\n".encode())
        time.sleep(0.05)
    return True


DRIPPING = [dripping, dripping_head, dripping_headers, dripping_chunk_size, dripping_trailer]
MENDED = [
    *(truncated, reset, stalled, *DRIPPING, unavailable, too_many),
    *(retry_at_nonsense, wrong_range, short_length, long_length, no_length, no_length_cut),
    *(chunked, whole_file),
]


@pytest.mark.parametrize("fault", MENDED)
def test_passing_fault_ends_in_the_right_file(tmp_path, large, fault):
    with FileServer(large, first_time(fault)) as server:
        target = fetched(tmp_path, server.url)
    assert columns(target) == columns(large)
    assert provenance(target)["sha256"] == hashes(large)
    if fault in (truncated, reset, no_length_cut):  # what came before is not moved again
        assert server.sent < 1.1 * nbytes(large) + 4 * BLOCK


@pytest.mark.parametrize("fault", DRIPPING)
def test_a_server_that_drips_is_given_up_wherever_it_does(tmp_path, large, fault):
    with FileServer(large, fault) as server:
        start = time.monotonic()
        with pytest.raises(PmmoError, match=r"sends only \d+ bytes per second, 3 times in a row"):
            fetched(tmp_path, server.url)
    assert time.monotonic() - start < 3 * (HASTY.slow_window + 1.0)


@pytest.mark.parametrize("fault", [dripping_head, dripping_chunk_size])
def test_a_proxy_that_drips_is_given_up(tmp_path, large, monkeypatch, fault):
    monkeypatch.setenv("no_proxy", "")
    with FileServer(large, fault) as server:
        monkeypatch.setenv("http_proxy", server.url.removesuffix("/movies.hdf5"))
        with pytest.raises(PmmoError, match="sends only"):
            fetched(tmp_path, "http://example.invalid/movies.hdf5")


def test_a_redirect_is_not_read_on(tmp_path, large):
    """Its body may never end, and is not needed."""

    def door(request) -> bool:
        request.reply(302, Location=server.url, Content_Length=str(10**12))
        request.wfile.write(bytes(1 << 16))
        time.sleep(0.5)
        request.close_connection = True
        return True

    with FileServer(large) as server, FileServer(large, door) as first:
        start = time.monotonic()
        assert columns(fetched(tmp_path, first.url)) == columns(large)
    assert time.monotonic() - start < 5


def test_retry_after_is_kept_but_capped(tmp_path, large):
    def busy(request) -> bool:
        return request.number == 0 and request.whole(b"", 503, Retry_After="3600")

    with FileServer(large, busy) as server:
        start = time.monotonic()
        fetched(tmp_path, server.url)
    assert time.monotonic() - start > HASTY.retry_after_max


def test_redirect_is_followed(tmp_path, large):
    with FileServer(large) as server:
        with FileServer(large) as door:
            door.fault = lambda request: request.whole(b"", 302, Location=server.url)
            target = fetched(tmp_path, door.url)
        assert columns(target) == columns(large)
        assert provenance(target)["source"] == door.url


# ---- faults that end in one sentence


def page(request) -> bool:
    return request.whole(b"<html>Please log in</html>", Content_Type="text/html")


def page_as_file(request) -> bool:
    return request.whole(b"<html>Please log in</html>")


def page_206(request) -> bool:
    request.reply(Content_Type="text/html; charset=utf-8")
    request.wfile.write(b"<" * (request.stop - request.start))
    return True


def page_206_as_file(request) -> bool:
    request.reply()
    request.wfile.write(b"<" * (request.stop - request.start))
    return True


def gzip(request) -> bool:
    request.reply(Content_Encoding="gzip")
    return request.body()


def multipart(request) -> bool:
    return request.whole(b"--x", 206, Content_Type="multipart/byteranges; boundary=x")


def no_content_range(request) -> bool:
    request.reply(Content_Range=None)
    return request.body()


def loop(request) -> bool:
    return request.whole(b"", 302, Location=request.path)


def endless(request) -> bool:
    return request.whole(b"", 302, Location=request.path + "x")


def nowhere(request) -> bool:
    return request.whole(b"", 302, Location="http://[")


def status(code: int):
    return lambda request: request.whole(b"<html>", code, Content_Type="text/html")


def not_http(request) -> bool:
    request.wfile.write(b"220 ftp ready\r\n")
    request.close_connection = True
    return True


def gone_short(request) -> bool:
    """After the first request, the file is said to have 5 bytes."""
    return request.start > 0 and request.whole(b"", 416, Content_Range="bytes */5")


def no_such_range(request) -> bool:
    return request.start > 0 and request.whole(b"", 416)


def no_validator(request) -> bool:
    request.reply(ETag=None, Last_Modified=None)
    return request.body()


def weak_validator(request) -> bool:
    """The same for files that are alike, not for the same file."""
    request.reply(ETag='W/"1"', Last_Modified=None)
    return request.body()


def whole_after_the_first(request) -> bool:
    return request.number > 0 and whole_file(request)


def no_size(request) -> bool:
    """The whole file, of a length that nobody says."""
    request.ranged, request.start, request.stop = False, 0, request.server.files.size
    return no_length(request)


REFUSED = [
    (page, "a web page instead of the file"),
    (page_as_file, "not an HDF5 file (it starts with b'<html>Pl'"),
    (page_206, "a web page instead of the file"),
    (page_206_as_file, "not an HDF5 file"),
    (gzip, "encoded as 'gzip'"),
    (multipart, "several parts"),
    (no_content_range, "without saying which"),
    (loop, "redirects in circles"),
    (endless, "redirects in circles"),
    (nowhere, "redirects to nowhere"),
    (status(401), "401 Unauthorized and wants a password; none is ever sent"),
    (status(403), "403 Forbidden"),
    (status(404), "404 Not Found"),
    (status(410), "410 Gone"),
    (status(416), "empty"),
    (status(429), "429 Too Many Requests, 3 times in a row"),
    (status(503), "503 Service Unavailable, 3 times in a row"),
    (truncated, "stopped too early, 3 times in a row"),
    (reset, "3 times in a row"),
    (stalled, "does not answer or has stopped sending, 3 times in a row"),
    (no_length_cut, "bytes too early, 3 times in a row"),
    (whole_after_the_first, "the whole file where a part was asked for, 3 times in a row"),
    (no_size, "does not say how large the file is"),
    (wrong_range, "the server sent bytes"),
    (short_length, "announced"),
    (long_length, "announced"),
    (not_http, "the connection failed"),
    (gone_short, "has 5 bytes now. Tried 3 times"),
    (no_such_range, "the server has no bytes"),
    (no_validator, "neither ETag nor Last-Modified"),
    (weak_validator, "a weak ETag does not count"),
]


@pytest.mark.parametrize(
    ("fault", "words"), REFUSED, ids=lambda item: getattr(item, "__name__", "")
)
def test_lasting_fault_ends_in_one_sentence(tmp_path, large, fault, words):
    with FileServer(large, fault) as server, pytest.raises(PmmoError) as caught:
        fetched(tmp_path, server.url)
    assert words in str(caught.value)
    assert str(caught.value).startswith(server.url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", [no_validator, weak_validator])
def test_no_validator_is_enough_with_pins(tmp_path, large, fault):
    with FileServer(large, fault) as server:
        target = fetched(tmp_path, server.url, sha256=hashes(large))
    assert provenance(target)["pinned"] is True


def test_unreachable(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/movies.hdf5"
    with pytest.raises(PmmoError, match=r"movies.hdf5: the connection failed: .*refused") as caught:
        fetched(tmp_path, url)
    assert "ConnectionCls" not in str(caught.value)  # urllib3's wrapping is no use to a reader


@pytest.mark.parametrize("url", ["ftp://example.org/x", "http://", "https:///x", "http://[/x"])
def test_odd_addresses(tmp_path, url):
    with pytest.raises(PmmoError, match="http"):
        fetched(tmp_path, url)


def test_dead_proxy_is_named(tmp_path, large, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("http_proxy", f"http://me:secret@{address}")
    monkeypatch.setenv("no_proxy", "")
    with FileServer(large) as server, pytest.raises(PmmoError, match="HTTP_PROXY") as caught:
        fetched(tmp_path, server.url)
    assert f"proxy http://{address}" in str(caught.value)
    assert "secret" not in str(caught.value)


# ---- https


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A certificate for 127.0.0.1 with its key, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    command += f" -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout {path}.key"
    subprocess.run([*command.split(), "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_bytes(Path(f"{path}.key").read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


def test_https(tmp_path, large, certificate, monkeypatch):
    with FileServer(large, certificate=certificate) as server:
        with pytest.raises(PmmoError, match="its certificate is refused"):
            fetched(tmp_path, server.url)
        assert server.requests == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{certificate}.crt")
        assert columns(fetched(tmp_path, server.url)) == columns(large)


def test_https_where_the_server_speaks_http(tmp_path, large):
    with FileServer(large) as server, pytest.raises(PmmoError, match="no secure connection: "):
        fetched(tmp_path, server.url.replace("http:", "https:"))


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "hTTpS"])
@pytest.mark.parametrize("other", ["http", "HTTP"])
def test_https_never_becomes_http(tmp_path, large, certificate, monkeypatch, scheme, other):
    """However it is written in either address."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{certificate}.crt")
    with FileServer(large) as plain, FileServer(large, certificate=certificate) as door:
        target = plain.url.replace("http", other)
        door.fault = lambda request: request.whole(b"", 302, Location=target)
        with pytest.raises(PmmoError, match=r"redirects from https to (?i:http)://.*not followed"):
            fetched(tmp_path, door.url.replace("https", scheme))
        assert plain.requests == []


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_https_leads_to_https(tmp_path, large, certificate, monkeypatch, scheme):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", f"{certificate}.crt")
    tls = {"certificate": certificate}
    with FileServer(large, **tls) as server, FileServer(large, **tls) as door:
        target = server.url.replace("https", scheme)
        door.fault = lambda request: request.whole(b"", 302, Location=target)
        assert columns(fetched(tmp_path, door.url)) == columns(large)


# ---- progress


def test_progress_in_a_log_is_sparse_and_complete(tmp_path, large, capsys):
    with FileServer(large) as server:
        fetched(tmp_path, server.url)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"fetch http://\S+: 2.07M of 2.07M \(100%\), \S+B/s, 00:00 left", line)


def test_progress_on_a_terminal(large):
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal, Progress("fetch x", 1000, terminal) as progress:
        progress.moved(400)
        progress.bar.refresh()
    shown = all_of(leader)
    os.close(leader)
    assert "40%|" in shown  # the bar, beside the line at the end
    assert "B/s" in shown


def all_of(leader: int) -> str:
    """What was written to a terminal that is closed now; one read gives what has come through."""
    parts = []
    with suppress(OSError):  # Linux: the end
        while part := os.read(leader, 10_000):
            parts.append(part)
    return b"".join(parts).decode()


# ---- trust


def flipped(request) -> bool:
    """One bit of the image column wrong on the way."""
    if request.stop - request.start <= BLOCK:
        return False
    request.reply()
    data = bytearray(request.server.files.read(request.start, request.stop - request.start))
    data[1000] ^= 1
    request.wfile.write(data)
    return True


def test_flipped_bit_is_caught_by_a_pinned_hash(tmp_path, large):
    with FileServer(large, flipped) as server:
        with pytest.raises(PmmoError, match=r"dataset 'vgg_features' has sha256 .*pinned"):
            fetched(tmp_path, server.url, sha256=hashes(large))
        server.fault = None
        target = fetched(tmp_path, server.url, sha256=hashes(large))  # the bad part is forgotten
    assert columns(target) == columns(large)
    assert provenance(target)["pinned"] is True


def test_changed_during_the_run_starts_over(tmp_path, large, other):
    def change(request) -> bool:
        if request.stop - request.start > BLOCK and request.server.files.path == large:
            request.reply()
            request.body((request.start + request.stop) // 2)
            request.server.files.path, request.server.files.etag = other, '"two"'
            request.close_connection = True
            return True
        return False

    with FileServer(large, change) as server:
        target = fetched(tmp_path, server.url)
    assert columns(target) == columns(other)


def test_ever_changing_file_is_given_up(tmp_path, large):
    def change(request) -> bool:
        request.server.files.etag = f'"{request.number}"'
        return False

    words = r"changed from .* Tried 3 times"
    with FileServer(large, change) as server, pytest.raises(PmmoError, match=words):
        fetched(tmp_path, server.url)


# ---- mirrors


def test_next_mirror_after_a_dead_or_different_one(tmp_path, large, other):
    with FileServer(large) as good, FileServer(other) as different:
        with FileServer(large) as dead:
            pass
        mirrors = [dead.url, different.url, good.url]
        target = fetched(tmp_path, "mmimdb", mirrors=mirrors, sha256=hashes(large))
        assert columns(target) == columns(large)
        assert provenance(target)["source"] == good.url
        with pytest.raises(PmmoError) as caught:
            fetched(tmp_path, "mmimdb", mirrors=mirrors[:2], sha256=hashes(large))
    message = str(caught.value)
    assert message.startswith("no mirror gives the file")
    assert all(url in message for url in mirrors[:2])


def test_no_mirror(tmp_path):
    with pytest.raises(PmmoError, match=r"data\.mirrors is empty"):
        fetch(tmp_path / "x", source="mmimdb", memory_limit_gb=1)
