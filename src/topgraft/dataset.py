"""Labelled photos: which there are, what they are called, and which belong together."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from topgraft import files
from topgraft.decode import SUFFIXES, decode
from topgraft.errors import DataError, DecodeError
from topgraft.fingerprint import digest
from topgraft.looks import Look, Looks, look, twins
from topgraft.settings import Settings
from topgraft.types import Image, Labels, Progress, silent

T = TypeVar("T")

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
class Sample:
    """One photo with its label.

    Attributes:
        id: its path relative to the dataset's root, with forward slashes; unique.
        path: where it lies: relative to the root, or absolute.
        label: class index; for several labels the first one.
        group: samples of one group stay on one side of every split.
        digest: content address of the file's bytes.
        split: `train`, `val` or `test` where the data came split, else None.
        labels: all class indices where a photo has several, else empty.
    """

    id: str
    path: str
    label: int
    group: str
    digest: str
    split: str | None = None
    labels: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """One file that cannot be used, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """One row before its file was opened."""

    id: str
    path: str
    names: tuple[str, ...]
    group: str
    split: str | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What decoding one file gave; lasting where these bytes will always give it."""

    digest: str
    look: Look
    lasting: bool


@dataclass(frozen=True)
class Dataset:
    """Labelled photos whose files were all opened once.

    Make one with `from_folder`, `from_csv` or `from_pairs`. Photos that cannot be read are in `refused`,
    never silently gone.

    Attributes:
        samples: in the order of their ids.
        classes: class names; a label is an index into them.
        root: the folder or URL that paths are relative to.
        refused: files that are no usable photos.
        ignored: files beside the photos whose names say they are something else.
        looks: what each photo looks like, by digest.
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    root: str
    refused: tuple[Refused, ...] = ()
    ignored: tuple[str, ...] = ()
    looks: dict[str, Look] = field(default_factory=dict, repr=False)

    @classmethod
    def from_folder(
        cls, path: str | Path, *, settings: Settings | None = None, progress: Progress = silent
    ) -> Dataset:
        """Read `path/<class>/*.jpg`, or the same under `train/`, `val/` and `test/`.

        Args:
            path: a local folder or an fsspec URL. A `.csv` file is read by `from_csv`.
            settings: where looks are kept, how many threads read.
            progress: told of the photos as they are read.

        Raises:
            DataError: for no folder, no photos in it, or a folder beside train/, val/ and test/.
        """
        root = str(path)
        if root.lower().endswith(".csv"):
            return cls.from_csv(path, settings=settings, progress=progress)
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
            entries.append(_Entry(name, name, (parts[depth],), name, split))
        if not entries:
            raise DataError(
                f"{root}: expected one folder of photos for each class, found no photo in a class folder"
                f"{f' ({len(photos)} lie beside the folders)' if photos else ''}."
                " Put the photos of each class into a folder with its name."
            )
        return cls._open(entries, root, ignored, settings, progress)

    @classmethod
    def from_csv(
        cls, path: str | Path, *, settings: Settings | None = None, progress: Progress = silent
    ) -> Dataset:
        """Read a table with the columns `path`, `label` and, if wanted, `split` and `group`.

        Paths are relative to the table's folder. Several labels of one photo are a quoted list:
        `"[""rice"", ""fish""]"` (JSON) or `"rice;fish"`.

        Raises:
            DataError: for a missing table or column, and, with the line, for an empty cell, one too many, a
                path that cannot be, or an unknown split.
        """
        table = Path(path)
        entries = [_entry(table, line, row) for line, row in _rows(table)]
        if not entries:
            raise DataError(f"{table}: expected a photo a line, found none below the header. Add some.")
        return cls._open(entries, str(table.parent), [], settings, progress)

    @classmethod
    def from_pairs(
        cls,
        paths: Sequence[str | Path],
        labels: Sequence[object],
        *,
        groups: Sequence[object] | None = None,
        settings: Settings | None = None,
        progress: Progress = silent,
    ) -> Dataset:
        """Take paths and their labels, as scikit-learn users have them.

        Raises:
            DataError: where the lengths differ or there is nothing.
        """
        if len(paths) != len(labels) or not len(paths):
            raise DataError(
                f"expected as many labels as paths, got {len(paths)} paths and {len(labels)} labels."
            )
        local = [os.path.abspath(path) for path in map(str, paths)]  # noqa: PTH100  resolve() follows links
        root = os.path.commonpath([str(Path(one).parent) for one in local])
        rows = zip(local, labels, groups if groups is not None else local, strict=True)
        entries = [
            _Entry(
                Path(one).relative_to(root).as_posix(),
                Path(one).relative_to(root).as_posix(),
                (str(name),),
                str(g),
                None,
            )
            for one, name, g in rows
        ]
        return cls._open(entries, root, [], settings, progress)

    @classmethod
    def _open(
        cls,
        entries: Sequence[_Entry],
        root: str,
        ignored: list[str],
        settings: Settings | None,
        progress: Progress,
    ) -> Dataset:
        settings = settings or Settings.load()
        refused = [Refused(_shown(one.id), reason) for one in entries if (reason := _unnameable(one))]
        entries = sorted((one for one in entries if not _unnameable(one)), key=lambda one: one.id)
        _unique(entries, root)
        digests, looks = _look_at(entries, root, settings, progress)
        classes = tuple(sorted({name for one in entries for name in one.names}, key=_natural))
        index = {name: i for i, name in enumerate(classes)}
        several = any(len(one.names) > 1 for one in entries)
        samples = []
        for one in entries:
            found = digests[one.id]
            reason = found[1] or looks[found[0]].reason
            if reason:
                refused.append(Refused(one.id, reason))
                continue
            labels = tuple(sorted(index[name] for name in one.names))
            samples.append(
                Sample(one.id, one.path, labels[0], one.group, found[0], one.split, labels if several else ())
            )
        refused.sort(key=lambda one: one.id)
        beside = tuple(sorted(map(_shown, ignored)))
        return cls(tuple(samples), classes, root, tuple(refused), beside, looks)

    def __len__(self) -> int:
        """Count the usable photos."""
        return len(self.samples)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids, in order."""
        return tuple(one.id for one in self.samples)

    @cached_property
    def labels(self) -> Labels:
        """(N,) class indices."""
        return np.array([one.label for one in self.samples], dtype=np.int64)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """(N,) group numbers: given groups, with near-duplicates merged into them."""
        return twins([self.looks[one.digest] for one in self.samples], [one.group for one in self.samples])

    def read(self, i: int) -> bytes:
        """Read the bytes of photo i as they are now.

        Raises:
            DecodeError: where the file is gone or cannot be opened.
        """
        one = self.samples[i]
        try:
            return files.read(self.root, one.path)
        except OSError as error:
            raise DecodeError(one.id, _unopened(error)) from error

    def image(self, i: int) -> Image:
        """Decode photo i: (H, W, 3) uint8 RGB."""
        return decode(self.read(i), self.samples[i].id)

    def location(self, i: int) -> str:
        """Give the full path or URL of photo i."""
        path = self.samples[i].path
        return f"{self.root.rstrip('/')}/{path}" if files.is_url(self.root) else str(Path(self.root, path))

    def subset(self, ids: Iterable[str]) -> Dataset:
        """Keep the samples with these ids; classes, and so labels, stay as they are.

        Raises:
            DataError: for an id that is not here.
        """
        wanted = set(ids)
        kept = tuple(one for one in self.samples if one.id in wanted)
        if len(kept) != len(wanted):
            lost = sorted(wanted - {one.id for one in kept})
            raise DataError(f"{self.root}: no photo has the id {lost[0]!r}. Was it renamed or removed?")
        return replace(self, samples=kept, refused=(), ignored=())


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


def _entry(table: Path, line: int, row: dict[str, str]) -> _Entry:
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
    return _Entry(name, name, names, row.get("group", "").strip() or name, SPLITS[split] if split else None)


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
            f"{root}: expected only train, val and test, got photos in {_shown(strays[0])!r} beside them."
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


def _natural(name: str) -> tuple[list[str | int], str]:
    """Sort class 10 after class 9, and 01 before 1: text and numbers alternate, then the name decides."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))], name


