"""The cycles of a finished row are kept until DVC has the row in its cache.

A row can be trained and then not be recorded: the disk of the cache is full, `runs/` leads
elsewhere, DVC is killed. Then the next run takes the cycles up again.
"""

import hashlib
import json
import shutil
from pathlib import Path

from pmmo.core.writing import write_text

MARK = "row"  # in a store of cycles: DVC's name for the folder of the row that they became


def mark_finished(store: Path, row: Path) -> None:
    """Note that the cycles in `store` have become the folder `row`."""
    write_text(store / MARK, name_in_cache(row))


def name_in_cache(folder: Path) -> str:
    """DVC's name for a folder: the MD5 of the list of its files and of their MD5s."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = []
    for path in paths:
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        entries.append({"md5": md5, "relpath": path.relative_to(folder).as_posix()})
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def drop_recorded(stores: Path) -> None:
    """Remove the cycles of all rows that DVC's cache has; it writes a folder's name last."""
    for mark in stores.glob(f"*/{MARK}"):
        name = mark.read_text(encoding="utf-8").strip()
        if (cache() / name[:2] / f"{name[2:]}.dir").exists():
            shutil.rmtree(mark.parent, ignore_errors=True)


def cache() -> Path:
    """Where DVC's cache has files by their MD5; by default below `.dvc`."""
    from dvc.config import Config  # here alone: it takes a third of a second

    config = Config.from_cwd()
    folder = config["cache"].get("dir", "cache")
    return Path(config.dvc_dir or ".dvc", folder, "files/md5")
