"""The stage `fetch`: any source of movies -> one small file in the published layout."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pmmo.core.errors import PmmoError
from pmmo.core.lock import alone
from pmmo.core.names import Provenance
from pmmo.core.writing import check_writable
from pmmo.fetching.addresses import Unusable, expand, is_address, local_path
from pmmo.fetching.assembly import WrongHash, assemble
from pmmo.fetching.download import download, folder_of, forget
from pmmo.fetching.http_session import Patience
from pmmo.hdf5.layout_checks import check_layout
from pmmo.hdf5.sandbox import inspect
from pmmo.hdf5.sources import BadFile, LocalFile

GB = 1e9
WORK = Path(".work/fetch")  # outside DVC's outs, which DVC removes before a stage runs


def fetch(
    target: Path,
    *,
    source: str,
    rows: int | None = None,
    seed: int | None = None,
    sha256: Mapping[str, str] | None = None,
    memory_limit_gb: float,
    mirrors: Sequence[str] = (),
    allow_full_download: bool = False,
    work: Path = WORK,
    patience: Patience | None = None,
) -> Provenance:
    """Bring the four columns and the split of `source` to the file `target`; its provenance.

    `source` is `synthetic` (with `rows` and `seed`), `mmimdb` (the published file, from the first
    of `mirrors` that gives it), a path, or an http(s) address, in which `$NAME` stands for what the
    environment has (`addresses`). `sha256` pins columns to hashes
    ("" pins nothing; `synthetic` is never pinned). `memory_limit_gb` bounds the columns together.
    `allow_full_download` lets a server without ranges send the whole file. `work` keeps what is
    under way. PmmoError says what is wrong and what to do; then `target` is as before.
    """
    pins = {name: value.lower() for name, value in (sha256 or {}).items() if value}
    limit = memory_limit_gb * GB
    urls = [source] if is_address(source) else list(mirrors) if source == "mmimdb" else []
    if source == "mmimdb" and not urls:
        raise PmmoError("data.mirrors is empty; data.source: mmimdb needs one (params.yaml).")
    with _ready(target, work):
        if source == "synthetic":
            found = _fetch_synthetic(target, rows or 0, seed or 0, limit, work)
        elif urls:
            options = {"limit": limit, "allow_full_download": allow_full_download}
            found = _fetch_urls(target, urls, work=work, pins=pins, patience=patience, **options)
        else:
            found = _fetch_file(target, local_path(source), "file", source, pins, limit)
        for entry in work.iterdir():  # parts of this file, and of addresses no longer asked
            forget(entry)
    return found


def _fetch_urls(target: Path, urls: Sequence[str], **options: Any) -> Provenance:
    """From the first address that gives a good file; each on its own, bytes never mix."""
    reasons = []
    for url in urls:
        try:
            return _fetch_url(target, url, **options)
        except Unusable as reason:
            reasons.append(str(reason))
    if len(reasons) > 1:
        reasons.insert(0, "no mirror gives the file (data.mirrors in params.yaml).")
    reasons.append(
        "What has come stays: run again to go on. Or get the file another way and give its path: "
        "-S data.source=/path/to/file (docs/data.md, Offline)."
    )
    raise PmmoError(" ".join(reasons))


def _fetch_url(
    target: Path, url: str, *, work: Path, pins: Mapping[str, str], **options: Any
) -> Provenance:
    """Unusable, without the address's secrets, where it does not give a good file."""
    address = expand(url)
    try:
        layout, parts = download(address, work, target, pins=pins, **options)
        return assemble(
            target,
            layout,
            lambda column: _whole(parts[column.name]),
            kind="http",
            source=address.name,
            name=address.name,
            pins=pins,
        )
    except (Unusable, BadFile, WrongHash) as reason:
        if isinstance(reason, WrongHash):
            forget(folder_of(work, address))
        raise Unusable(address.hide(str(reason))) from None


def _whole(part: Path) -> Iterator[memoryview]:
    with LocalFile(part) as file:
        yield from file.stream(0, file.size)


@contextmanager
def _ready(target: Path, work: Path) -> Iterator[None]:
    """Alone, in folders that can be written to."""
    try:
        check_no_link(work.parent)
        check_no_link(work)
        work.mkdir(parents=True, exist_ok=True)
        with alone(work.with_name(f"{work.name}.lock"), f"fetch: another fetch uses {work}"):
            check_writable(target)
            yield
    except OSError as error:
        raise PmmoError(
            f"{error.filename or target}: cannot be written ({error.strerror or error}). Free "
            "some space, or make the folder writable, and run again."
        ) from None


def check_no_link(folder: Path) -> None:
    """PmmoError for a link: what is emptied in the end must be a folder of this project."""
    if folder.is_symlink():
        raise PmmoError(
            f"{folder}: is a link to {folder.readlink()}, and is emptied after use. Remove the "
            "link; a folder is made in its place."
        )


def _fetch_synthetic(target: Path, rows: int, seed: int, limit: float, work: Path) -> Provenance:
    from pmmo.fetching.synthetic import write_synthetic  # only this source needs it

    whole = work / "synthetic.hdf5"
    write_synthetic(whole, rows=rows, seed=seed)
    return _fetch_file(target, whole, "synthetic", "synthetic", {}, limit)


def _fetch_file(
    target: Path, path: Path, kind: str, source: str, pins: Mapping[str, str], limit: float
) -> Provenance:
    remedy = "Check data.source in params.yaml and that you may read it."
    if not path.is_absolute():
        remedy += (
            f" It was looked for in {Path.cwd()}; an experiment in the queue runs in a copy, so "
            "give it an absolute path."
        )
    with LocalFile(path, remedy) as file:
        layout = check_layout(inspect(file), file.name, file.size, limit)
        return assemble(
            target,
            layout,
            lambda column: file.stream(column.offset, column.nbytes),
            kind=kind,
            source=source,
            name=file.name,
            pins=pins,
            settled=file.check_unchanged,
        )
