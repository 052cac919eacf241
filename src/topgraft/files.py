"""Photos where they lie: a local folder, or any fsspec URL (s3://, gs://, memory://). Reads only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from topgraft.errors import DataError, UsageError, need


def is_url(place: str) -> bool:
    """Tell a URL from a local path."""
    return "://" in place


def filesystem(url: str) -> tuple[Any, str]:
    """Open the file system behind a URL; gives it and the path inside it."""
    fsspec = need("fsspec", "remote", f"reading {url.split('://', maxsplit=1)[0]}://")
    system, path = fsspec.core.url_to_fs(url)
    return system, str(path).rstrip("/")


def listing(root: str) -> list[str]:
    """List all files below a folder: paths relative to it, with forward slashes, sorted.

    Hidden files and folders (a leading dot) are passed over; links to folders are not followed.

    Raises:
        DataError: where there is no such folder.
    """
    if is_url(root):
        system, base = filesystem(root)
        if not system.isdir(base):
            raise DataError(f"{root}: expected a folder of photos, found none. Check the address.")
        found = [name[len(base) :].lstrip("/") for name in system.find(base)]
        return sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))
    top = Path(root)
    if not top.is_dir():
        what = "a file" if top.exists() else "nothing"
        raise DataError(f"{root}: expected a folder of photos, found {what}. Check the path.")
    names = []
    for folder, inner, files in os.walk(top):
        inner[:] = [name for name in inner if not name.startswith(".")]
        below = Path(folder).relative_to(top)
        names += [(below / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(names)


def read(root: str, name: str) -> bytes:
    """Read one file's bytes; `name` is relative to `root`, or absolute.

    Raises:
        OSError: as the file system says it.
    """
    if is_url(root):
        system, base = filesystem(root)
        return bytes(system.cat_file(f"{base}/{name}"))
    return Path(root, name).read_bytes()


def keep_out(photos: str, *places: str | Path | None) -> None:
    """Never write into the user's photo folder.

    Args:
        photos: the folder; a URL or CSV table has no folder of its own.
        places: where something shall be written.

    Raises:
        UsageError: for a place among the photos.
    """
    if is_url(photos) or photos.lower().endswith(".csv"):
        return
    top = Path(photos).resolve()
    for place in places:
        if place is not None and not is_url(str(place)) and Path(place).resolve().is_relative_to(top):
            raise UsageError(
                f"{place}: lies in the photo folder {photos}, where nothing is ever written."
                " Give a folder elsewhere."
            )
