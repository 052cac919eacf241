"""Split the photos first, by group: the test side is touched once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topgraft.errors import DataError, UsageError
from topgraft.photos.dataset import Dataset
from topgraft.run.results import indicators
from topgraft.splits import Split, holdout
from topgraft.types import Labels


def split(data: Dataset, *, test: float = 0.2, val: float = 0.0, seed: int = 0) -> Split:
    """Split by class (all of a photo's classes) and group; near-duplicates stay together.

    Sides follow from the photos' content: a photo more or less leaves nearly all others where they were.

    A split that came with the data is kept, but for its leaks: photos that look like a test photo, or are of
    its group, go to the test side. Photos without a split in a table that has one count as training photos.

    Args:
        data: the photos.
        test: the share held out for the one final test, in [0, 1).
        val: the share held out for validation, in [0, 1).
        seed: decides which.

    Returns:
        Sample ids of each side.

    Raises:
        UsageError: for shares that leave nothing to train on.
        DataError: where nothing can be held out, or a given split has no training photo of some class.
    """
    if min(test, val) < 0 or test + val >= 1:
        raise UsageError(f"test and val must be at least 0 and below 1 together, got {test} and {val}.")
    if any(sample.split for sample in data.samples):
        return _given(data)
    everything = np.arange(len(data))
    rest, tested = _hold(data, everything, test, seed) if test else (everything, everything[:0])
    if not val:
        return Split(_ids(data, rest), (), _ids(data, tested))
    inner, validated = _hold(data, rest, val / (1 - test), seed + 1, "val")
    return Split(_ids(data, inner), _ids(data, validated), _ids(data, tested))


def _hold(data: Dataset, rows: Labels, share: float, seed: int, side: str = "test") -> tuple[Labels, Labels]:
    """Hold out a share of some photos: two arrays of indices into the data."""
    samples = [data.samples[i] for i in rows.tolist()]
    labels = indicators(samples, len(data.classes)) if data.multilabel else data.labels[rows]
    keys = [sample.digest for sample in samples]
    rest, held = holdout(labels, data.groups[rows], share, seed, keys=keys, side=side)
    return rows[rest], rows[held]


def _given(data: Dataset) -> Split:
    """Keep the given sides; a group goes whole to the side that must stay clean most: test, then val."""
    order = ("test", "val", "train")
    side: dict[int, str] = {}
    for group, sample in zip(data.groups.tolist(), data.samples, strict=True):
        side[group] = min(side.get(group, "train"), sample.split or "train", key=order.index)
    ids: dict[str, list[str]] = {name: [] for name in order}
    for group, sample in zip(data.groups.tolist(), data.samples, strict=True):
        ids[side[group]].append(sample.id)
    _every_class_is_learned(data, {*ids["train"], *ids["val"]})
    return Split(tuple(ids["train"]), tuple(ids["val"]), tuple(ids["test"]))


def _every_class_is_learned(data: Dataset, learned: set[str]) -> None:
    shown = indicators(data.samples, len(data.classes)).astype(bool)
    lost = shown.any(axis=0) & ~shown[[sample.id in learned for sample in data.samples]].any(axis=0)
    for which in np.flatnonzero(lost):
        raise DataError(
            f"{data.root}: class {data.classes[which]} has photos on the test side and none to train on."
            " Move some to the training side, or take the class out."
        )


def _ids(data: Dataset, rows: NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(data.ids[i] for i in sorted(rows.tolist()))
