"""What a folder or a table lists, before any file was opened."""

from __future__ import annotations

import csv
import io
import json
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from topgraft import files
from topgraft.errors import DataError
from topgraft.photos.decode import SUFFIXES
from topgraft.photos.sample import BETWEEN

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

COLUMNS = ("path", "label", "split", "group")
"""What is read of a table."""


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
    tops = {entry.path.split("/")[0] for entry in entries} if depth else {""}
    folders = sorted(f"{top}/{name}".lstrip("/") for top in tops for name in files.folders(root, top))
    full = {"/".join(entry.path.split("/")[: depth + 1]) for entry in entries}
    return entries, ignored, [name for name in folders if name not in full]


def in_table(table: str) -> list[Entry]:
    """List the photos of a CSV table.

    Raises:
        DataError: see `Dataset.from_csv`.
    """
    found = [(line, _entry(table, line, row)) for line, row in _rows(table)]
    if not found:
        raise DataError(f"{table}: expected a photo a line, found none below the header. Add some.")
    if any(len(entry.names) > 1 for _, entry in found):
        for line, entry in found:
            if name := next((name for name in entry.names if BETWEEN in name), ""):
                raise DataError(
                    f"{table}, line {line}: expected labels without {BETWEEN} where photos carry several, got"
                    f" {name[:40]!r}. Rename the class."
                )
    return [entry for _, entry in found]


def _rows(table: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Read the rows of a CSV table, each with the line it ends on."""
    try:
        data = files.read(*files.parent(table))
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")  # Excel's
    except FileNotFoundError as error:
        raise DataError(f"{table}: expected a CSV table, found no file. Check the path.") from error
    except OSError as error:
        raise DataError(f"{table}: cannot be opened ({error.strerror or error}). Check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{table}: is neither UTF-8 nor UTF-16 ({error.reason}). Save it as CSV in UTF-8."
        ) from error
    try:
        head = text.partition("\n")[0]
        between = next((mark for mark in ",;\t" if mark in head), ",")  # Excel's depends on the country
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=between)
        columns = reader.fieldnames = _columns(table, reader.fieldnames or [])
        for row in reader:
            if None in row:
                raise DataError(
                    f"{table}, line {reader.line_num}: expected {len(columns)} cells, got"
                    f' {len(columns) + len(row[None])}. Write several labels as "rice;fish", and quote a'
                    " cell with a comma in it."
                )
            yield reader.line_num, {name: cell or "" for name, cell in row.items()}
    except csv.Error as error:
        raise DataError(f"{table}: cannot be read as a CSV table ({error}). Check its quotes.") from error


def _columns(table: str, header: Sequence[str]) -> list[str]:
    """Judge the header of a table; capitals and spaces around names do not matter."""
    columns = [name.strip().lower() for name in header]
    for name in COLUMNS:
        if columns.count(name) > 1:
            raise DataError(
                f"{table}: expected one column {name}, got {columns.count(name)}. Rename the others."
            )
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        raise DataError(
            f"{table}: expected the columns path and label, got {', '.join(header) or 'none'}."
            f" Add the column {missing[0]}."
        )
    return columns


def _entry(table: str, line: int, row: dict[str, str]) -> Entry:
    """Judge one row of a table."""
    place = f"{table}, line {line}"
    path, names = row["path"].strip(), _names(row["label"], place)
    split = row.get("split", "").strip().lower()
    if not path or not names:
        raise DataError(f"{place}: expected a path and a label, got an empty cell. Fill it in.")
    if "\0" in path:
        raise DataError(f"{place}: expected a path, got {path!r} with a NUL in it. Take it out.")
    if split and split not in SPLITS:
        raise DataError(f"{place}: split must be train, val or test, got {split!r}.")
    name = _one_name(table, path)
    path = PurePosixPath(path).as_posix()
    return Entry(name, path, names, row.get("group", "").strip() or name, SPLITS[split] if split else None)


def _one_name(table: str, path: str) -> str:
    """Return a table photo's one name, however its path is written: ./a.jpg and b/../a.jpg are a.jpg."""
    root = os.path.abspath(files.parent(table)[0])  # noqa: PTH100  resolve() follows links
    if Path(path).is_absolute() and not files.is_url(table):
        path = os.path.normpath(path)
        return os.path.relpath(path, root) if Path(path).is_relative_to(root) else path
    return posixpath.normpath(path)


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


def given_splits(names: Sequence[str]) -> dict[str, str]:
    """Return the split of each photo that lies under at least two of train/, val/ and test/; else of none."""
    tops = {name: PurePosixPath(name).parts[0].lower() for name in names}
    known = {SPLITS.get(top, "") for top in tops.values()}
    return {name: SPLITS[top] for name, top in tops.items()} if "" not in known and len(known) > 1 else {}


def _names(cell: str, place: str) -> tuple[str, ...]:
    """Read a label cell: one name, a JSON list, or names between semicolons.

    Raises:
        DataError: for a list of anything but names, and for a name that cannot be written.
    """
    cell = cell.strip()
    names = [name.strip() for name in cell.split(BETWEEN) if name.strip()]
    if cell.startswith("["):
        try:
            names = [class_name(label) for label in json.loads(cell)]
        except json.JSONDecodeError:
            names = [cell]
        except (ValueError, RecursionError) as error:
            raise DataError(
                f'{place}: expected a list of labels like ["rice", "fish"], got {cell[:40]!r}. Write names.'
            ) from error
    return tuple(dict.fromkeys(names))


def class_name(label: object) -> str:
    """Write a label from a list or a caller as a class name.

    Raises:
        ValueError: for what is no name: nothing, NaN, a list, text that is not Unicode.
    """
    name = str(label)
    if is_missing(label) or not name.strip() or isinstance(label, list | dict):
        raise ValueError(f"{label!r} is no name")
    name.encode()
    return name


def is_missing(value: object) -> bool:
    """Tell what stands for no value: None, NaN of any width, pandas' NA and NaT."""
    try:
        return value is None or bool(value != value)  # noqa: PLR0124  only what is missing differs from itself
    except (TypeError, ValueError):  # pandas' NA is neither, and says so; an array is something
        return type(value).__name__ == "NAType"


def unnameable(entry: Entry) -> str:
    """Say why a photo's name cannot be written into a result; empty where it can."""
    try:
        entry.id.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8; rename it"
    return "has a NUL in its name" if "\0" in entry.id else ""


def shown(name: str) -> str:
    """Return a file name as it can be printed: bytes that are not UTF-8 as their code."""
    return os.fsencode(name).decode(errors="backslashreplace")


def unique(entries: Sequence[Entry], root: str) -> None:
    """Refuse entries, in the order of their ids, of which two have the same.

    Raises:
        DataError: naming it.
    """
    for before, after in pairwise(entries):
        if before.id == after.id:
            raise DataError(f"{root}: {after.id!r} is listed twice. Keep one line a photo.")
