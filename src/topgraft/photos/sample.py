"""One photo with its label, and one file that is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

BETWEEN = ";"
"""What stands between several labels of one photo in a cell of a table."""


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
        pixels: content address of its decoded pixels, which a new caption or a lossless copy leaves alone.
    """

    id: str
    path: str
    label: int
    group: str
    digest: str
    split: str | None = None
    labels: tuple[int, ...] = ()
    pixels: str = ""

    @property
    def every_label(self) -> tuple[int, ...]:
        """All class indices, whether the photo has one or several."""
        return self.labels or (self.label,)

    def named(self, classes: Sequence[str]) -> str:
        """Return the names of its labels, as tables have them: `sushi`, or `sushi;soup`."""
        return BETWEEN.join(classes[i] for i in self.every_label)


@dataclass(frozen=True, slots=True)
class Refused:
    """One file that cannot be used, and why."""

    id: str
    reason: str


def sizes(samples: Iterable[Sample], classes: Sequence[str]) -> dict[str, int]:
    """Count the photos of each class; a photo with several labels counts for each."""
    every = [i for sample in samples for i in sample.every_label]
    counts = np.bincount(np.array(every, np.int64), minlength=len(classes)).tolist()
    return dict(zip(classes, counts, strict=True))
