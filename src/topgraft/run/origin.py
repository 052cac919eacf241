"""Where a run's photos are, and which of them may be read on the run's word alone.

A run's folder may come from a stranger. Followed blindly, its config and its table of predictions make this
machine send requests, or read files that nobody meant. So a place on another machine is followed only where
the user names it, and so is a photo that lies outside the place; every reader of a run's photos asks here.
Photos that corrections brought from other local folders are known by their content: nothing else that lies
there is taken.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath, PurePosixPath

from topgraft import files
from topgraft.config import Config
from topgraft.errors import DataError
from topgraft.fingerprint import digest
from topgraft.photos.correct import read_as_asked
from topgraft.photos.corrections import current, read_corrections
from topgraft.photos.dataset import Dataset, open_entries
from topgraft.photos.entries import SPLITS, Entry, given_splits, in_table
from topgraft.photos.grouping import Grouping
from topgraft.photos.sample import Refused
from topgraft.run.predictions import Predicted, read_predictions
from topgraft.run.run import Run
from topgraft.settings import Settings
from topgraft.types import Progress, silent

CHANGED = "is not the photo any more that a correction brought"
OUTSIDE = "lies outside the run's photos"


@dataclass(frozen=True)
class Origin:
    """Where photos are read from by their ids.

    Attributes:
        root: the folder or URL that ids are relative to; "" where no photo may be read.
        why: then the reason, without a full stop.
        is_folder: whether that is a folder of photos, and not just where the paths of a table or pairs begin.
        listed: where photos lie by id, as a table says that the user named.
        brought: digests of photos that corrections brought from other folders, by id, which is their path.
    """

    root: str
    why: str = ""
    is_folder: bool = False
    listed: Mapping[str, str] = field(default_factory=dict, repr=False)
    brought: Mapping[str, str] = field(default_factory=dict, repr=False)

    def may_read(self, name: str) -> bool:
        """Tell whether a photo lies below the root, or where a table of the user's says."""
        return name in self.listed or name in self.brought or inside(name)

    def read(self, name: str) -> bytes:
        """Return the bytes of a photo.

        Raises:
            DataError: for a photo that may not be read, and one in whose place something else lies.
            OSError: as the file system says it.
        """
        if not self.root:
            raise DataError(f"{name}: {self.why}.")
        if not self.may_read(name):
            raise DataError(f"{name}: lies outside {self.root}. Name the table that lists it.")
        found = files.read(self.root, self.listed.get(name, name))
        if name in self.brought and digest(found) != self.brought[name]:
            raise DataError(f"{name}: {CHANGED}.")
        return found


def origin(run: Run, named: str | Path | None = None, rows: Sequence[Predicted] | None = None) -> Origin:
    """Return where a run's photos are.

    Args:
        run: its config says where they were.
        named: the folder, URL or table where the user says that they are; None goes by the run's word.
        rows: of its table of predictions, where they were read.

    Raises:
        DataError: for a table that the user named and that cannot be read, or a damaged config.
    """
    if not named and (why := _why_not(run)):
        return Origin("", why)
    place, rows = files.local(named or noted(run)), _rows(run) if rows is None else rows
    brought = _brought(run, rows)
    if not is_table(place):
        return Origin(place, is_folder=not _are_pairs(rows, run.metrics.classes, place), brought=brought)
    listed = {entry.id: entry.path for entry in in_table(place)} if named else {}
    return Origin(files.parent(place)[0], listed=listed, brought=brought)


def _why_not(run: Run) -> str:
    """Say why a run's own word on where its photos are is not enough; empty where it is."""
    place = files.local(noted(run))
    if not place:
        return "its config.toml names no photos"
    if files.is_remote(place):
        return f"its photos lie at {place}, and another machine is asked only where you name it"
    return ""


def _brought(run: Run, rows: Sequence[Predicted]) -> dict[str, str]:
    """Return the digests of photos outside a run's place that its table of corrections knows, too, by id."""
    rows = [row for row in rows if not inside(row.id) and not files.is_remote(row.id)]
    table = run.config.data.corrections if run.config else None
    if not rows or not table or files.is_remote(table):
        return {}
    try:
        labelled = {line.digest for line in current(read_corrections(table)) if line.decision == "label"}
    except DataError:
        return {}  # the table is gone, and with it the person's word
    return {row.id: row.digest for row in rows if Path(row.id).is_absolute() and row.digest in labelled}


def _rows(run: Run) -> list[Predicted]:
    return [row for row in read_predictions(run, run.metrics.classes) if row.labels]


def photos_of(run: Run) -> str:
    """Return the folder or table from which a run's photos can be read again, for `Dataset.from_folder`.

    Raises:
        DataError: where the run does not say, or its word is not enough: for a place on another machine, and
            for a table that lists photos outside its folder.
    """
    if why := _why_not(run):
        raise DataError(f"{run.path}: {why}. Give the photos, too.")
    place = files.local(noted(run))
    if is_table(place):
        for entry in in_table(place):
            if not inside(entry.id):
                raise DataError(
                    f"{run.path}: its table {place} lists photos outside its folder (first: {entry.id})."
                    " Give the table, too."
                )
    return place


