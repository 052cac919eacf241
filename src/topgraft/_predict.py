"""Answer for photos the model has not seen: walk folders, write a table, sort photos into folders."""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TextIO

from topgraft import files
from topgraft.errors import UsageError
from topgraft.photos.decode import SUFFIXES
from topgraft.predictor import COLUMNS, Prediction, Predictor, load
from topgraft.settings import Settings
from topgraft.text import safe_cell
from topgraft.types import Progress, silent

BATCH = 64
"""Photos that are answered together: memory is bounded by it, however many there are."""
ASIDE = ("unknown", "unsure")
"""Folders beside those of the classes."""


def photos_in(places: Iterable[str | Path]) -> Iterator[str]:
    """List photos: each place that is a file as it is, the photos below each that is a folder.

    Args:
        places: paths of photos or folders, folders of class folders included.

    Raises:
        UsageError: for a folder without any photo.
    """
    for place in places:
        if not os.path.isdir(place):  # noqa: PTH112  Path.is_dir raises for names that no system takes
            yield str(place)
            continue
        names = [name for name in files.listing(str(place)) if PurePosixPath(name).suffix.lower() in SUFFIXES]
        if not names:
            raise UsageError(f"{place}: expected photos in the folder, found none. Check the path.")
        yield from (str(Path(place, name)) for name in names)


def load_for(
    run: str | Path, photos: str | Path | Iterable[str | Path], *, settings: Settings | None = None
) -> Predictor:
    """Load a predictor for photos, ready for no more of them at once than there are.

    Each that the engine can answer beside another one takes time before the first answer: a third as long
    again as for one alone, where there are two.

    Raises:
        DataError: where there is no predictor.
        BackboneError: where a file is damaged.
    """
    settings = settings or Settings.load()
    places = [photos] if isinstance(photos, str | Path) else photos
    if isinstance(places, Sequence) and not any(map(os.path.isdir, places)):
        settings = replace(settings, threads=max(1, min(settings.threads, len(places))))
    return load(run, settings=settings)


def predict(
    run: str | Path | Predictor,
    photos: str | Path | Iterable[str | Path],
    *,
    answer_above: float | None = None,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Iterator[Prediction]:
    """Answer for photos, one prediction each as they come; memory does not grow with their number.

    Args:
        run: a run, an exported folder, or a loaded predictor.
        photos: paths of photos and of folders, which are walked.
        answer_above: answers less probable than this are unsure; None takes what the predictor's card says.
        settings: cores.
        progress: told how far it is, where the number of photos is known.

    Yields:
        Predictions in the order of the photos.

    Raises:
        DataError: where there is no predictor.
        UsageError: for a threshold that is no probability, and a folder without photos.
    """
    predictor = run if isinstance(run, Predictor) else load_for(run, photos, settings=settings)
    if answer_above is not None:
        predictor = predictor.answering_above(answer_above)
    if isinstance(photos, str | Path):
        photos = [photos]
    paths = iter(photos_in(photos))
    total = 0
    if isinstance(photos, Sequence):
        known = list(paths)
        paths, total = iter(known), len(known)
    done = 0
    while batch := list(islice(paths, BATCH if total else 1)):  # a stream is answered photo by photo
        yield from predictor.predict(batch)
        done += len(batch)
        if total:
            progress("predict", done, total)


class Table:
    """A CSV table of predictions, written as they come; columns are `COLUMNS`."""

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def add(self, prediction: Prediction) -> None:
        """Write one line."""
        self._writer.writerow(_cell(said) for said in prediction.row().values())


@contextmanager
def writing(path: Path | None) -> Iterator[Callable[[Prediction], None]]:
    """Yield what writes a prediction into a table; the file is whole once the block is done, or not there.

    Only what the file's own place says is said of it: inside, others write, too.

    Args:
        path: of the table; None writes none.

    Raises:
        StoreError: where it cannot be written.
    """
    if path is None:
        yield lambda _: None
        return
    with ExitStack() as stack:
        with files.guarded(path):
            half = stack.enter_context(files.replacing(path))
            table = Table(stack.enter_context(half.open("w", encoding="utf-8", newline="")))

        def add(prediction: Prediction) -> None:
            with files.guarded(path):
                table.add(prediction)

        yield add
        with files.guarded(path):
            stack.close()


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return safe_cell(value) if isinstance(value, str) else value


class Sorter:
    """Puts photos into folders by their answer; never moves one, never writes over one.

    Attributes:
        folder: holds a folder for each class, `unknown/` and `unsure/`.
        put: photos in each folder so far, by its name.
        there: photos that lay there already, of the same bytes.
        unread: photos that could not be read, and stay where they are.
    """

    def __init__(
        self,
        folder: str | Path,
        classes: Sequence[str],
        *,
        photos: Iterable[str | Path] = (),
        link: bool = False,
    ) -> None:
        """Judge the folder before the first photo.

        Args:
            folder: holds the others.
            classes: names of them.
            photos: places that are read.
            link: link photos in place of copying them.

        Raises:
            UsageError: for class names that cannot be a folder's, or are those of the folders beside them;
                and where the photos of a folder around it are read: these would be, too, the next time.
        """
        for place in photos:
            if os.path.isdir(place) and Path(folder).resolve().is_relative_to(Path(place).resolve()):  # noqa: PTH112
                raise UsageError(
                    f"{folder}: lies in {place}, which is read: its photos would be answered again the next"
                    " time. Name a folder elsewhere."
                )
        for name in classes:
            if name in ("", ".", "..") or "/" in name or "\\" in name or name.lower() in ASIDE:
                raise UsageError(f"{folder}: the class {name!r} cannot be a folder here. Rename the class.")
        self.folder, self.link = Path(folder), link
        self.put: Counter[str] = Counter()
        self.there = self.unread = 0

    def add(self, prediction: Prediction) -> Path | None:
        """Copy or link one photo; one that could not be read stays where it is.

        Returns:
            where it lies now, under its own name or, where another photo has it, with a number behind it.
        """
        if prediction.error:
            self.unread += 1
            return None
        name = "unknown" if prediction.unknown else "unsure" if prediction.unsure else prediction.label
        source = Path(prediction.path)
        with files.guarded(self.folder):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            place = self._free(self.folder / name, source)
            if place is None:
                self.there += 1
                return None
            if self.link:
                place.symlink_to(source.resolve())
            else:
                with files.replacing(place) as half:
                    shutil.copy2(source, half)
        self.put[name] += 1
        return place

    def _free(self, folder: Path, source: Path) -> Path | None:
        """Return a name that nothing has yet; None where the same photo lies there already."""
        number = 1
        while True:
            place = folder / (source.name if number == 1 else f"{source.stem}-{number}{source.suffix}")
            if not os.path.lexists(place):
                return place
            if place.is_file() and place.read_bytes() == source.read_bytes():
                return None
            number += 1

    def __str__(self) -> str:
        """Say what was done."""
        how = "linked" if self.link else "copied"
        counts = ", ".join(f"{name} {n}" for name, n in sorted(self.put.items()))
        said = f"{sum(self.put.values())} photos {how} into {self.folder} ({counts or 'none'})"
        if self.there:
            said += f"; {self.there} lay there already"
        return f"{said}; {self.unread} could not be read" if self.unread else said
