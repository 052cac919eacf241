"""Several classifiers as one: the weighted mean of their probabilities, and how two of them compare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topgraft.errors import UsageError
from topgraft.metrics import Estimate, percentile, resample
from topgraft.types import Labels, Probabilities

Weights = NDArray[np.float64]


def ensemble(probabilities: Sequence[Probabilities], weights: Sequence[float] | None = None) -> Probabilities:
    """Average the probabilities of several classifiers for the same photos.

    Args:
        probabilities: one (N, C) a classifier.
        weights: how much each counts, not negative; None counts all alike.

    Returns:
        (N, C); rows sum to 1 where those of all members do.

    Raises:
        UsageError: for shapes that differ, or weights that do not fit.
    """
    shapes = {one.shape for one in probabilities}
    if len(shapes) != 1:
        raise UsageError(f"an ensemble needs members of one shape (photos, classes), got {sorted(shapes)}.")
    each = np.ones(len(probabilities)) if weights is None else np.asarray(weights, np.float64)
    if each.shape != (len(probabilities),) or not np.isfinite(each).all() or each.min() < 0 or not each.sum():
        raise UsageError(
            f"weights must be {len(probabilities)} numbers from 0, not all of them 0, got {each.tolist()}."
        )
    return np.asarray(np.tensordot(each / each.sum(), np.stack(probabilities), axes=1))


def weights_of(log_losses: Sequence[float]) -> Weights:
    """Weigh members by the inverse of their out-of-fold log loss: half the loss counts twice.

    Args:
        log_losses: in nats, of photos each member had not seen; below 0.001 counts as 0.001.

    Returns:
        (members,), summing to 1.
    """
    inverse = 1 / np.maximum(np.asarray(log_losses, np.float64), 1e-3)
    return np.asarray(inverse / inverse.sum())


def paired(
    labels: Labels, one: Probabilities, other: Probabilities, *, groups: Labels | None = None, seed: int = 0
) -> Estimate:
    """Give one classifier's accuracy minus another's on the same photos, with a paired bootstrap interval.

    Args:
        labels: (N,) true class indices, or a 0/1 table (N, C): then all yes and no answers count.
        one: (N, C) probabilities.
        other: (N, C) what is subtracted.
        groups: (N,) photos that are drawn together.
        seed: of the draws.
    """
    gain = _right(labels, one) - _right(labels, other)
    draws = resample(len(labels), groups, seed=seed)
    return percentile(float(gain.mean()), draws @ gain / draws.sum(axis=1))


def _right(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Give the share of right answers for each photo (N,)."""
    if labels.ndim == 2:
        return np.asarray(((probabilities > 0.5) == (labels > 0)).mean(axis=1))
    return np.asarray(probabilities.argmax(axis=1) == labels, np.float64)