def read_photos(
    run: Run,
    place: str | Path | None = None,
    *,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Read a run's photos again: those it knows, with the labels and groups that it learned.

    Which those are stands in its table of predictions, so it does not matter whether folders, a table, pairs
    or corrections said it, nor what they say by now. A run without that table reads the place as its config
    says.

    Args:
        run: its config says where its photos are.
        place: the folder or table; None is that of the run's own photos.
        settings: cores and cache.
        progress: told of photos.

    Returns:
        The photos; those that are gone are in `refused`.

    Raises:
        DataError: as `photos_of`, and where the folder or table is not there.
        OfflineError: for a place that only a socket reaches where none may be opened.
    """
    there, rows = str(photos_of(run) if place is None else place), _rows(run)
    if not rows:
        return read_place(run, there, settings=settings, progress=progress)
    return _read(run, rows, there, settings, progress)


def _read(
    run: Run, rows: Sequence[Predicted], there: str, settings: Settings | None, progress: Progress
) -> Dataset:
    """Read the photos of a run's lines again."""
    asked, settings = (run.config or Config()).data, settings or Settings.load()
    files.stay_here(there, offline=settings.offline)
    where = origin(run, there, rows)
    files.expect_folder(where.root)
    entries = _entries(rows, run.metrics.classes, where, there)
    data = open_entries(entries, where.root, settings=settings, progress=progress)
    changed = {one.id for one in data.samples if where.brought.get(one.id, one.digest) != one.digest}
    refused = [
        *data.refused,
        *(Refused(name, CHANGED) for name in changed),
        *(Refused(row.id, OUTSIDE) for row in rows if not where.may_read(row.id)),
    ]
    data = replace(
        data,
        samples=tuple(one for one in data.samples if one.id not in changed),
        refused=tuple(sorted(refused, key=lambda file: file.id)),
        source=there if where.is_folder or is_table(there) else "",
        duplicates=asked.duplicates,
    )
    grouping = Grouping.of(asked.group_by, asked.within)
    return (
        data if grouping is None or rows[0].group is not None else data.grouped(grouping, settings=settings)
    )


def read_place(
    run: Run, place: str | Path, *, settings: Settings | None = None, progress: Progress = silent
) -> Dataset:
    """Read all photos that lie in a place now, grouped and corrected as a run's config says.

    Of pairs of paths and labels the place says no labels, so that only photos that the run knows are read.

    Raises:
        DataError: for photos that cannot be read, or a table of corrections that is none.
    """
    rows = _rows(run)
    if _are_pairs(rows, run.metrics.classes, str(place)):
        return _read(run, rows, str(place), settings, progress)
    asked = (run.config or Config()).data
    return read_as_asked(asked, place, add=False, settings=settings, progress=progress)[0]


def _entries(rows: Sequence[Predicted], classes: Sequence[str], where: Origin, there: str) -> list[Entry]:
    """List the photos of a run that may be read."""
    table = {entry.id: entry for entry in in_table(files.local(there))} if is_table(there) else {}
    splits = {} if table else given_splits([row.id for row in rows if inside(row.id)])
    found = []
    for row in rows:
        if where.may_read(row.id):
            alone = Entry(row.id, row.id, (), row.id, splits.get(row.id))
            listed = table.get(row.id, alone)
            group = listed.group if row.group is None else row.group
            found.append(replace(listed, names=tuple(classes[i] for i in row.labels), group=group))
    return found


def _are_pairs(rows: Sequence[Predicted], classes: Sequence[str], place: str) -> bool:
    """Tell whether photos got their labels neither from a table nor from most of the folders they lie in."""
    if not rows or is_table(place):
        return False
    folders = [(classes[row.label], *PurePosixPath(row.id).parts[:-1][:2]) for row in rows if inside(row.id)]
    by_folder = [
        name in found[: 2 if found and found[0].lower() in SPLITS else 1] for name, *found in folders
    ]
    return sum(by_folder) * 2 < len(by_folder)


def inside(name: str) -> bool:
    """Tell whether an id stays below whatever it is relative to, on the system it was written on and here."""
    return "\0" not in name and not any(
        path.anchor or ".." in path.parts for path in (PurePath(name), PurePosixPath(name))
    )


def is_table(place: str) -> bool:
    """Tell a CSV table from a folder, as `Dataset.from_folder` does."""
    return place.lower().endswith(".csv")


def is_noted(run: Run, place: str | Path) -> bool:
    """Tell whether a place is the one that a run's config says its photos are at."""
    return files.absolute(place) == files.absolute(noted(run) or os.devnull)


def noted(run: Run) -> str:
    """Return the place of the photos that the config says, "" where it says none: to be shown, not read."""
    return run.config.data.photos if run.config else ""
