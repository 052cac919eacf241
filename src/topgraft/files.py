"""Photos where they lie: a local folder, or any fsspec URL (s3://, gs://, memory://). Reads only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
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

    Hidden files and folders (a leading dot) are passed over. Links to folders are followed, except back to
    a folder they lie in.

    Raises:
        DataError: where there is no such folder, or a folder in it cannot be read.
    """
    if is_url(root):
        return _far(root)
    top = Path(root)
    if not top.is_dir():
        what = "a file" if top.exists() else "nothing"
        raise DataError(f"{root}: expected a folder of photos, found {what}. Check the path.")
    return sorted(_below(top, "", frozenset()))


def _far(url: str) -> list[str]:
    system, base = filesystem(url)
    if not system.isdir(base):
        raise DataError(f"{url}: expected a folder of photos, found none. Check the address.")
    found = [name[len(base) :].lstrip("/") for name in system.find(base)]
    return sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))


def _below(folder: Path, prefix: str, above: frozenset[str]) -> Iterator[str]:
    """List the files below a folder that is not one of those above it, each name behind the prefix."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        with os.scandir(folder) as found:
            inside = [one for one in found if not one.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"{folder}: the folder cannot be read ({error.strerror or error})."
            " Change its permissions or move it elsewhere."
        ) from error
    for one in inside:
        if one.is_dir():
            yield from _below(Path(one.path), f"{prefix}{one.name}/", above | {real})
        else:
            yield prefix + one.name


def read(root: str, name: str) -> bytes:
    """Read one file's bytes; `name` is relative to `root`, or absolute.

    Raises:
        OSError: as the file system says it.
    """
    if is_url(root):
        system, base = filesystem(root)
        return bytes(system.cat_file(f"{base}/{name}"))
    return Path(root, name).read_bytes()


def keep_out(folders: str | Iterable[str], *places: str | Path | None) -> None:
    """Never write into the user's photo folders.

    Args:
        folders: those that hold photos; URLs and CSV tables have no local folder of their own.
        places: where something shall be written, or replaced.

    Raises:
        UsageError: for a place among the photos, or photos inside a place.
    """
    for folder in {folders} if isinstance(folders, str) else set(folders):
        local = folder.removeprefix("file://")
        if is_url(local) or local.lower().endswith(".csv"):
            continue
        top = Path(local).resolve()
        for place in (str(one).removeprefix("file://") for one in places if one is not None):
            if not is_url(place) and Path(place).resolve().is_relative_to(top):
                raise UsageError(
                    f"{place}: lies in the photo folder {folder}, where nothing is ever written."
                    " Give a folder elsewhere."
                )
