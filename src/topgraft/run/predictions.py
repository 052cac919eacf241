"""predictions.csv: one line a photo, out of fold or on the test side."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topgraft.errors import DataError
from topgraft.photos.sample import BETWEEN
from topgraft.run.results import Answers, Side
from topgraft.run.run import Run
from topgraft.store import FeatureStore
from topgraft.text import counted, shortened

COLUMNS = ("id", "digest", "pixels", "group", "split", "fold", "label", "predicted", "probability")
NAME = "predictions.csv"
LEARNED = "learned"
"""The side of photos that were learned from and not scored: their answers are another run's."""
STRANGER = "stranger"
"""The side of photos of classes that the run does not know."""
SPLITS = {"cv": 0, "test": -1, LEARNED: -1, STRANGER: -1}
"""What a line may be of, and its lowest fold."""

say = logging.getLogger(__name__).info


@dataclass(frozen=True)
class Predicted:
    """One line.

    Attributes:
        index: which line, from 0.
        id: the photo.
        digest: of its bytes.
        split: `cv` or `test`; `learned` where it was learned from and not scored.
        fold: in which it was scored, in the first repeat; -1 for a test.
        labels: class indices; several where a photo carries several labels.
        predicted: class index.
        probability: of the predicted class, six digits as all of them.
        probabilities: (C,).
        distance: how unlike the training photos it is; None where nobody measured.
        pixels: address of its decoded pixels; empty in older files.
        named: the label as it is written; of a class the run does not know, it has no index.
        group: what it was to stay together with; its id where it stood alone, None in older files.
    """

    index: int
    id: str
    digest: str
    split: str
    fold: int
    labels: tuple[int, ...]
    predicted: int
    probability: float
    probabilities: NDArray[np.float64]
    distance: float | None
    pixels: str = ""
    named: str = ""
    group: str | None = None

    @property
    def label(self) -> int:
        """The label, or the first of several."""
        return self.labels[0]

    @property
    def right(self) -> bool:
        """Whether the prediction is the label, or one of several."""
        return self.predicted in self.labels


def write_predictions(
    run: Run,
    classes: Sequence[str],
    answers: dict[str, Answers],
    *,
    name: str = NAME,
    labelled: Sequence[str] | None = None,
) -> None:
    """Write what was answered for each side, `cv` or `test`, or `stranger`.

    Args:
        run: in whose folder.
        classes: its C names.
        answers: by side.
        name: of the table.
        labelled: the names that the photos' labels are indices into; None is `classes`.
    """
    names = classes if labelled is None else labelled
    lines = []
    for split, given in answers.items():
        for row, sample in enumerate(given.side.samples):
            shares = given.probabilities[0, row]
            best = int(shares.argmax())
            label = sample.named(names)
            far = "" if given.distance is None else f"{given.distance[row]:.6f}"
            fold = "" if given.fold[row] < 0 else int(given.fold[row])
            lines.append(
                [sample.id, sample.digest, sample.pixels, sample.group, split, fold, label, classes[best]]
                + [f"{shares[best]:.6f}"]
                + [f"{share:.6f}" for share in shares]
                + [far]
            )
    run.write_table(name, [*COLUMNS, *_columns(classes), "distance"], lines)


def read_predictions(run: Run, classes: Sequence[str], name: str = NAME) -> list[Predicted]:
    """Read what `write_predictions` wrote; none where there is no such file.

    Args:
        run: the run.
        classes: its C names.
        name: of the table.

    Raises:
        DataError: for a damaged file.
    """
    index = {name: i for i, name in enumerate(classes)}
    try:
        rows = [
            Predicted(
                i,
                line["id"],
                line["digest"],
                line["split"],
                int(line["fold"] or -1),
                # A name may hold a semicolon; then it is one label, not two.
                ()
                if line["split"] == STRANGER
                else (index[line["label"]],)
                if line["label"] in index
                else tuple(index[part] for part in line["label"].split(BETWEEN)),
                index[line["predicted"]],
                _share(line["probability"]),
                np.array([_share(line[column]) for column in _columns(classes)]),
                _finite(line["distance"]) if line["distance"] else None,
                line.get("pixels") or "",
                line["label"],
                line.get("group"),
            )
            for i, line in enumerate(run.read_table(name))
        ]
        for row in rows:
            if row.split not in SPLITS or not SPLITS[row.split] <= row.fold < len(rows):
                raise ValueError(f"{row.id}: split {row.split!r}, fold {row.fold}")
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{run.path / name}: is damaged ({type(error).__name__}: {shortened(str(error))}). Train again."
        ) from error
    return rows


def _finite(cell: str) -> float:
    if not math.isfinite(value := float(cell)):
        raise ValueError(f"{cell} is no number")
    return value


def _share(cell: str) -> float:
    if not 0 <= (value := float(cell)) <= 1:
        raise ValueError(f"{cell} is no probability")
    return value


def held_out(store: FeatureStore) -> frozenset[str]:
    """Return the ids of photos that the run beside a store held out, or that came as test photos."""
    tested = {
        row["digest"]
        for row in Run(Path(store.path).parent).read_table(NAME)
        if row.get("split") == "test" and row.get("digest")
    }
    return frozenset(
        sample.id for sample in store.samples if sample.split == "test" or sample.digest in tested
    )


def learned(store: FeatureStore, *, with_test: bool = False) -> Side:
    """Return the photos that a choice may be made on: all but those held out, unless they are asked for."""
    out = frozenset() if with_test else held_out(store)
    if out:
        say(f"{counted(len(out), 'held-out photo')} left out; --with-test takes them in.")
    return Side.of(store, [name for name in store.ids if name not in out])


def learned_by(run: Run, store: FeatureStore) -> Side:
    """Return the photos of a store that a run learned from; all, where it does not say which.

    Raises:
        DataError: where none of them is in the store.
    """
    digests = {row["digest"] for row in run.read_table(NAME) if row.get("split") in ("cv", LEARNED)}
    ids = [sample.id for sample in store.samples if sample.digest in digests or not digests]
    if not ids:
        raise DataError(
            f"{store.path}: expected features of the photos that {run.path} learned from, found none."
            " Name its own store."
        )
    return Side.of(store, ids)


def _columns(classes: Sequence[str]) -> list[str]:
    return [f"p_{name}" for name in classes]
