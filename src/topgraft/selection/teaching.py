"""Which unlabelled photos a classifier would learn most from: in doubt, typical, and no two alike.

Each photo is weighed by three things. How close its two likeliest classes are (margin sampling, Scheffer et
al. 2001); how near its nearest neighbours are, so that what is odd and like nothing else waits (information
density, Settles & Craven 2008); and how far it lies from those taken before it. Doubt alone picks ten photos
of one scene, and with few labels what is odd: then it is no better than random order. Measured by
benchmarks/review.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topgraft.types import Features, Probabilities

NEAREST = 10
REFERENCES = 2000
"""Photos that neighbours are looked for among, at most: all of a large folder would take minutes."""
LEAST = 0.01
"""The density of a photo that is like no other."""


def unit(features: Features) -> NDArray[np.float32]:
    """Return rows of length 1 about their own mean, (N, D), whose products are cosines."""
    rows = np.asarray(features, np.float32)
    if not len(rows):
        return rows
    rows = rows - rows.mean(axis=0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, 1e-12))


def doubt(probabilities: Probabilities) -> NDArray[np.float64]:
    """Return 1 minus the lead of the likeliest class over the next, (N,): 1 where two are as likely."""
    best = np.sort(probabilities, axis=1)[:, -2:]
    return np.asarray(1 - (best[:, 1] - best[:, 0]))


def density(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean cosine of each photo and its ten nearest, (N,), of rows (N, D) of length 1."""
    references = rows[:: -(-len(rows) // REFERENCES)] if len(rows) else rows
    count = min(NEAREST + 1, len(references))  # itself is among them
    found = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), 500):
        near = rows[start : start + 500] @ references.T
        found[start : start + 500] = np.partition(near, -count, axis=1)[:, -count:].mean(axis=1)
    return np.maximum(found, LEAST)


def most_useful(
    probabilities: Probabilities, rows: NDArray[np.float32], count: int | None = None
) -> list[int]:
    """Return the most useful photos, the best first.

    Args:
        probabilities: (N, C) of the photos without a label.
        rows: (N, D) their features, of length 1.
        count: how many to return; None for all.
    """
    weight = doubt(probabilities) * density(rows)
    near = np.full(len(rows), -1.0, np.float32)
    left = np.ones(len(rows), bool)
    order = []
    for _ in range(min(len(rows), len(rows) if count is None else count)):
        worth = np.where(left, weight * (1 - near), -np.inf)
        best = int(worth.argmax())
        order.append(best)
        left[best] = False
        near = np.maximum(near, rows @ rows[best])
    return order
