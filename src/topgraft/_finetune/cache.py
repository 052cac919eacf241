"""Activations at a cut, kept by content: a photo's view is pushed through the frozen prefix once, ever.

    <folder>/rows.f16     float16 rows of one width, one after the other; rows.f32 where float16 is too coarse
    <folder>/rows.txt     one line a row, in the same order: the photo's digest, the view's key and the CRC-32
                          of the row's bytes, with tabs between

A row counts when its line is whole, and lines are written after their rows are on the disk. So a process that
is killed leaves at most rows nobody knows of, which the next one overwrites.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft import files
from topgraft.errors import BackboneError, StoreError, TopgraftError

KeptRows = NDArray[np.float16] | NDArray[np.float32]
Key = tuple[str, str]
"""(digest of the photo's bytes, key of the view)."""


class Activations:
    """KeptRows (n, width), found by photo and view.

    Args:
        folder: where they lie; it belongs to one backbone, one cut and one kind of device.
        width: numbers in a row.
        exact: whether they are kept in float32, not float16.
    """

    def __init__(self, folder: Path, width: int, *, exact: bool = False) -> None:
        self.folder, self.width = folder, width
        self.kind = np.dtype(np.float32 if exact else np.float16)
        self._rows, self._index = folder / f"rows.f{8 * self.kind.itemsize}", folder / "rows.txt"
        self._where: dict[Key, int] = {}
        self._sums: list[str] = []
        self._checked: set[int] = set()
        self._refresh()

    def missing(self, keys: Sequence[Key]) -> list[Key]:
        """List the keys that have no row yet, each once, in the given order."""
        return [key for key in dict.fromkeys(keys) if key not in self._where]

    def places(self, keys: Sequence[Key]) -> NDArray[np.int64]:
        """Return the row number of each key: (n,).

        Raises:
            StoreError: for a row that is not the one that was written.
        """
        rows = self.rows()
        for i in {self._where[key] for key in keys} - self._checked:
            if _sum(rows[i]) != self._sums[i]:
                raise self._damaged(self._rows)
            self._checked.add(i)
        return np.array([self._where[key] for key in keys], np.int64)

    def rows(self) -> KeptRows:
        """Map all rows (n, width) into memory, to read.

        Raises:
            StoreError: where there are fewer.
        """
        if not self._where:
            return np.empty((0, self.width), self.kind)
        try:
            return np.memmap(self._rows, self.kind, "r", shape=(len(self._where), self.width))
        except (OSError, ValueError) as error:  # it is gone, or shorter than that
            raise self._damaged(self._rows) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one who adds rows; see what others added before.

        Raises:
            StoreError: where the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with files.locked(self.folder, wait=True):
                self._refresh()
                self._drop_half_a_line()
                yield
        except TopgraftError:
            raise
        except OSError as error:
            raise StoreError(
                f"{self.folder}: activations cannot be kept ({error.strerror})."
                " Free some space, or set TOPGRAFT_CACHE_DIR to another folder."
            ) from error

    def add(self, keys: Sequence[Key], rows: NDArray[np.float32]) -> None:
        """Add one row for each key, while `writing`.

        Raises:
            BackboneError: where an activation does not fit.
        """
        with np.errstate(over="ignore"):
            kept = rows.astype(self.kind)
        if not np.isfinite(kept).all():
            raise BackboneError(
                f"the activations at this cut reach {np.abs(rows).max():.3g}, beyond {self.kind}."
                " Try other --blocks."
            )
        count = len(self._where)
        with self._rows.open("r+b" if self._rows.exists() else "w+b") as file:
            file.truncate(count * self.width * self.kind.itemsize)
            file.seek(0, os.SEEK_END)
            file.write(np.ascontiguousarray(kept).tobytes())
            file.flush()
            os.fsync(file.fileno())
        with self._index.open("a", encoding="utf-8") as file:
            new = [_sum(row) for row in kept]
            file.writelines(
                f"{photo}\t{view}\t{sum_}\n" for (photo, view), sum_ in zip(keys, new, strict=True)
            )
            file.flush()
            os.fsync(file.fileno())
        self._where.update({key: count + i for i, key in enumerate(keys)})
        self._sums += new

    def _drop_half_a_line(self) -> None:
        """Cut off what a killed process left of a line; only who holds the lock may."""
        if self._index.exists():
            os.truncate(self._index, self._index.read_bytes().rfind(b"\n") + 1)

    def _refresh(self) -> None:
        """Read the whole lines of the index; who writes one may be at the next just now."""
        try:
            text = self._index.read_bytes()
        except FileNotFoundError:
            self._where, self._sums = {}, []
            return
        lines = text[: text.rfind(b"\n") + 1].decode("utf-8", "replace").splitlines()
        parts = [found for line in lines if len(found := line.split("\t")) == 3]
        self._where = {(photo, view): i for i, (photo, view, _) in enumerate(parts)}
        self._sums = [sum_ for *_, sum_ in parts]
        if len(self._where) < len(lines):
            raise self._damaged(self._index)

    def _damaged(self, file: Path) -> StoreError:
        return StoreError(f"{file}: is damaged. Delete {self.folder}: it will be made anew.")


def _sum(row: NDArray[Any]) -> str:
    return f"{zlib.crc32(row.tobytes()):08x}"
