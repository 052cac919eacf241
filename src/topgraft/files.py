"""Files where they lie: a local folder, or any fsspec URL (s3://, gs://, memory://).

Of photos, reads only; for what is written elsewhere, a lock and one line for what the system says.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from topgraft.errors import DataError, OfflineError, StoreError, TopgraftError, UsageError, need
from topgraft.text import NO

MAX_BYTES = 10**9
"""A larger file is no photo."""

HERE = frozenset({"file", "local", "memory", "zip", "tar"})
"""Protocols that open no socket."""

OFFLINE = "TOPGRAFT_OFFLINE"
"""The environment's word on sockets; see `Settings`."""

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
    errno.ENOENT: "no such file or folder. Give a place that is there",
    errno.ENAMETOOLONG: "the name is too long. Give a shorter one",
}
SYSTEM = frozenset({"@eadir", "$recycle.bin", "__macosx", "system volume information", "lost+found"})
"""Folders that network drives, Windows, archives of a Mac and Linux put among photos; none is a class."""

LOCK = ".topgraft-lock"
"""A file of this name in a folder says that somebody writes to it, or was killed at it."""
AGAIN = "run the same command again, `train` with --resume: what is done is kept"


def is_file(path: Path) -> bool:
    """Tell whether a file is there; a name that no system takes is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_url(place: str) -> bool:
    """Tell a URL from a local path."""
    return "://" in place


def local(place: str | Path) -> str:
    """Take a place as a user gives it; `file://` is a local folder."""
    return str(place).removeprefix("file://").removeprefix("local://")


def absolute(place: str | Path) -> str:
    """Return a place so that it is the same one from every working directory; a URL is as it is."""
    return given if is_url(given := local(place)) else os.path.abspath(given)  # noqa: PTH100  keeps links


def is_remote(place: str) -> bool:
    """Tell what only a socket reaches from what is on this machine; where in doubt it is remote."""
    if os.name == "nt" and place.startswith(("\\\\", "//")):
        return True  # a share of another machine, which Windows logs in to
    links = [link for link in place.split("::") if "://" in link or "/" not in link]  # as fsspec chains them
    return is_url(place) and any(link.partition("://")[0].lower() not in HERE for link in links)


def stay_here(*places: str | Path | None, offline: bool) -> None:
    """See that offline no socket is opened.

    Raises:
        OfflineError: for a place that only a socket reaches.
    """
    for place in places:
        if offline and place is not None and is_remote(str(place)):
            raise OfflineError(
                f"{place}: offline, so no other machine is asked. Give a copy on this one, or leave --offline"
                f" ({OFFLINE}) out."
            )


def filesystem(url: str) -> tuple[Any, str]:
    """Open the file system behind a URL; gives it and the path inside it.

    Raises:
        OfflineError: where the environment says that no socket may be opened.
        MissingExtraError: without fsspec.
        UsageError: for a protocol nobody knows, or whose package is not installed.
        DataError: where nobody answers.
    """
    protocol = f"{url.split('://', maxsplit=1)[0]}://"
    # Whoever has settings asks them first; this is for all others.
    stay_here(url, offline=os.environ.get(OFFLINE, "").lower() not in NO)
    fsspec = need("fsspec", "remote", f"reading {protocol}")
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UsageError(
            f"{url}: {protocol} needs a package that is not installed. {said(error)}."
        ) from error
    except ValueError as error:
        raise UsageError(f"{url}: {said(error)}. Give a folder, or a URL that fsspec knows.") from error
    except Exception as error:  # every protocol has errors of its own
        raise DataError(f"{url}: cannot be reached ({said(error)}). Check address and network.") from error
    return system, str(path).rstrip("/")


def listing(root: str) -> list[str]:
    """List all files below a folder: paths relative to it, with forward slashes, sorted.

    Hidden files and folders (a leading dot) and those a system keeps for itself are passed over. Links to
    folders are followed, each folder once, under its own path where it has one: two that link to each other
    would never end.

    Raises:
        DataError: where there is no such folder, or a folder in it cannot be read.
    """
    if is_url(root):
        return _far(root)
    expect_folder(root)
    return sorted(_below(Path(root)))


def expect_folder(root: str) -> None:
    """See that a local folder of photos is there; of a URL nothing is asked.

    Raises:
        DataError: where it is not.
    """
    if not is_url(root) and not os.path.isdir(root):  # noqa: PTH112  Path.is_dir raises for some names
        what = "a file" if os.path.lexists(root) else "nothing"
        raise DataError(f"{root}: expected a folder of photos, found {what}. Check the path.")


def folders(root: str, below: str = "") -> list[str]:
    """Return the names of the folders directly in a local folder, without hidden ones; none behind a URL."""
    if is_url(root):
        return []
    with os.scandir(Path(root, below)) as found:
        return [entry.name for entry in found if entry.is_dir() and not _of_the_system(entry.name)]


def _far(url: str) -> list[str]:
    system, base = filesystem(url)
    try:
        names = system.find(base) if system.isdir(base) else None
    except Exception as error:  # every protocol has errors of its own
        raise DataError(
            f"{url}: cannot be listed ({said(error)}). Check the address and the network."
        ) from error
    if names is None:
        raise DataError(f"{url}: expected a folder of photos, found none. Check the address.")
    found = [name[len(base) :].lstrip("/") for name in names]
    return sorted(name for name in found if not any(map(_of_the_system, name.split("/"))))


def _of_the_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM


def _below(root: Path) -> Iterator[str]:
    """List the files below a folder, each folder once: the real ones of the whole tree before any link.

    A link met first would else take another class's folder, which was then passed over in its own place.
    """
    listed: set[str] = set()
    folders, links = deque([(root, "")]), deque[tuple[Path, str]]()
    while folders or links:
        folder, prefix = (folders or links).popleft()
        real = os.path.realpath(folder)
        if real in listed:
            continue
        listed.add(real)
        for entry in _entries(folder):
            if _is_dir(entry):
                (links if entry.is_symlink() else folders).append(
                    (Path(entry.path), f"{prefix}{entry.name}/")
                )
            else:
                yield prefix + entry.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what lies directly in a folder, by name.

    Raises:
        DataError: where it cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(
                (entry for entry in found if not _of_the_system(entry.name)), key=lambda entry: entry.name
            )
    except OSError as error:
        raise DataError(
            f"{folder}: the folder cannot be read ({error.strerror or error})."
            " Change its permissions or move it elsewhere."
        ) from error


def _is_dir(entry: os.DirEntry[str]) -> bool:
    """Tell whether it is a folder; a link that leads to itself is none, and is refused when it is read."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def read(root: str, name: str) -> bytes:
    """Read one file's bytes; `name` is relative to `root`, or absolute.

    Raises:
        OSError: as the file system says it, for what is no file, and for one larger than 1 GB.
    """
    if not is_url(root):
        return read_local(Path(root, name))
    system, base = filesystem(root)
    path = f"{base}/{name}"
    try:
        if (system.size(path) or 0) > MAX_BYTES:  # None where the other side does not say
            raise _too_large(f"{root}/{name}")
        return bytes(system.cat_file(path))
    except OSError:
        raise
    except Exception as error:  # every protocol has errors of its own
        raise OSError(said(error)) from error


