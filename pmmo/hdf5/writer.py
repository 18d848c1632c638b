"""Write movies in the published layout."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from pmmo.hdf5.layout import Column

DIMENSIONS = {
    "imdb_ids": ("batch",),
    "genres": ("batch", "classes"),
    "features": ("batch", "features"),
    "vgg_features": ("batch", "features"),
}
SPLIT_DTYPE = np.dtype(
    [
        ("split", "S5"),
        ("source", "S12"),
        ("start", np.int64),
        ("stop", np.int64),
        ("indices", h5py.special_dtype(ref=h5py.Reference)),
        ("available", np.bool_),
        ("comment", "S1"),
    ]
)


def split_rows(sources: Sequence[str], splits: Mapping[str, tuple[int, int]]) -> np.ndarray:
    """Fuel's `split` attribute: one record per (split, source)."""
    rows = [
        (name.encode(), source.encode(), start, stop, h5py.Reference(), True, b".")
        for name, (start, stop) in splits.items()
        for source in sources
    ]
    return np.array(rows, dtype=SPLIT_DTYPE)


def allocate_movies(
    path: Path,
    columns: Mapping[str, tuple[tuple[int, ...], str]],
    genre_names: Sequence[str],
    splits: Mapping[str, tuple[int, int]],
) -> dict[str, Column]:
    """Write a file in the published layout with space for its columns but without their values.

    `columns` has each column's (shape, dtype). Without "genres" the movies are unlabelled and have
    neither genre names nor splits. The caller writes the raw values at the returned offsets, so
    columns of any size need not fit in memory.
    """
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_layout(h5py.h5d.CONTIGUOUS)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w", track_order=False) as file:
        for name in sorted(columns):
            shape, dtype = columns[name]
            dataset = file.create_dataset(
                name, shape=shape, dtype=dtype, dcpl=early.copy(), track_times=False
            )
            for axis, label in enumerate(DIMENSIONS[name]):
                dataset.dims[axis].label = label
        if "genres" in columns:
            file["genres"].attrs["target_names"] = json.dumps(list(genre_names))
            file.attrs["split"] = split_rows(sorted(columns), splits)
        return {
            name: Column(name, shape, np.dtype(dtype).str, file[name].id.get_offset())
            for name, (shape, dtype) in columns.items()
        }


def write_provenance(path: Path, provenance: Mapping[str, object]) -> None:
    """Store the origin of the movies as JSON in the file attribute `provenance`."""
    with h5py.File(path, "r+") as file:
        file.attrs["provenance"] = json.dumps(dict(provenance), sort_keys=True)


def write_movies(
    path: Path,
    *,
    text: np.ndarray,
    image: np.ndarray,
    genres: np.ndarray,
    ids: Sequence[bytes] | np.ndarray,
    genre_names: Sequence[str],
    splits: Mapping[str, tuple[int, int]],
    provenance: Mapping[str, object] | None = None,
) -> None:
    """Write movies in the published layout (contiguous, uncompressed, dimension labels).

    `text` (N, T) float32, `image` (N, I) float32, `genres` (N, G) 0/1, `ids` N byte strings.
    The same arguments give the same bytes. `provenance` is stored as a JSON file attribute.
    The caller chooses a temporary name and renames the file.
    """
    values = {
        "features": np.asarray(text, "<f4"),
        "genres": np.asarray(genres, "<i4"),
        "imdb_ids": np.asarray(ids, dtype="S"),
        "vgg_features": np.asarray(image, "<f4"),
    }
    shapes = {name: (array.shape, array.dtype.str) for name, array in values.items()}
    places = allocate_movies(path, shapes, genre_names, splits)
    with path.open("r+b") as file:
        for name, array in values.items():
            file.seek(places[name].offset)
            np.ascontiguousarray(array).tofile(file)
    if provenance is not None:
        write_provenance(path, provenance)
