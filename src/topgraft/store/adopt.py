"""Rows that another store on this machine has are taken over, not computed again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from topgraft import files
from topgraft.store.place import Place
from topgraft.store.rows import Rows
from topgraft.store.table import Table


def lacking(path: str | Path, table: Table) -> int:
    """Count the rows (photos x views) that a table asks for and a store does not have; touch nothing.

    Args:
        path: the store's folder or URL; where there is none, all are lacking.
        table: what is asked for.
    """
    rows = Rows(Place.at(path))
    lost: dict[int, set[str]] = {}
    for part in table.parts:
        lost.setdefault(part.view, set()).update(set(table.digests_of(part)) - rows.have(part.address).keys())
    return sum(len(digests) for digests in lost.values())


def adopt(path: str | Path, table: Table, others: Iterable[str | Path]) -> list[Path]:
    """Take over what other stores have of the rows that a table asks for.

    Rows are named by all that decides them, so whose they were does not matter. Their files are linked where
    the system can, else copied: no row is ever changed in place.

    Args:
        path: the folder of the store that gets them.
        table: what will be asked for.
        others: folders of stores, asked in their order until nothing is lacking.

    Returns:
        Those that gave something.

    Raises:
        StoreError: where the folder cannot be written.
    """
    target, gave = Path(path), []
    with files.guarded(target):
        for other in map(Path, others):
            before = lacking(target, table)
            if not before:
                break
            if other.resolve() != target.resolve():
                with suppress(
                    FileNotFoundError
                ):  # it is pruned or replaced meanwhile: what is left is computed
                    _take(target, table, other)
                if lacking(target, table) < before:
                    gave.append(other)
    return gave


def _take(target: Path, table: Table, other: Path) -> None:
    rows, wanted = Rows(Place.at(other)), set(table.digests)
    for part in table.parts:
        for segment in rows.segments(part.address):
            if wanted.isdisjoint(segment.digests) or (target / segment.key).exists():
                continue
            for place in (".", "plans", "rows", f"rows/{part.address}"):
                _link(other / place / "zarr.json", target / place / "zarr.json")
            _link_all(other / "plans" / segment.plan, target / "plans" / segment.plan)
            _link_all(other / segment.key, target / segment.key)


def _link_all(source: Path, target: Path) -> None:
    """Link a folder's files, its zarr.json last: that is what makes the rest count."""
    found = sorted(source.iterdir(), key=lambda file: file.name == "zarr.json")
    for file in found:
        _link(file, target / file.name)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:  # another disk, or a system without links
            shutil.copyfile(source, target)
