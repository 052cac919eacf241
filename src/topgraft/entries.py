"""What a folder or a table lists, before any file was opened."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from topgraft import files
from topgraft.decode import SUFFIXES
from topgraft.errors import DataError

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Folder names that are taken for given splits, and what they mean."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row before its file was opened."""

    id: str
    path: str
    names: tuple[str, ...]
    group: str
    split: str | None


def in_folder(root: str) -> tuple[list[Entry], list[str], list[str]]:
    """List the photos of `root/<class>/*.jpg`, the files beside them that are none, and empty class folders.

    Raises:
        DataError: for no folder, no photos in it, or a folder beside train/, val/ and test/.
    """
    names = files.listing(root)
    photos = [name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
    depth = 1 if _is_split(root, photos) else 0
    entries, ignored = [], [name for name in names if PurePosixPath(name).suffix.lower() not in SUFFIXES]
    for name in photos:
        parts = PurePosixPath(name).parts
        if len(parts) < depth + 2:
            ignored.append(name)
            continue
        split = SPLITS[parts[0].lower()] if depth else None
        entries.append(Entry(name, name, (parts[depth],), name, split))
    if not entries:
        raise DataError(
            f"{root}: expected one folder of photos for each class, found no photo in a class folder"
            f"{f' ({len(photos)} lie beside the folders)' if photos else ''}."
            " Put the photos of each class into a folder with its name."
        )
    tops = {one.path.split("/")[0] for one in entries} if depth else {""}
    folders = sorted(f"{top}/{name}".lstrip("/") for top in tops for name in files.folders(root, top))
    full = {"/".join(one.path.split("/")[: depth + 1]) for one in entries}
    return entries, ignored, [name for name in folders if name not in full]


def in_table(table: Path) -> list[Entry]:
    """List the photos of a CSV table.

    Raises:
        DataError: see `Dataset.from_csv`.
    """
    entries = [_entry(table, line, row) for line, row in _rows(table)]
    if not entries:
        raise DataError(f"{table}: expected a photo a line, found none below the header. Add some.")
    return entries


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Read the rows of a CSV table, each with the line it ends on."""
    try:
        reader = csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig"), newline=""))
        columns = reader.fieldnames or []
        missing = [name for name in ("path", "label") if name not in columns]
        if missing:
            raise DataError(
                f"{table}: expected the columns path and label, got {', '.join(columns) or 'none'}."
                f" Add the column {missing[0]}."
            )
        for row in reader:
            if None in row:
                raise DataError(
                    f"{table}, line {reader.line_num}: expected {len(columns)} cells, got"
                    f' {len(columns) + len(row[None])}. Write several labels as "rice;fish", and quote a'
                    " cell with a comma in it."
                )
            yield reader.line_num, {name: cell or "" for name, cell in row.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read as a CSV table ({error}). Check its quotes.") from error


def _entry(table: Path, line: int, row: dict[str, str]) -> Entry:
    """Judge one row of a table."""
    place = f"{table}, line {line}"
    path, names = row["path"].strip(), _names(row["label"])
    split = row.get("split", "").strip().lower()
    if not path or not names:
        raise DataError(f"{place}: expected a path and a label, got an empty cell. Fill it in.")
    if "\0" in path:
        raise DataError(f"{place}: expected a path, got {path!r} with a NUL in it. Take it out.")
    if split and split not in SPLITS:
        raise DataError(f"{place}: split must be train, val or test, got {split!r}.")
    name = PurePosixPath(path).as_posix()  # ./a.jpg is a.jpg
    return Entry(name, name, names, row.get("group", "").strip() or name, SPLITS[split] if split else None)


def _is_split(root: str, photos: Sequence[str]) -> bool:
    """Tell whether the photos lie under at least two of train/, val/ and test/.

    Raises:
        DataError: where other folders with photos lie beside those: are they classes, or forgotten?
    """
    tops = {PurePosixPath(name).parts[0] for name in photos if len(PurePosixPath(name).parts) > 1}
    strays = sorted(top for top in tops if top.lower() not in SPLITS)
    if len({SPLITS[top.lower()] for top in tops.difference(strays)}) < 2:
        return False
    if strays:
        raise DataError(
            f"{root}: expected only train, val and test, got photos in {shown(strays[0])!r} beside them."
            " Move that folder elsewhere, or, if all are classes, list the photos in a CSV table."
        )
    return True


def _names(cell: str) -> tuple[str, ...]:
    """Read a label cell: one name, a JSON list, or names between semicolons."""
    cell = cell.strip()
    if cell.startswith("["):
        try:
            return tuple(dict.fromkeys(str(name) for name in json.loads(cell)))
        except json.JSONDecodeError:
            return (cell,)
    return tuple(dict.fromkeys(name.strip() for name in cell.split(";") if name.strip()))


def unnameable(one: Entry) -> str:
    """Say why a photo's name cannot be written into a result; empty where it can."""
    try:
        one.id.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8; rename it"
    return "has a NUL in its name" if "\0" in one.id else ""


def shown(name: str) -> str:
    """Give a file name that can be printed: bytes that are not UTF-8 as their code."""
    return os.fsencode(name).decode(errors="backslashreplace")


def unique(entries: Sequence[Entry], root: str) -> None:
    """Refuse entries, in the order of their ids, of which two have the same.

    Raises:
        DataError: naming it.
    """
    for before, after in pairwise(entries):
        if before.id == after.id:
            raise DataError(f"{root}: {after.id!r} is listed twice. Keep one line a photo.")
