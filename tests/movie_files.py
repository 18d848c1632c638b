"""Movie files for tests: good ones, and one of each bad kind that `extract` must refuse.

`BAD` maps a kind to (what makes a good file bad, words that the message must contain).
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np

from pmmo.data.value_checks import LARGEST
from pmmo.hdf5.layout import COLUMNS
from pmmo.hdf5.writer import split_rows, write_movies

ROWS, TEXT, IMAGE = 60, 8, 16
NAMES = ("Drama", "Comedy", "Sci-Fi")
SPLITS = {"train": (0, 36), "dev": (36, 42), "test": (42, 60)}
BOUNDS = ("start", "stop")
FRACTIONAL = [("split", "S5"), ("source", "S12"), *((name, "f8") for name in BOUNDS)]


def arrays(rows: int = ROWS, text: int = TEXT, image: int = IMAGE, seed: int = 0) -> dict:
    """Random values of the four columns, as keyword arguments of write_movies."""
    random = np.random.default_rng(seed)
    return {
        "text": random.normal(size=(rows, text)).astype("<f4"),
        "image": random.random((rows, image)).astype("<f4"),
        "genres": random.integers(0, 2, (rows, len(NAMES))).astype("<i4"),
        "ids": [b"%07d" % row for row in range(rows)],
    }


def write_good(path: Path, **changes: object) -> Path:
    """A good file; `changes` replace arguments of write_movies."""
    defaults = {**arrays(), "genre_names": NAMES, "splits": SPLITS}
    write_movies(path, **(defaults | changes))
    return path


def replaced(name: str, **options: object) -> Callable[[Path], None]:
    """Store a dataset anew; `options` as for h5py's create_dataset, values where none are given."""

    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            values, attributes = file[name][()], dict(file[name].attrs)
            del file[name]
            given = options if {"data", "shape"} & set(options) else {"data": values, **options}
            dataset = file.create_dataset(name, **given)
            if "target_names" in attributes:
                dataset.attrs["target_names"] = attributes["target_names"]

    return change


def converted(name: str, dtype: str) -> Callable[[Path], None]:
    return lambda path: replaced(name, data=column(path, name).astype(dtype))(path)


def column(path: Path, name: str) -> np.ndarray:
    with h5py.File(path) as file:
        return file[name][()]


def columns(path: Path) -> dict[str, bytes]:
    return {name: column(path, name).tobytes() for name in COLUMNS}


def nbytes(path: Path) -> int:
    with h5py.File(path) as file:
        return sum(file[name].nbytes for name in COLUMNS)


def hashes(path: Path) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in columns(path).items()}


def provenance(path: Path) -> dict:
    with h5py.File(path) as file:
        return json.loads(file.attrs["provenance"])