def read_local(path: Path) -> bytes:
    """Read a local file's bytes; see `read`. What is no file, like a pipe, might never end."""
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no file", str(path))
    if found.st_size > MAX_BYTES:
        raise _too_large(str(path))
    return path.read_bytes()


def _too_large(place: str) -> OSError:
    return OSError(errno.EFBIG, f"it is larger than {MAX_BYTES // 10**9} GB", place)


def text(path: Path) -> str:
    """Read a local text file in UTF-8, as `read_local`; its line ends stay as they are."""
    return read_local(path).decode("utf-8")


def parent(place: str) -> tuple[str, str]:
    """Take a file's path or URL apart: the folder it lies in, and its name."""
    if is_url(place):
        folder, _, name = place.rpartition("/")
        return folder, name
    return str(Path(place).parent), Path(place).name


def said(error: BaseException) -> str:
    """Return what an error says, in one line: the system's own words, else its first line, else its kind."""
    return (getattr(error, "strerror", None) or str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def guarded(place: str | Path, again: str = AGAIN) -> Iterator[None]:
    """Turn what the system says about a failed read or write into one line.

    Args:
        place: what to call it.
        again: what to do once there is space again.

    Raises:
        StoreError: for any OSError inside; behind a URL, for any error.
    """
    kinds = Exception if is_url(str(place)) else OSError  # every protocol has errors of its own
    try:
        yield
    except TopgraftError:
        raise
    except kinds as error:
        known = REASONS.get(getattr(error, "errno", None) or 0)  # only ours is a template: theirs has braces
        reason = known.format(again=again) if known else f"{said(error)}. Is the place reachable?"
        text = f"{place}: {reason}"
        raise StoreError(text if text.endswith("?") else f"{text}.") from error


@contextmanager
def replacing(path: Path, *, alone: bool = False) -> Iterator[Path]:
    """Yield where to write a file; it takes the place of the old one, whole, once the block is done.

    So a crash leaves the old file or the new one, never half: what was written of it is removed, but for a
    process that is killed.

    Args:
        path: of the file.
        alone: no other process writes it, so what a killed one left may be overwritten.

    Raises:
        OSError: as the system says it.
    """
    half = path.with_name(f".{path.name}.{'half' if alone else os.getpid()}")
    try:
        yield half
        half.replace(path)  # not synced: a power cut may lose the file, a killed process does not
    except BaseException:
        half.unlink(missing_ok=True)
        raise


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; see `replacing`."""
    with replacing(path) as half:
        half.write_bytes(data)


def copy(folder: Path, to: Path) -> None:
    """Copy what a folder holds into another.

    Raises:
        OSError: as the system says it, with its number; `shutil.copytree`'s has none.
    """
    to.mkdir(parents=True, exist_ok=True)
    for source in sorted(folder.rglob("*")):
        place = to / source.relative_to(folder)
        if source.is_dir():
            place.mkdir(exist_ok=True)
        else:
            shutil.copy2(source, place)


@contextmanager
def locked(folder: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Make a folder and keep a second writer out; the system frees the lock when a process dies.

    Args:
        folder: it holds the lock, a file named LOCK, while the block runs.
        wait: for the other writer, in place of an error.

    Raises:
        StoreError: where another process is writing, or the folder cannot be made.
    """
    from filelock import FileLock, Timeout  # whoever only reads, as predict does, needs none

    with guarded(folder):
        real = Path(folder).resolve()
        real.mkdir(parents=True, exist_ok=True)
        lock = FileLock(real / LOCK, timeout=-1 if wait else 0)
        try:
            lock.acquire()
        except Timeout as error:
            raise StoreError(
                f"{folder}: another process is writing to it. Wait, or give another place."
            ) from error
    try:
        yield
    finally:
        # Gone before it is free: who waits for it sees that and takes the next one. Windows keeps it.
        with suppress(OSError):
            (real / LOCK).unlink()
        lock.release()
