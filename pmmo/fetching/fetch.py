"""The stage `fetch`: write one small file in the published layout from any source of movies."""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from pmmo.core.errors import PmmoError
from pmmo.core.names import Provenance
from pmmo.fetching.assembly import WrongHash, assemble, temporary
from pmmo.fetching.download import download, folder_of
from pmmo.fetching.http_session import Patience, Unusable
from pmmo.hdf5.layout import COLUMNS, Column
from pmmo.hdf5.layout_checks import check_layout
from pmmo.hdf5.sandbox import inspect
from pmmo.hdf5.sources import BadFile, LocalFile

GB = 1e9
WORK = Path(".work/fetch")  # not one of DVC's outs, because DVC removes these before a stage runs


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
    """Write the four columns and the split of `source` to `target`; return its provenance.

    `source` is `synthetic` (with `rows` and `seed`), `mmimdb` (the published file, from the first
    of `mirrors` that provides it), a path, or an http(s) address. `sha256` pins columns to hashes
    ("" pins nothing; `synthetic` is never pinned). `memory_limit_gb` limits the total size of the
    columns. `allow_full_download` allows a whole download from a server without ranges. `work` has
    the unfinished parts. A PmmoError says what is wrong and what to do; it leaves `target` as is.
    """
    pins = _pins(sha256 or {})
    limit = memory_limit_gb * GB
    urls = [source] if "://" in source else list(mirrors) if source == "mmimdb" else []
    if source == "mmimdb" and not urls:
        raise PmmoError("data.mirrors is empty; data.source: mmimdb needs one (params.yaml).")
    with _ready(target, work):
        if source == "synthetic":
            found = _fetch_synthetic(target, rows or 0, seed or 0, limit)
        elif urls:
            found = _fetch_urls(target, urls, work, pins, limit, allow_full_download, patience)
        else:
            found = _fetch_file(target, Path(source).expanduser(), "file", source, pins, limit)
        _clean(work)
    return found


def _clean(work: Path) -> None:
    """Delete all parts: those of the finished file and those of other addresses."""
    for entry in work.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _fetch_urls(
    target: Path,
    urls: Sequence[str],
    work: Path,
    pins: Mapping[str, str],
    limit: float,
    allow_full_download: bool,
    patience: Patience | None,
) -> Provenance:
    """Fetch from the first address with a valid file; bytes of two addresses never mix."""
    reasons = []
    for url in urls:
        try:
            layout, parts, name = download(
                url,
                work,
                target,
                pins=pins,
                limit=limit,
                allow_full_download=allow_full_download,
                patience=patience,
            )
            return assemble(
                target,
                layout,
                partial(_part, parts),
                kind="http",
                source=name,
                name=name,
                pins=pins,
            )
        except (Unusable, BadFile, WrongHash) as reason:
            if isinstance(reason, WrongHash):
                shutil.rmtree(folder_of(work, url), ignore_errors=True)
            reasons.append(str(reason))
    if len(reasons) > 1:
        reasons.insert(0, "no mirror gives the file (data.mirrors in params.yaml).")
    reasons.append(
        "What has come stays: run again to go on. Or get the file another way and give its path: "
        "-S data.source=/path/to/file (docs/data.md, Offline)."
    )
    raise PmmoError(" ".join(reasons))


def _part(parts: Mapping[str, Path], column: Column) -> Iterator[memoryview]:
    with LocalFile(parts[column.name]) as file:
        yield from file.stream(0, file.size)


@contextmanager
def _ready(target: Path, work: Path) -> Iterator[None]:
    """Hold the lock of `work`, and check that both folders are writable."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir(parents=True, exist_ok=True)
        with _alone(work):
            temporary(target).touch()
            try:
                yield
            finally:
                temporary(target).unlink(missing_ok=True)
    except OSError as error:
        raise PmmoError(
            f"{error.filename or target}: cannot be written ({error.strerror or error}). Free "
            "some space, or make the folder writable, and run again."
        ) from None


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Allow one fetch at a time; the system releases the lock of a killed process."""
    lock = FileLock(work.with_name(work.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"fetch: another fetch uses {work}; waiting for it to end", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _pins(sha256: Mapping[str, str]) -> dict[str, str]:
    pins = {name: value.strip().lower() for name, value in sha256.items() if value}
    for name, value in pins.items():
        if name not in COLUMNS:
            raise PmmoError(
                f"data.sha256 names {name!r}; expected some of {', '.join(COLUMNS)} (params.yaml)."
            )
        if len(value) != 64 or set(value) - set("0123456789abcdef"):
            raise PmmoError(
                f"data.sha256.{name} is {value!r}; expected 64 hexadecimal digits, or nothing "
                "(params.yaml)."
            )
    return pins


def _fetch_synthetic(target: Path, rows: int, seed: int, limit: float) -> Provenance:
    from pmmo.fetching.synthetic import write_synthetic  # imported only for this source

    whole = target.with_name(target.name + ".synthetic.tmp")
    try:
        write_synthetic(whole, rows=rows, seed=seed)
        return _fetch_file(target, whole, "synthetic", "synthetic", {}, limit)
    finally:
        whole.unlink(missing_ok=True)


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
