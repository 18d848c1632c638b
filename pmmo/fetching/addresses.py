"""Addresses of files: what params.yaml may have of one, what is asked, and what may be shown.

A signature, key or password in an address is written as `$NAME` and comes from the environment;
`fetch` alone puts it in. No file and no message has it.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from pmmo.core.errors import PmmoError

VARIABLE = re.compile(r"\$([A-Za-z_]\w*)", re.ASCII)
HOST = r"(\[[0-9A-Fa-f:.]+\]|[^][/?#@:;\\\s]+)(:([0-9]{1,5}|\$\w+))?(/[^?#@;\\\s]*)?"
ADDRESS = re.compile(rf"(?P<scheme>https?)://{HOST}(\?(?P<query>[^#\s]*))?", re.I)
SHOWN = re.compile(rf"([a-z][a-z0-9+.-]*://)?{HOST}", re.I)
# what a query may have in the open: names whose values come from the environment, and switches
OPEN = re.compile(r"([\w.-]{1,40}=)?\$[A-Za-z_]\w*|(download|dl|raw)=(0|1|true|false)", re.ASCII)
IN_HOST, ANYWHERE = re.compile(r"[\w.:\[\]-]+", re.ASCII), re.compile("[!-~]+")  # of a value
SENT = "!#$&'()*+,/:;=?@[]~"  # what requests leaves as it is
PASSWORD = (
    "the address contains a name or password (what stands before @); none is ever sent. Download "
    "the file yourself and give its path as data.source."
)
LONGEST = 300  # characters of an address in a message
SHORTEST = 4  # characters of a value that is hidden in messages: fewer are no secret


class Unusable(PmmoError):
    """This address does not give the file; another mirror may."""


def is_address(source: str) -> bool:
    """Whether `source` is meant as an address, well-formed or not, rather than as a path."""
    return "://" in source or re.match(r"\s*(https?|ftps?):", source, re.I) is not None


def local_path(source: str) -> Path:
    """The file that a source without an address names; ~ is the user's home."""
    try:
        return Path(source).expanduser()
    except RuntimeError:  # no such user: then it is a name like any other
        return Path(source)


def check_written(name: str, text: str) -> None:
    """PmmoError where the parameter `name` holds no address, or one that may hold a secret.

    The message does not repeat the address.
    """
    found = ADDRESS.fullmatch(text)
    if "@" in text.partition("?")[0]:
        raise PmmoError(f"{name}: {PASSWORD}")
    if found is None:
        raise PmmoError(
            f"{name} is not an address that starts with http:// or https:// and a host, without "
            "spaces, ; or #."
        )
    items = filter(None, (found["query"] or "").split("&"))
    if not all(map(OPEN.fullmatch, items)):
        raise PmmoError(
            f"{name} may hold a secret: what follows ? in an address is often a key. Put it into "
            "an environment variable and write its name there, as in https://host/file?$NAME "
            "(docs/data.md, Secrets)."
        )


@dataclass(frozen=True)
class Address:
    """An address as it is written, which may be kept, and as it is asked, which may not."""

    written: str
    url: str = field(repr=False)
    secrets: tuple[tuple[str, str], ...] = field(repr=False)  # (form of a value, $NAME)

    @property
    def name(self) -> str:
        return shown(self.written)

    def hide(self, text: str) -> str:
        """The text with the names of variables instead of their values."""
        for value, name in self.secrets:
            text = re.sub(re.escape(value), name, text, flags=re.I)
        return text


def expand(written: str) -> Address:
    """The address with the environment's values; Unusable where one is missing or cannot be."""
    host = re.match("[^/?#]*//[^/?#]*", written)
    if host and "@" in host[0]:
        raise Unusable(f"{shown(written)}: {PASSWORD}")
    secrets: set[tuple[str, str]] = set()

    def value(found: re.Match) -> str:
        text = os.environ.get(found[1], "")
        in_host = host is not None and found.end() <= host.end()
        if not (IN_HOST if in_host else ANYWHERE).fullmatch(text):
            raise Unusable(
                f"{shown(written)}: the environment variable {found[1]} that it names is "
                f"{'not set' if not text else 'no part of an address'}. Set it where dvc runs "
                "(docs/data.md, Secrets)."
            )
        forms = {text, unquote(text), *(quote(text, safe) for safe in ("", "/", SENT, SENT + "%"))}
        secrets.update((form, found[0]) for form in forms if len(form) >= SHORTEST)
        return text

    url = VARIABLE.sub(value, written)
    longest_first = sorted(secrets, key=lambda pair: (-len(pair[0]), pair))
    return Address(written, url, tuple(longest_first))


def shown(url: str) -> str:
    """An address without what may be secret in it, for messages and records."""
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    text = scheme + mark + re.split("[?#;]", rest)[0].rpartition("@")[2]
    return text[:LONGEST] if SHOWN.fullmatch(text) and text.isprintable() else "the address"
