"""Which unlabelled photos a classifier would learn most from: those it is in doubt about, no two alike.

Each photo is weighed by how close its two likeliest classes are (margin sampling, Scheffer et al. 2001) and
by how far its features lie from everything that is labelled or was taken before it (k-center greedy, Sener &
Savarese 2018). Doubt alone picks ten photos of one scene, distance alone picks what is odd.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topgraft.types import Features, Probabilities


def unit(features: Features, centre: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return rows of length 1, (N, D), whose products are cosines.

    Args:
        features: (N, D).
        centre: (D,) taken off before; None takes their own mean.
    """
    rows = np.asarray(features, np.float32)
    if centre is None and len(rows):
        centre = rows.mean(axis=0)
    rows = rows - (0 if centre is None else centre)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, 1e-12))


def doubt(probabilities: Probabilities) -> NDArray[np.float64]:
    """Return 1 minus the lead of the likeliest class over the next, (N,): 1 where two are as likely."""
    best = np.sort(probabilities, axis=1)[:, -2:]
    return np.asarray(1 - (best[:, 1] - best[:, 0]))


def most_useful(
    probabilities: Probabilities,
    rows: NDArray[np.float32],
    known: NDArray[np.float32],
    count: int | None = None,
) -> list[int]:
    """Return the most useful photos, the best first.

    Args:
        probabilities: (N, C) of the photos without a label.
        rows: (N, D) their features, of length 1.
        known: (M, D) those of photos with a label, of length 1; M may be 0.
        count: how many to return; None for all.
    """
    weight = doubt(probabilities)
    near = np.full(len(rows), -1.0, np.float32)
    if len(known):
        near = (rows @ known.T).max(axis=1)
    left = np.ones(len(rows), bool)
    order = []
    for _ in range(min(len(rows), len(rows) if count is None else count)):
        worth = np.where(left, weight * (1 - near), -np.inf)
        best = int(worth.argmax())
        order.append(best)
        left[best] = False
        near = np.maximum(near, rows @ rows[best])
    return order
