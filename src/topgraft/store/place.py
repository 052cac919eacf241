"""Where a store lies: a local folder, or any fsspec URL (s3://, gs://, memory://)."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from topgraft.errors import StoreError
from topgraft.files import filesystem, is_url

REASONS = {
    errno.ENOSPC: "the disk is full. Free some space and run the same command again: what is done is kept",
    errno.EDQUOT: "the disk quota is used up. Free some space and run the same command again",
    errno.EFBIG: "the file would be larger than the system allows. Raise the limit and run again",
    errno.EROFS: "the folder is read-only. Give another place with `-o`",
    errno.EACCES: "no permission to write there. Give another place with `-o`",
    errno.EPERM: "no permission to write there. Give another place with `-o`",
    errno.ENOTDIR: "a file lies where a folder is needed. Give another place with `-o`",
    errno.EEXIST: "a file lies where a folder is needed. Give another place with `-o`",
}
PARTIAL = ".partial"  # what zarr's local store calls a file it has not finished


@dataclass(frozen=True)
class Place:
    """The files of one store. Keys are paths inside it, with forward slashes.

    Attributes:
        path: the local folder or URL.
    """

    path: str

    @classmethod
    def at(cls, path: str | Path) -> Place:
        """Take a path or URL as a user gives it; `file://` is a local folder."""
        text = str(path).removeprefix("file://")
        return cls(text.rstrip("/") or "/")

    @property
    def remote(self) -> bool:
        """Whether it is a URL."""
        return is_url(self.path)

    def zarr(self) -> Any:
        """Open it as a zarr store.

        Its writes are whole or absent on every kind of place: the local store writes beside and renames,
        object stores show an object when all of it is there.
        """
        return _zarr(self.path, self.remote)

    def names(self, key: str = "") -> set[str]:
        """List what lies directly below a key, without unfinished files."""
        if self.remote:
            system, base = filesystem(self.path)
            system.invalidate_cache()
            with contextlib.suppress(FileNotFoundError):
                found = system.ls(f"{base}/{key}".rstrip("/"), detail=False)
                return {str(name).rstrip("/").rsplit("/", maxsplit=1)[-1] for name in found}
            return set()
        try:
            return {name for name in os.listdir(Path(self.path, key)) if not name.endswith(PARTIAL)}  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def sizes(self, key: str) -> dict[str, int]:
        """Give the bytes of each file directly below a key."""
        if self.remote:
            system, base = filesystem(self.path)
            system.invalidate_cache()
            with contextlib.suppress(FileNotFoundError):
                found = system.ls(f"{base}/{key}", detail=True)
                return {str(one["name"]).rsplit("/", maxsplit=1)[-1]: int(one["size"] or 0) for one in found}
            return {}
        sizes = {}
        for name in self.names(key):
            with contextlib.suppress(FileNotFoundError):  # gone since
                sizes[name] = Path(self.path, key, name).stat().st_size
        return sizes

    def exists(self, key: str) -> bool:
        """Tell whether a file is there."""
        if self.remote:
            system, base = filesystem(self.path)
            return bool(system.exists(f"{base}/{key}"))
        return Path(self.path, key).is_file()

    def size(self, key: str = "") -> int:
        """Add up the bytes of all files below a key."""
        if self.remote:
            system, base = filesystem(self.path)
            return int(system.du(f"{base}/{key}".rstrip("/")))
        total = 0
        for folder, _, names in os.walk(Path(self.path, key)):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # gone since
                    total += Path(folder, name).stat().st_size
        return total

    def delete(self, key: str) -> None:
        """Remove all below a key; nothing there is no error."""
        with self.guarded():
            if self.remote:
                system, base = filesystem(self.path)
                if system.exists(f"{base}/{key}"):
                    system.rm(f"{base}/{key}", recursive=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(Path(self.path, key))

    def sweep(self) -> None:
        """Remove the unfinished files that a killed process left."""
        if not self.remote:
            with self.guarded():
                for one in Path(self.path).rglob(f"*{PARTIAL}"):
                    one.unlink(missing_ok=True)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn what the system says about a failed read or write into one line.

        Raises:
            StoreError: for any OSError inside.
        """
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            reason = REASONS.get(error.errno or 0, f"{error.strerror or error}. Is the place reachable")
            raise StoreError(f"{self.path}: {reason}.") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second writer out while the block runs; the system frees the lock when a process dies.

        Object stores have no locks: there, two writers at once do double work, and no harm to the rows.

        Raises:
            StoreError: where another process is writing.
        """
        if self.remote:
            yield
            return
        import fcntl

        with self.guarded():
            Path(self.path).mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(
                    f"{self.path}: another process is writing to it. Wait, or give another place."
                ) from error
            yield
        finally:
            os.close(handle)


@lru_cache(maxsize=64)
def _zarr(path: str, remote: bool) -> Any:
    from zarr.storage import FsspecStore, LocalStore

    return FsspecStore.from_url(path) if remote else LocalStore(path)
