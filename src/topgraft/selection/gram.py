"""Sums over features from which linear heads are solved, without the features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from topgraft.types import Features, Labels


@dataclass(frozen=True)
class Gram:
    """Sums over some rows X (n, D) with labels in C classes; Y (n, C) is 1 where a row is of the class.

    Add two for the rows of both; take one fold from all for the rows of the others.

    Attributes:
        xtx: (D, D) XᵀX.
        xty: (D, C) XᵀY: the sum of each class's rows.
        sums: (D,) the sum of all rows.
        counts: (C,) rows of each class.
    """

    xtx: NDArray[np.float64]
    xty: NDArray[np.float64]
    sums: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def n(self) -> int:
        """How many rows."""
        return int(self.counts.sum())

    def __add__(self, other: Self) -> Gram:
        return Gram(
            self.xtx + other.xtx, self.xty + other.xty, self.sums + other.sums, self.counts + other.counts
        )

    def __sub__(self, other: Self) -> Gram:
        return Gram(
            self.xtx - other.xtx, self.xty - other.xty, self.sums - other.sums, self.counts - other.counts
        )


def accumulate(blocks: Iterable[tuple[Features, Labels]], width: int, classes: int) -> Gram:
    """Add up blocks of rows in double precision.

    Args:
        blocks: pairs of rows (n, D) and labels (n,).
        width: D.
        classes: C.
    """
    xtx, xty = np.zeros((width, width)), np.zeros((width, classes))
    counts = np.zeros(classes, np.int64)
    for rows, labels in blocks:
        X = rows.astype(np.float64)
        Y = np.zeros((len(rows), classes))
        Y[np.arange(len(rows)), labels] = 1
        xtx += X.T @ X
        xty += X.T @ Y
        counts += np.bincount(labels, minlength=classes)
    return Gram(xtx, xty, xty.sum(axis=1), counts)
