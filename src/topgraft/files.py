"""Files where they lie: a local folder, or any fsspec URL (s3://, gs://, memory://).

Of photos, reads only; for what is written elsewhere, a lock and one line for what the system says.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from topgraft.errors import DataError, StoreError, TopgraftError, UsageError, need

REASONS = {
    errno.ENOSPC: "the disk is full. Free some space and {again}",
    errno.EDQUOT: "the disk quota is used up. Free some space and {again}",
    errno.EFBIG: "the file would be larger than the system allows. Raise the limit and run again",
    errno.EROFS: "the folder is read-only. Give another place with `-o`",
    errno.EACCES: "no permission to write there. Give another place with `-o`",
    errno.EPERM: "no permission to write there. Give another place with `-o`",
    errno.ENOTDIR: "a file lies where a folder is needed. Give another place with `-o`",
    errno.EEXIST: "a file lies where a folder is needed. Give another place with `-o`",
    errno.EISDIR: "a folder lies where a file is needed. Give another place with `-o`",
    errno.ENAMETOOLONG: "the name is too long. Give a shorter one",
}
AGAIN = "run the same command again: what is done is kept"


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


def folders(root: str, below: str = "") -> list[str]:
    """Give the names of the folders directly in a local folder, without hidden ones; none behind a URL."""
    if is_url(root):
        return []
    with os.scandir(Path(root, below)) as found:
        return [one.name for one in found if one.is_dir() and not one.name.startswith(".")]


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


@contextmanager
def guarded(place: str | Path, again: str = AGAIN) -> Iterator[None]:
    """Turn what the system says about a failed read or write into one line.

    Args:
        place: what to call it.
        again: what to do once there is space again.

    Raises:
        StoreError: for any OSError inside.
    """
    try:
        yield
    except TopgraftError:
        raise
    except OSError as error:
        reason = REASONS.get(error.errno or 0, f"{error.strerror or error}. Is the place reachable?")
        text = f"{place}: {reason.format(again=again)}"
        raise StoreError(text if text.endswith("?") else f"{text}.") from error


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Make a folder and keep a second writer out; the system frees the lock when a process dies.

    Raises:
        StoreError: where another process is writing, or the folder cannot be made.
    """
    import fcntl

    with guarded(folder):
        real = Path(folder).resolve()
        real.mkdir(parents=True, exist_ok=True)
        handle = os.open(real, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"{folder}: another process is writing to it. Wait, or give another place."
            ) from error
        yield
    finally:
        os.close(handle)
