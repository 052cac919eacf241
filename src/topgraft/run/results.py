"""What a run has to say: its numbers and its predictions, in the same form whoever trained it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from topgraft import metrics
from topgraft.backbones.card import Card
from topgraft.errors import DataError, UsageError
from topgraft.photos.sample import Sample
from topgraft.store import FeatureStore
from topgraft.types import Labels, Probabilities


@dataclass(frozen=True)
class Side:
    """The photos of one side of a split.

    Attributes:
        rows: (n,) indices into the store's samples.
        samples: n samples.
        labels: (n,) class indices, or a 0/1 table (n, C) where photos carry several labels.
        groups: (n,) group numbers.
    """

    rows: Labels
    samples: tuple[Sample, ...]
    labels: Labels
    groups: Labels

    @classmethod
    def of(cls, store: FeatureStore, ids: Sequence[str]) -> Side:
        """Find photos in a store by id.

        Raises:
            DataError: for a photo the store does not have.
        """
        place = {sample.id: i for i, sample in enumerate(store.samples)}
        lost = [id_ for id_ in ids if id_ not in place]
        if lost:
            raise DataError(
                f"{store.path}: expected all photos of the split in the feature store, {len(lost)} are not"
                f" (first: {lost[0]}). Embed the same photos again."
            )
        rows = np.array(sorted(place[id_] for id_ in ids), dtype=np.int64)
        samples = tuple(store.samples[i] for i in rows)
        multilabel = any(sample.labels for sample in store.samples)
        labels = indicators(samples, len(store.classes)) if multilabel else store.labels[rows]
        return cls(rows, samples, labels, store.groups[rows])


def indicators(samples: Sequence[Sample], classes: int) -> Labels:
    """Return the labels as a 0/1 table (n, C), whether photos carry one or several."""
    found = np.zeros((len(samples), classes), dtype=np.int64)
    for row, sample in enumerate(samples):
        found[row, list(sample.every_label)] = 1
    return found


@dataclass(frozen=True)
class Answers:
    """Probabilities for one side, and how they came about.

    Attributes:
        side: the photos.
        probabilities: (R, n, C), one layer a repeat of the cross-validation; R = 1 for a test.
        fold: (n,) the fold each photo was scored in, in the first repeat; -1 for a test.
        distance: (n,) how unlike the training photos each is; None where nobody measured.
    """

    side: Side
    probabilities: Probabilities
    fold: Labels
    distance: np.ndarray | None = None

    def scores(self, classes: Sequence[str], seed: int) -> dict[str, Any]:
        """Return the `scores` of metrics.json; the headline numbers are over all repeats.

        Photos come in the order of their content, as in `evaluate`: so both draw the same intervals.
        """
        samples = self.side.samples
        order = sorted(range(len(samples)), key=lambda i: (samples[i].digest, samples[i].id))
        labels, groups, answers = (
            self.side.labels[order],
            self.side.groups[order],
            self.probabilities[:, order],
        )
        losses = np.stack([metrics.losses(labels, repeat) for repeat in answers])
        folded = bool((self.fold >= 0).any())
        head = metrics.brief(labels, answers, losses=losses, groups=groups, seed=seed, out_of_fold=folded)
        if labels.ndim == 2:
            return {"n": len(labels), **head}
        full = metrics.summary(
            labels, answers[0], list(classes), seed=seed, groups=groups, out_of_fold=folded
        )
        return full | head


def same_work(store: FeatureStore, maps: FeatureStore) -> None:
    """See that a store of maps is of the same photos and views as the store of features beside it.

    Raises:
        DataError: saying what differs.
    """
    if maps.card.output != "map":
        raise DataError(f"{maps.path}: expected a store of maps, got features. Make one with `embed --maps`.")
    differing = [
        what
        for what, of in (
            ("photos", lambda side: [(sample.id, sample.digest) for sample in side.samples]),
            ("views", lambda side: [view.key for view in side.views]),
            ("backbone", lambda side: (side.card.name, side.card.weights_sha256, side.card.preprocessing())),
        )
        if of(store) != of(maps)
    ]
    if differing:
        raise DataError(
            f"{maps.path}: expected the {' and '.join(differing)} of {store.path}, got others."
            " Embed both from the same photos with the same options."
        )


def check_disjoint(learn: Side, test: Side) -> None:
    """See that nothing is both learned from and tested on.

    Raises:
        UsageError: for a photo, or a group, on both sides.
    """
    shared = np.isin(test.groups, learn.groups)
    for place in np.flatnonzero(shared):
        sample, twin = (
            test.samples[place],
            learn.samples[np.flatnonzero(learn.groups == test.groups[place])[0]],
        )
        what = "is" if sample.id == twin.id else f"belongs together with {twin.id}, which is"
        raise UsageError(
            f"split: {sample.id} is on the test side and {what} on the training side, {int(shared.sum())}"
            " photos in all. Split with topgraft.split, which keeps groups together."
        )


def _alike(store: FeatureStore) -> int:
    """Count photos that look like another one: groups that came with the data are no duplicates."""
    names: dict[int, set[str]] = {}
    for group, sample in zip(store.groups.tolist(), store.samples, strict=True):
        names.setdefault(group, set()).add(sample.group)
    return sum(len(given_groups) - 1 for given_groups in names.values())


def counts(store: FeatureStore, train: Side, test: Side, refused: int) -> dict[str, Any]:
    """Count the photos of a run; one with several labels counts for each of them."""
    C = len(store.classes)
    sides = {
        name: indicators(side.samples, C).sum(axis=0) for name, side in (("train", train), ("test", test))
    }
    return {
        "photos": len(store),
        "refused": refused,
        "duplicates": _alike(store),
        "views": len(store.views),
        "train": len(train.rows),
        "test": len(test.rows),
        "per_class": {
            name: {side: int(photos[i]) for side, photos in sides.items()}
            for i, name in enumerate(store.classes)
        },
    }


def backbone_facts(card: Card, precision: str) -> dict[str, Any]:
    """Say which backbone made the features."""
    return {
        "name": card.name,
        "fingerprint": card.fingerprint(),
        "features": card.features,
        "precision": precision,
    }


def rounded(facts: Any, digits: int = 12) -> Any:
    """Round every float: the last bits of a sum differ between processors and say nothing."""
    if isinstance(facts, float | np.floating):
        return round(float(facts), digits)
    if isinstance(facts, np.integer):
        return int(facts)
    if isinstance(facts, dict):
        return {key: rounded(value, digits) for key, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [rounded(value, digits) for value in facts]
    return facts
