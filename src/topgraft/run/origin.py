"""Where a run's photos are, and which of them may be read on the run's word alone.

A run's folder may come from a stranger. Followed blindly, its config and its table of predictions make this
machine send requests, or read files that nobody meant. So a place on another machine is followed only where
the user names it, and so is a photo that lies outside the place; every reader of a run's photos asks here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from topgraft import files
from topgraft.config import Config
from topgraft.errors import DataError
from topgraft.photos.correct import read_as_asked
from topgraft.photos.dataset import Dataset
from topgraft.photos.entries import in_table
from topgraft.run.run import Run
from topgraft.settings import Settings
from topgraft.types import Progress, silent


@dataclass(frozen=True)
class Origin:
    """Where photos are read from by their ids.

    Attributes:
        root: the folder or URL that ids are relative to; "" where no photo may be read.
        why: then the reason, without a full stop.
        listed: where photos lie by id, as a table says that the user named.
    """

    root: str
    why: str = ""
    listed: Mapping[str, str] = field(default_factory=dict, repr=False)

    def may_read(self, name: str) -> bool:
        """Tell whether a photo lies below the root, or where a table that the user named says."""
        return name in self.listed or inside(name)

    def read(self, name: str) -> bytes:
        """Return the bytes of a photo.

        Raises:
            DataError: for a photo that may not be read.
            OSError: as the file system says it.
        """
        if not self.root:
            raise DataError(f"{name}: {self.why}.")
        if not self.may_read(name):
            raise DataError(f"{name}: lies outside {self.root}. Name the table that lists it.")
        return files.read(self.root, self.listed.get(name, name))


def origin(run: Run, named: str | Path | None = None) -> Origin:
    """Return where a run's photos are.

    Args:
        run: its config says where they were.
        named: the folder, URL or table where the user says that they are; None goes by the run's word.

    Raises:
        DataError: for a table that the user named and that cannot be read, or a damaged config.
    """
    place = files.local(noted(run) if named is None else named)
    if not place:
        return Origin("", "its config.toml names no photos")
    if named is None and files.is_remote(place):
        return Origin("", f"its photos lie at {place}, and another machine is asked only where you name it")
    if not is_table(place):
        return Origin(place)
    listed = {} if named is None else {entry.id: entry.path for entry in in_table(place)}
    return Origin(files.parent(place)[0], listed=listed)


def photos_of(run: Run) -> str:
    """Return the folder or table from which a run's photos can be read again, for `Dataset.from_folder`.

    Raises:
        DataError: where the run does not say, or its word is not enough: for a place on another machine, and
            for a table that lists photos outside its folder.
    """
    found = origin(run)
    if not found.root:
        raise DataError(f"{run.path}: {found.why}. Give the photos, too.")
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
    """Read a run's photos again, with the labels that it learned, joined into groups as it did.

    Photos that came with corrections from other folders lie outside the place, and are left out.

    Args:
        run: its config says how, and where its photos are.
        place: the folder or table; None is that of the run's own photos.
        settings: cores and cache.
        progress: told of photos.

    Raises:
        DataError: as `photos_of`, and where the run's table of corrections is gone or damaged.
    """
    asked, there = (run.config or Config()).data, photos_of(run) if place is None else place
    return read_as_asked(asked, there, add=False, settings=settings, progress=progress)[0]


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