def without(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[name]

    return change


def value(name: str, row: object, number: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file[name][row] = number

    return change


def names(text: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file["genres"].attrs["target_names"]
            if text is not None:
                file["genres"].attrs["target_names"] = text

    return change


def file_attribute(name: str, content: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            if name in file.attrs:
                del file.attrs[name]
            if content is not None:
                file.attrs[name] = content

    return change


def splits(bounds: Mapping[str, tuple[int, int]], edit: Callable | None = None) -> Callable:
    """Other split bounds; `edit` may change the records further."""
    rows = split_rows(sorted(COLUMNS), bounds)
    return file_attribute("split", rows if edit is None else edit(rows))


def record(number: int, field: str, content: object) -> Callable:
    """One field of one record of the usual split table changed."""

    def edit(rows: np.ndarray) -> np.ndarray:
        rows[number][field] = content
        return rows

    return splits(SPLITS, edit)


def listed_rows(path: Path) -> None:
    """A split that lists its rows by reference to a dataset."""
    with h5py.File(path, "r+") as file:
        file["rows"] = np.arange(36)
        table = split_rows(sorted(COLUMNS), SPLITS)
        table[0]["indices"] = file["rows"].ref
        del file.attrs["split"]
        file.attrs["split"] = table


def link(name: str, target: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file.move(name, "elsewhere")
            file[name] = target

    return change


def as_group(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["features"]
        file.create_group("features")


def external_storage(path: Path) -> None:
    shape = column(path, "features").shape
    secret = path.with_name("secret.bin")
    np.ones(shape, "<f4").tofile(secret)
    where = [(str(secret), 0, secret.stat().st_size)]
    replaced("features", shape=shape, dtype="<f4", external=where)(path)


def virtual(path: Path) -> None:
    shape = column(path, "features").shape
    layout = h5py.VirtualLayout(shape=shape, dtype="<f4")
    layout[:] = h5py.VirtualSource(".", "elsewhere", shape=shape)
    with h5py.File(path, "r+") as file:
        file.move("features", "elsewhere")
        file.create_virtual_dataset("features", layout)


def compact(path: Path) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.COMPACT)
    replaced("features", dcpl=creation)(path)


def filter_bomb(path: Path) -> None:
    """4 GB of zeros in some kilobytes."""
    with h5py.File(path, "r+") as file:
        del file["features"]
        whole = file.create_dataset(
            "features", (60, 1 << 24), "<f4", chunks=(1, 1 << 24), compression="gzip"
        )
        whole[0] = 0


def enormous(path: Path) -> None:
    """A terabyte of image vectors, allocated, in a sparse file."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    replaced("vgg_features", shape=(ROWS, 1 << 32), dtype="<f4", dcpl=creation)(path)


def stored(path: Path, name: str, offset: int | None = None, size: int | None = None) -> None:
    """Another address or size, where given, in the record of where a dataset's bytes lie."""
    with h5py.File(path) as file:
        dataset = file[name].id
        old = dataset.get_offset(), dataset.get_storage_size()
    new = old[0] if offset is None else offset, old[1] if size is None else size
    before, after = (b"".join(n.to_bytes(8, "little") for n in pair) for pair in (old, new))
    data = path.read_bytes()
    assert data.count(before) == 1
    path.write_bytes(data.replace(before, after))


def shared_bytes(path: Path) -> None:
    """Two datasets at one address."""
    with h5py.File(path) as file:
        offset = file["vgg_features"].id.get_offset()
    stored(path, "features", offset=offset)


def beyond_the_end(path: Path) -> None:
    stored(path, "features", offset=path.stat().st_size - 100)


def short_storage(path: Path) -> None:
    stored(path, "features", size=100)


def long_attribute(path: Path) -> None:
    """A target_names of 20 MB: in a heap, so its declared size is small."""
    names(json.dumps(["x" * 20_000_000]))(path)


def dense_split(path: Path) -> None:
    """A split table of 2 MB, as the newest HDF5 format allows."""
    table = np.zeros(100_000, [("split", "S5"), ("source", "S12"), ("start", "i1"), ("stop", "i1")])
    old = path.rename(path.with_name("old"))
    with h5py.File(old) as good, h5py.File(path, "w", libver="latest") as new:
        for name in COLUMNS:
            good.copy(name, new)
        new.attrs["split"] = table
    old.unlink()


def cut(keep: Callable[[int], int]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[: keep(path.stat().st_size)])


def user_block(path: Path, size: int = 512) -> None:
    """Other bytes before the file itself."""
    path.write_bytes(b"MATLAB 7.3 ".ljust(size, b"\0") + path.read_bytes())


def text_file(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty file": (text_file(b""), "not an HDF5 file it is empty"),
    "web page": (text_file(b"<!DOCTYPE html><html></html>"), "not an HDF5 file"),
    "zeros first": (lambda path: path.write_bytes(bytes(500) + path.read_bytes()), "not an HDF5"),
    "signature only": (text_file(b"\x89HDF\r\n\x1a\n"), "damaged"),
    "cut in half": (cut(lambda size: size // 2), "truncated"),
    "cut by one byte": (cut(lambda size: size - 1), "truncated"),
    **{f"no {name}": (without(name), f"{name} is missing") for name in COLUMNS},
    "group": (as_group, "features not a dataset"),
    "soft link": (link("features", h5py.SoftLink("/elsewhere")), "features soft link"),
    "external link": (
        link("features", h5py.ExternalLink("/etc/passwd", "/x")),
        "features external link",
    ),
    "external storage": (external_storage, "features external storage"),
    "virtual": (virtual, "features virtual"),
    "chunked": (replaced("features", chunks=(4, 4)), "features chunked contiguous"),
    "gzip": (replaced("features", compression="gzip"), "features compressed"),
    "compact": (compact, "features compact"),
    "filter bomb": (filter_bomb, "features compressed"),
    "enormous": (enormous, "memory_limit_gb"),
    "unallocated": (replaced("features", shape=(60, 8), dtype="<f4"), "features never written"),
    "unallocated, huge": (
        replaced("features", shape=(60, 1 << 50), dtype="<f4"),
        "features never written",
    ),
    "shared bytes": (shared_bytes, "features vgg_features share"),
    "beyond the end": (beyond_the_end, "features cannot be read"),
    "short storage": (short_storage, "features stores 100 bytes needs 1,920"),
    "rank 1": (replaced("features", data=np.zeros(60, "<f4")), "features shape (60,)"),
    "rank 3": (replaced("features", data=np.zeros((60, 2, 2), "<f4")), "features shape (60, 2, 2)"),
    "scalar": (replaced("features", data=np.float32(1)), "features shape ()"),
    "null space": (replaced("features", data=h5py.Empty("<f4")), "features shape none"),
    "ids of rank 2": (replaced("imdb_ids", data=np.full((60, 1), b"x")), "imdb_ids (movies,)"),
    "no rows": (replaced("features", data=np.zeros((0, 8), "<f4")), "features no rows"),
    "no width": (replaced("features", data=np.zeros((60, 0), "<f4")), "features no width"),
    "float64": (converted("features", "<f8"), "features float64 astype"),
    "float16": (converted("vgg_features", "<f2"), "vgg_features float16"),
    "big-endian": (converted("features", ">f4"), "features >f4"),
    "int64 labels": (converted("genres", "<i8"), "genres int64"),
    "uint32 labels": (converted("genres", "<u4"), "genres uint32"),
    "variable-length ids": (
        replaced("imdb_ids", data=np.array([b"x"] * 60, object), dtype=h5py.string_dtype()),
        "imdb_ids variable-length",
    ),
    "long ids": (replaced("imdb_ids", data=np.full(60, b"x" * 65)), "imdb_ids S65"),
    "fewer rows": (
        replaced("features", data=np.zeros((59, 8), "<f4")),
        "different numbers of rows features 59",
    ),
    "NaN in the image": (value("vgg_features", (7, 3), np.nan), "vgg_features row 7 0000007 nan"),
    "inf in the image": (value("vgg_features", (59, 0), np.inf), "vgg_features row 59 inf"),
    "-inf in the text": (value("features", (5, 2), -np.inf), "features row 5 -inf"),
    "too large to be squared": (
        value("vgg_features", (7, 3), np.nextafter(LARGEST, np.float32(np.inf))),
        "vgg_features row 7 column 3 1.84467e+19 squared",
    ),
    "a fill value": (value("features", (7, 3), -9.97e36), "features row 7 column 3 -9.97e+36"),
    "part of a text NaN": (value("features", (5, 2), np.nan), "features row 5 column 2 nan"),
    "label 2": (value("genres", (9, 1), 2), "genres row 9 column 1 expected 0 or 1"),
    "label -1": (value("genres", (9, 1), -1), "genres row 9 -1"),
    "no names": (names(None), "target_names is missing"),
    "names not JSON": (names("Drama, Comedy"), "target_names JSON"),
    "names a deep nest": (names("[" * 100_000), "target_names JSON"),
    "names an object": (names('{"Drama": 1}'), "target_names JSON"),
    "names numbers": (names("[1, 2, 3]"), "target_names JSON"),
    "too few names": (names('["Drama", "War"]'), "target_names 2 names for 3"),
    "a name twice": (names('["Drama", "War", "War"]'), "target_names War more than once"),
    "an empty name": (names('["Drama", "War", " "]'), "target_names name 2"),
    "an unprintable name": (names('["Drama", "War", "a\\u0000b"]'), "target_names name 2"),
    "names too long": (long_attribute, "metadata"),
    "no split": (file_attribute("split", None), "split is missing"),
    "split a text": (file_attribute("split", "train 0-36"), "split not a table"),
    "split without stop": (
        file_attribute("split", np.zeros(3, [("split", "S5"), ("source", "S12")])),
        "split not a table",
    ),
    "split of numbers": (
        file_attribute("split", np.ones(3, [(n, "i4") for n in ("split", "source", *BOUNDS)])),
        "split record 0 names are not text",
    ),
    "fractional bounds": (
        file_attribute("split", np.array([(b"train", b"genres", 0.5, 36.0)], FRACTIONAL)),
        "split 'train' 'genres' start and stop are not integers",
    ),
    "split enormous": (dense_split, "split bytes far more"),
    "overlap": (splits({**SPLITS, "dev": (35, 42)}), "split 'dev' overlaps row 35"),
    "gap": (splits({**SPLITS, "dev": (37, 42)}), "rows 36 to 36 no split"),
    "gap at the start": (splits({**SPLITS, "train": (1, 36)}), "rows 0 to 0 no split"),
    "gap at the end": (splits({**SPLITS, "test": (42, 59)}), "rows 59 to 59 no split"),
    "outside": (splits({**SPLITS, "test": (42, 61)}), "split 'test' outside"),
    "negative": (splits({**SPLITS, "train": (-1, 36)}), "split 'train' outside"),
    "empty split": (splits({"train": (0, 42), "dev": (42, 42), "test": (42, 60)}), "'dev' empty"),
    "no dev": (splits({"train": (0, 42), "test": (42, 60)}), "no record of split 'dev'"),
    "unknown split": (splits({**SPLITS, "valid": (36, 42)}), "'valid' expected one of"),
    "columns disagree": (record(0, "stop", 35), "'train' differs between columns"),
    "record twice": (record(0, "source", b"genres"), "more than once"),
    "not available": (record(1, "available", False), "no record of split 'train' for 'genres'"),
    "rows listed": (listed_rows, "one by one"),
    "an id twice": (value("imdb_ids", 8, b"0000003"), "imdb_ids row 8 0000003 row 3"),
    "an empty id": (value("imdb_ids", 8, b""), "imdb_ids row 8 empty"),
    "a binary id": (value("imdb_ids", 8, b"\xff\x01"), "imdb_ids row 8 printable"),
    "provenance": (file_attribute("provenance", "somewhere"), "provenance JSON"),
}


def write_bad(path: Path, kind: str) -> Path:
    """A file of one bad kind."""
    BAD[kind][0](write_good(path))
    return path
