"""Secrets in addresses: by the environment alone, and in no message and no file."""

import re
from pathlib import Path

import pytest

from pmmo.core.errors import PmmoError
from pmmo.fetching.addresses import expand, shown
from pmmo.fetching.fetch import fetch
from pmmo.fetching.http_session import Patience
from tests.file_server import FileServer
from tests.movie_files import write_good

ONCE = Patience(connect=1.0, stall=0.5, tries=1)
KEY = "k3y+/=%&s"  # with what addresses quote


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("KEY", KEY)


@pytest.fixture(scope="module")
def movies(tmp_path_factory) -> Path:
    return write_good(tmp_path_factory.mktemp("movies") / "movies.hdf5")


def fetched(tmp_path: Path, source: str, **options: object) -> Path:
    target, work = tmp_path / "data/movies.hdf5", tmp_path / ".work/fetch"
    fetch(target, source=source, memory_limit_gb=1.0, work=work, patience=ONCE, **options)
    return target


def refusal(tmp_path: Path, source: str, **options: object) -> str:
    with pytest.raises(PmmoError) as caught:
        fetched(tmp_path, source, **options)
    text = str(caught.value)
    assert not re.search("k3y", text, re.I), text
    assert "SECRET" not in text
    return text


def nowhere_below(folder: Path, secret: bytes) -> bool:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return not any(secret in path.read_bytes() or secret in bytes(path) for path in files)


@pytest.mark.parametrize(
    "form", ["?sig=$KEY", "?$KEY", "?a=$KEY&b=$KEY", "/$KEY/x", "?download=1&sig=$KEY"]
)
def test_the_server_gets_the_secret_and_no_file_and_no_message_has_it(
    tmp_path, movies, capfd, form
):
    with FileServer(movies) as server:
        target = fetched(tmp_path, server.url + form)
    sent = [path for path, _, _ in server.requests]
    assert len(sent) == len([path for path in sent if "k3y" in path]) > 0
    assert target.exists()
    assert nowhere_below(tmp_path, b"k3y")
    said = capfd.readouterr()
    assert "k3y" not in said.out + said.err
    assert "fetch http://" in said.err


def test_parts_are_found_again_with_another_signature(monkeypatch):
    """Signatures run out; where a download is kept depends on the address as it is written."""
    first = expand("https://host/f?sig=$KEY")
    monkeypatch.setenv("KEY", "another")
    second = expand("https://host/f?sig=$KEY")
    assert first.url != second.url
    assert first.written == second.written
    assert "k3y" not in repr(first)


def test_values_are_put_in_once(monkeypatch):
    monkeypatch.setenv("A", "$KEY")
    assert expand("https://host/$A/f").url == "https://host/$KEY/f"


@pytest.mark.parametrize("status", [403, 404, 503, 401])
def test_a_server_that_refuses(tmp_path, movies, status):
    """And repeats the address in its reason."""

    def repeats(request) -> bool:
        request.send_response(status, f"no {request.path}")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return True

    with FileServer(movies, repeats) as server:
        text = refusal(tmp_path, f"{server.url}/$KEY?sig=$KEY")
    assert str(status) in text
    assert f"{server.url}/$KEY: " in text
    assert nowhere_below(tmp_path / ".work", b"k3y")


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:1{path}",
        "http://127.0.0.1:1/f?token=SECRET",
        "http://me:SECRET@127.0.0.1:1/f",
        "http://127.0.0.1:SECRET/f",
        "http://[SECRET/f",
        "ftp://me:SECRET@127.0.0.1/f",
        "http://127.0.0.1:1/f#SECRET",
        "http://127.0.0.1:1/f;s=SECRET",
        "/SECRET",
        "http://127.0.0.1:1/SECRET",
    ],
)
def test_a_redirect(tmp_path, movies, location):
    def door(request) -> bool:
        return request.whole(b"", 302, Location=location.format(path=request.path))

    with FileServer(movies, door) as server:
        refusal(tmp_path, f"{server.url}/$KEY?sig=$KEY")


@pytest.mark.parametrize(
    "written",
    [
        "http://127.0.0.1:$KEY/f",
        "http://127.0.0.1:1/$KEY?sig=$KEY",
        "http://$KEY/f",
        "http://$KEY@127.0.0.1:1/f",
        "http://me:$KEY@127.0.0.1:1/f",
        "http://127.0.0.1:1$KEY",
        "http://[$KEY/f?x=1",
        "$KEY://127.0.0.1/f",
        "http://127.0.0.1:SECRET/f",
        "http://me:SECRET@127.0.0.1:1/f",
        "http://me:SE/SECRET@127.0.0.1:1/f",
        "http:/SECRET",
    ],
)
def test_an_address_that_is_none(tmp_path, written):
    refusal(tmp_path, written)
    refusal(tmp_path, "mmimdb", mirrors=[written, "http://127.0.0.1:1/f"])


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "proxy",
    [
        "http://me:SECRET@127.0.0.1:1",
        "https://me:SECRET@127.0.0.1:1",
        "me:SECRET@127.0.0.1:1",
        "http://me:SECRET@127.0.0.1:port",
        "http://me:SECRET@127.0.0.1:99999",
        "http://me:SEC/SECRET@127.0.0.1:1",
        "http://me:SECRET@[::1",
        "socks5://me:SECRET@127.0.0.1:1",
        "ftp://me:SECRET@127.0.0.1:1",
        "http://me:SECRET@",
    ],
)
def test_a_proxy(tmp_path, monkeypatch, scheme, proxy):
    monkeypatch.setenv(f"{scheme}_proxy", proxy)
    refusal(tmp_path, f"{scheme}://example.invalid/$KEY?sig=$KEY")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "KEY that it names is not set"),
        ("", "KEY that it names is not set"),
        ("k3y k3y", "is no part of an address"),
        ("k3y\n", "is no part of an address"),
        ("k3yλ", "is no part of an address"),
    ],
)
def test_a_variable_that_cannot_be_put_in(tmp_path, monkeypatch, value, says):
    monkeypatch.delenv("KEY")
    if value is not None:
        monkeypatch.setenv("KEY", value)
    assert says in refusal(tmp_path, "https://example.invalid/f?sig=$KEY")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://host/f?x=SECRET", "https://host/f"),
        ("https://me:SECRET@host:1/f#SECRET", "https://host:1/f"),
        ("https://host/f;SECRET", "https://host/f"),
        ("me:SECRET@host:3128", "host:3128"),
        ("https://host/f?to=http://me:SECRET@b", "https://host/f"),
        ("https://host:SECRET/f", "the address"),
        ("https://SECRET\u202e/f", "the address"),
        ("https://host/a b", "the address"),
        ("https://host/\x1b[2J", "the address"),
        ("", "the address"),
    ],
)
def test_what_is_shown_of_an_address(url, text):
    assert shown(url) == text
    assert len(shown(f"https://host/{'x' * 10_000}")) <= 300
