"""The photos a person is asked about, and why."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from topgraft import files
from topgraft.errors import DataError
from topgraft.fingerprint import digest
from topgraft.photos.decode import SUFFIXES
from topgraft.run import Run
from topgraft.run.origin import Origin
from topgraft.run.predictions import Predicted
from topgraft.settings import Settings
from topgraft.types import Progress


@dataclass(frozen=True)
class Photo:
    """One photo.

    Attributes:
        root: the folder or URL it lies in.
        path: below that.
        digest: of its bytes.
        label: its class; empty where it has none.
        why: what makes it worth a look, in a sentence; empty where nothing does.
        beside: keys of photos to show with it.
        probabilities: (C,) of the run's classes, by a head that had not learned from it; None where unknown.
    """

    root: str
    path: str
    digest: str
    label: str = ""
    why: str = ""
    beside: tuple[str, ...] = ()
    probabilities: NDArray[np.float64] | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """A name that stays the same when the page or the server is loaded anew."""
        return digest(f"{self.root}\0{self.path}\0{self.digest}".encode())[:16]


def of_the_run(run: Run, origin: Origin, rows: Sequence[Predicted]) -> list[Photo]:
    """Return all photos of a run: first those to look at, the most suspicious first, then the others.

    Likely label errors come first, then near-duplicates with different labels, then photos that are unlike
    the rest of the training photos.
    """
    metrics = run.metrics
    photos = {
        row.id: Photo(
            origin.root, row.id, row.digest, metrics.classes[row.label], probabilities=row.probabilities
        )
        for row in rows
        if origin.root and origin.may_read(row.id) and row.id not in origin.brought  # has a person's word
    }
    asked: dict[str, Photo] = {}

    def ask(name: str, why: str, beside: Sequence[str] = ()) -> None:
        if name in photos:
            before = asked.get(name, photos[name])
            others = tuple(photos[other].key for other in beside if other in photos and other != name)
            asked[name] = replace(before, why=f"{before.why} {why}".strip(), beside=before.beside or others)

    for issue in metrics.trust.label_issues:
        ask(issue["id"], f"Looks like {issue['suggested']} ({issue['probability']:.0%}).")
    for group in run.read("health.json").get("cross_class_duplicates", []):
        for name in group:
            ask(name, "Looks the same as a photo with another label.", group)
    strange = [row for row in rows if (row.distance or 0.0) > metrics.trust.unknown.threshold]
    for row in sorted(strange, key=lambda row: -(row.distance or 0.0)):
        ask(row.id, "Unlike the other photos.")
    return [*asked.values(), *(photo for name, photo in photos.items() if name not in asked)]


def in_folder(
    folder: str, known: set[str], settings: Settings, progress: Progress
) -> tuple[list[Photo], int]:
    """Return the photos of a folder without labels, however deep they lie, and how many could not be read.

    Args:
        folder: or URL.
        known: digests of photos that are labelled already, and left out; of equal files one is taken.
        settings: threads, and whether a socket may be opened.
        progress: told of the files.

    Raises:
        DataError: for no folder, or one without photos.
        OfflineError: for a URL where no socket may be opened.
    """
    files.stay_here(folder, offline=settings.offline)
    names = [name for name in files.listing(folder) if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if not names:
        raise DataError(f"{folder}: expected photos to label, found none. Give a folder that holds some.")

    def address(name: str) -> str:
        try:
            return digest(files.read(folder, name))
        except OSError:
            return ""

    photos: dict[str, Photo] = {}
    gone = 0
    with ThreadPoolExecutor(settings.threads) as pool:
        for done, (name, found) in enumerate(zip(names, pool.map(address, names), strict=True), start=1):
            progress("reading photos", done, len(names))
            gone += not found
            if found and found not in known:
                photos.setdefault(found, Photo(folder, name, found))
    return list(photos.values()), gone
