"""Where a store lies: a local folder, or any fsspec URL (s3://, gs://, memory://)."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from topgraft import files
from topgraft.files import filesystem, is_url

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
        return cls(files.local(path).rstrip("/") or "/")

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
            return set(self._far(key))
        try:
            found = os.listdir(Path(self.path, key))  # noqa: PTH208
            return {name for name in found if not name.endswith(PARTIAL) and name != files.LOCK}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def sizes(self, key: str) -> dict[str, int]:
        """Return the bytes of each file directly below a key."""
        if self.remote:
            return self._far(key)
        sizes = {}
        for name in self.names(key):
            with contextlib.suppress(FileNotFoundError):  # gone since
                sizes[name] = Path(self.path, key, name).stat().st_size
        return sizes

    def _far(self, key: str) -> dict[str, int]:
        """List what lies directly below a key behind a URL, with its size."""
        system, base = filesystem(self.path)
        with self.guarded():
            system.invalidate_cache()
            with contextlib.suppress(FileNotFoundError):
                found = system.ls(f"{base}/{key}".rstrip("/"), detail=True)
                ends = {str(entry["name"]).rstrip("/").rsplit("/", maxsplit=1)[-1]: entry for entry in found}
                return {name: int(entry["size"] or 0) for name, entry in ends.items()}
        return {}

    def exists(self, key: str) -> bool:
        """Tell whether a file is there."""
        if self.remote:
            system, base = filesystem(self.path)
            with self.guarded():
                return bool(system.exists(f"{base}/{key}"))
        return os.path.isfile(Path(self.path, key))  # noqa: PTH113  raises for no name

    def size(self, key: str = "") -> int:
        """Add up the bytes of all files below a key."""
        if self.remote:
            system, base = filesystem(self.path)
            with self.guarded():
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
                for file in Path(self.path).rglob(f"*{PARTIAL}"):
                    file.unlink(missing_ok=True)

    def guarded(self) -> contextlib.AbstractContextManager[None]:
        """Turn what the system says about a failed read or write into one line, a StoreError."""
        return files.guarded(self.path)

    def locked(self, *, wait: bool = False) -> contextlib.AbstractContextManager[None]:
        """Keep a second writer out while the block runs.

        Object stores have no locks: there, two writers at once do double work, and no harm to the rows.
        """
        return contextlib.nullcontext() if self.remote else files.locked(self.path, wait=wait)


@lru_cache(maxsize=64)
def _zarr(path: str, remote: bool) -> Any:
    from zarr.storage import FsspecStore, LocalStore

    return FsspecStore.from_url(path) if remote else LocalStore(path)
