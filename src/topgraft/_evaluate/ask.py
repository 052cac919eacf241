"""What runs say of photos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topgraft.errors import DecodeError, UsageError
from topgraft.photos.dataset import Dataset
from topgraft.photos.sample import Sample
from topgraft.policies.policy import Policy, render_all
from topgraft.predictor import load
from topgraft.run import Run
from topgraft.run.results import Answers, Side
from topgraft.selection.ensemble import ensemble
from topgraft.settings import Settings
from topgraft.store.table import views_of
from topgraft.types import Labels, Probabilities, Progress, silent

BATCH = 8
"""Photos held in memory at once, all their views with them."""


@dataclass(frozen=True)
class Said:
    """What one run said.

    Attributes:
        probabilities: (n, C); nan where the photo could not be read.
        plain: (n, C) the same of the photo as it is, without augmented views.
        unknown: (n,) whether it called the photo unknown.
        distance: (n,) how far the photo lies from the training photos.
    """

    probabilities: Probabilities
    plain: Probabilities
    unknown: NDArray[np.bool_]
    distance: NDArray[np.float64]

    def of(self, read: NDArray[np.bool_]) -> Said:
        """Return the answers for some of the photos."""
        return Said(self.probabilities[read], self.plain[read], self.unknown[read], self.distance[read])


@dataclass(frozen=True)
class Heard:
    """What all runs said of the photos that could be read.

    Attributes:
        data: the photos.
        rows: (n,) which of them.
        each: what every run said of them.
        lost: those of the photos asked for that could not be read.
    """

    data: Dataset
    rows: Labels
    each: tuple[Said, ...]
    lost: tuple[Sample, ...]

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The photos themselves."""
        return tuple(self.data.samples[i] for i in self.rows.tolist())

    @property
    def groups(self) -> Labels:
        """(n,) photos that are drawn together."""
        return self.data.groups[self.rows]

    @property
    def mean(self) -> Probabilities:
        """(n, C) the mean of all runs' probabilities."""
        return ensemble([said.probabilities for said in self.each])

    @property
    def plain(self) -> Probabilities:
        """(n, C) the same of the photos as they are."""
        return ensemble([said.plain for said in self.each])

    @property
    def unknown(self) -> NDArray[np.bool_]:
        """(n,) what every run calls unknown."""
        return np.asarray(np.all([said.unknown for said in self.each], axis=0))

    def answers(self) -> Answers:
        """Return them as a page shows them; a distance is one run's own, the mean of several has none."""
        side = Side(self.rows, self.samples, self.data.labels[self.rows], self.groups)
        distance = self.each[0].distance if len(self.each) == 1 else None
        return Answers(side, self.mean[None], np.full(len(self.rows), -1, np.int64), distance)


def hear(
    runs: list[Run],
    data: Dataset,
    photos: list[int],
    classes: tuple[str, ...],
    *,
    tta: int = 0,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Heard:
    """Ask every run about some photos, by index; a photo that one of them could not read is in no answer."""
    each = [_ask(run, data, photos, classes, tta=tta, settings=settings, progress=progress) for run in runs]
    read: NDArray[np.bool_] = np.asarray(~np.isnan([said.probabilities for said in each]).any(axis=(0, 2)))
    lost = tuple(data.samples[i] for i, ok in zip(photos, read, strict=True) if not ok)
    return Heard(data, np.array(photos, np.int64)[read], tuple(said.of(read) for said in each), lost)


def _ask(
    run: Run,
    data: Dataset,
    indices: list[int],
    classes: tuple[str, ...],
    *,
    tta: int,
    settings: Settings | None,
    progress: Progress,
) -> Said:
    """Let one run's predictor look at photos, and at some augmented views of each."""
    names = run.metrics.policies
    if tta > len(names):
        raise UsageError(f"{run.path}: tta must be 0 to {len(names)}, the run's policies, got {tta}.")
    views = views_of([Policy.parse(name) for name in names[:tta]], run.metrics.seed)
    shape = (len(indices), len(classes))
    found = Said(
        np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape[0], bool), np.full(shape[0], np.nan)
    )
    if not indices:  # no strangers, mostly: the model need not be opened for them
        return found
    predictor = load(run.path, settings=settings)
    for start in range(0, len(indices), BATCH):
        places, seen = [], []
        for place, i in enumerate(indices[start : start + BATCH], start):
            try:
                image = data.image(i)
            except DecodeError:
                continue
            # Views are made of the photo itself: the predictor fits each to its backbone, as any photo.
            seen += render_all(image, views, data.samples[i].digest)
            places.append(place)
        said = predictor.predict(seen)
        answers = np.reshape(
            [[prediction.probabilities[name] for name in classes] for prediction in said],
            (len(places), len(views), len(classes)),
        )
        found.probabilities[places], found.plain[places] = answers.mean(axis=1), answers[:, 0]
        found.unknown[places] = [prediction.unknown for prediction in said[:: len(views)]]
        found.distance[places] = [prediction.distance for prediction in said[:: len(views)]]
        progress(f"evaluating {run.path.name}", min(start + BATCH, len(indices)), len(indices))
    return found
