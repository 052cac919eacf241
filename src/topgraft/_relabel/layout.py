"""The corrected photos as a folder: one folder a class, copies or links; the originals stay as they are."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePosixPath

from topgraft import files
from topgraft.errors import UsageError
from topgraft.photos.correct import correct
from topgraft.photos.dataset import Dataset
from topgraft.run import Run
from topgraft.run.origin import read_photos
from topgraft.settings import Settings
from topgraft.types import Progress, silent


def corrected_photos(
    run: Run, table: str | Path, *, settings: Settings | None = None, progress: Progress = silent
) -> Dataset:
    """Read a run's photos again, with corrections applied.

    Raises:
        DataError: where the run does not say where they are, or there is no such table.
    """
    data = read_photos(run, settings=settings, progress=progress)
    return correct(data, table, settings=settings, progress=progress).data


def write_layout(
    data: Dataset, folder: str | Path, *, link: bool = False, progress: Progress = silent
) -> Path:
    """Write a dataset as `folder/<class>/<photo>`, below `train/`, `val/` and `test/` where it came split.

    Args:
        data: the photos, corrected.
        folder: a new or empty one.
        link: make symbolic links, which take no room and follow the originals; else copies.
        progress: told of the photos.

    Returns:
        The folder.

    Raises:
        UsageError: for a folder that is not empty or lies among the photos, a class whose name no folder can
            have, and links to photos on another machine or where the system makes none.
        DataError: where a photo changed meanwhile, or cannot be read any more.
        StoreError: where it cannot be written.
    """
    folder = Path(folder)
    data.keep_out(folder)
    if link and files.is_url(data.root):
        raise UsageError(f"{data.root}: photos on another machine cannot be linked to. Leave --link out.")
    for name in data.classes:
        if name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise UsageError(f"class {name!r}: no folder can have this name. Rename the class.")
    with files.guarded(folder, "run the same command again"):
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(f"{folder}: expected a new or empty folder. Give another name.")
        taken: set[Path] = set()
        for i, sample in enumerate(data.samples):
            place = _free(
                folder / (sample.split or "") / data.classes[sample.label] / PurePosixPath(sample.path).name,
                taken,
            )
            place.parent.mkdir(parents=True, exist_ok=True)
            if link:
                _link(Path(data.location(i)).resolve(), place)
            else:
                files.write(place, data.read_checked(i))
            progress("writing photos", i + 1, len(data))
    return folder


def _free(place: Path, taken: set[Path]) -> Path:
    """Return a name that no photo of the class has yet; systems differ in whether a.jpg is A.JPG."""
    number, found = 1, place
    while Path(str(found).casefold()) in taken:
        number += 1
        found = place.with_stem(f"{place.stem}-{number}")
    taken.add(Path(str(found).casefold()))
    return found


def _link(photo: Path, place: Path) -> None:
    try:
        place.symlink_to(photo)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP) or os.name == "nt":
            raise UsageError(f"{place}: the system makes no links here. Leave --link out.") from error
        raise