def _unnameable(one: _Entry) -> str:
    """Say why a photo's name cannot be written into a result; empty where it can."""
    try:
        one.id.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8; rename it"
    return "has a NUL in its name" if "\0" in one.id else ""


def _shown(name: str) -> str:
    """Give a file name that can be printed: bytes that are not UTF-8 as their code."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _unique(entries: Sequence[_Entry], root: str) -> None:
    for before, after in pairwise(entries):
        if before.id == after.id:
            raise DataError(f"{root}: {after.id!r} is listed twice. Keep one line a photo.")


def _look_at(
    entries: Sequence[_Entry], root: str, settings: Settings, progress: Progress
) -> tuple[dict[str, tuple[str, str]], dict[str, Look]]:
    """Read every file, decode those not yet known: {id: (digest, reason)} and {digest: look}.

    A file that changes meanwhile goes by the digest of the bytes that were decoded.
    """
    kept = Looks(settings.cache_dir)
    digests: dict[str, tuple[str, str]] = {}

    def address(one: _Entry) -> tuple[str, str]:
        try:
            return digest(files.read(root, one.path)), ""
        except OSError as error:
            return "", _unopened(error)

    def see(one: _Entry) -> _Seen:
        try:
            data = files.read(root, one.path)
        except OSError as error:
            return _Seen("", Look.refused(_unopened(error)), lasting=False)
        try:
            return _Seen(digest(data), look(decode(data, one.id)), lasting=True)
        except DecodeError as error:
            # What this machine has no memory for, another or the next run may well decode.
            lasting = not isinstance(error.__cause__, MemoryError)
            return _Seen(digest(data), Look.refused(error.reason), lasting)

    with ThreadPoolExecutor(settings.threads) as pool:
        for one, found in _each(pool, address, entries, "reading photos", progress):
            digests[one.id] = found
        looks = kept.recall(found for found, _ in digests.values())
        fresh: dict[str, Look] = {}
        # Once, unless a file changed: then others that had its old bytes are still without a look.
        while new := {key: one for one in entries if (key := digests[one.id][0]) and key not in looks}:
            for one, seen in _each(pool, see, list(new.values()), "checking photos", progress):
                digests[one.id] = (seen.digest, "" if seen.digest else seen.look.reason)
                looks[seen.digest] = seen.look
                if seen.lasting:
                    fresh[seen.digest] = seen.look
    if fresh:
        kept.keep(fresh)
    return digests, looks


def _unopened(error: OSError) -> str:
    return f"cannot be opened ({error.strerror or error})"


def _each(
    pool: ThreadPoolExecutor,
    work: Callable[[_Entry], T],
    entries: Sequence[_Entry],
    what: str,
    progress: Progress,
) -> Iterable[tuple[_Entry, T]]:
    """Work on all entries in threads, in order, telling how far it is."""
    for done, pair in enumerate(zip(entries, pool.map(work, entries), strict=True), start=1):
        progress(what, done, len(entries))
        yield pair
