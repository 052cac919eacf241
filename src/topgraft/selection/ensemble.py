"""Several classifiers as one: the weighted mean of their probabilities, and how two of them compare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topgraft.errors import UsageError
from topgraft.metrics import Estimate, affordable, effective, losses, percentile, resample, wilson
from topgraft.types import Labels, Probabilities

Weights = NDArray[np.float64]


def ensemble(probabilities: Sequence[Probabilities], weights: Sequence[float] | None = None) -> Probabilities:
    """Return the weighted mean of the probabilities of several classifiers for the same photos.

    Args:
        probabilities: one (N, C) a classifier.
        weights: how much each counts, not negative; None counts all alike.

    Returns:
        (N, C); rows sum to 1 where those of all members do.

    Raises:
        UsageError: for shapes that differ, or weights that do not fit.
    """
    shapes = {member.shape for member in probabilities}
    if len(shapes) != 1:
        raise UsageError(f"an ensemble needs members of one shape (photos, classes), got {sorted(shapes)}.")
    counts = np.ones(len(probabilities)) if weights is None else np.asarray(weights, np.float64)
    if (
        counts.shape != (len(probabilities),)
        or not np.isfinite(counts).all()
        or counts.min() < 0
        or not counts.sum()
    ):
        raise UsageError(
            f"weights must be {len(probabilities)} numbers from 0, not all of them 0, got {counts.tolist()}."
        )
    return np.asarray(np.tensordot(counts / counts.sum(), np.stack(probabilities), axes=1))


def weights_of(log_losses: Sequence[float]) -> Weights:
    """Return weights of members by the inverse of their out-of-fold log loss: half the loss counts twice.

    Args:
        log_losses: in nats, of photos each member had not seen; below 0.001 counts as 0.001.

    Returns:
        (members,), summing to 1.
    """
    inverse = 1 / np.maximum(np.asarray(log_losses, np.float64), 1e-3)
    return np.asarray(inverse / inverse.sum())


def paired(
    labels: Labels, one: Probabilities, other: Probabilities, *, groups: Labels | None = None
) -> Estimate:
    """Return one classifier's accuracy minus another's on the same photos, with Newcombe's interval.

    It is made of both accuracies' Wilson intervals and of how far they are right on the same photos, so it
    has a width where the two agree on every photo: Newcombe 1998, "Improved confidence intervals for the
    difference between binomial proportions based on paired data", method 10.

    Args:
        labels: (N,) true class indices, or 0/1 indicators (N, C): then all yes and no answers count.
        one: (N, C) probabilities.
        other: (N, C) what is subtracted.
        groups: (N,) photos that count as one.
    """
    ours, theirs = _right(labels, one), _right(labels, other)
    n = effective(groups, len(labels))
    share = n / ours.size
    both, neither = (float(np.sum(each)) * share for each in (ours & theirs, ~ours & ~theirs))
    mine, yours = (float(np.sum(each)) * share for each in (ours & ~theirs, theirs & ~ours))
    first, second = wilson(both + mine, n), wilson(both + yours, n)
    together = both * neither - mine * yours
    if together > 0:  # the correction for continuity
        together = max(together - n / 2, 0.0)
    spread = np.sqrt((both + mine) * (yours + neither) * (both + yours) * (mine + neither))
    phi = together / spread if spread > 0 else 0.0
    gap = (mine - yours) / n

    def half_width(below: float, above: float) -> float:
        return float(np.sqrt(max(below**2 - 2 * phi * below * above + above**2, 0.0)))

    low = gap - half_width(first.value - first.low, second.high - second.value)
    high = gap + half_width(first.high - first.value, second.value - second.low)
    return Estimate(gap, max(low, -1.0), min(high, 1.0))


def paired_loss(
    labels: Labels, one: Probabilities, other: Probabilities, *, groups: Labels | None = None, seed: int = 0
) -> Estimate:
    """Return one classifier's log loss minus another's on the same photos, with a paired bootstrap interval.

    Args:
        labels: (N,) true class indices, or 0/1 indicators (N, C).
        one: (N, C) probabilities.
        other: (N, C) what is subtracted.
        groups: (N,) photos that are drawn together.
        seed: of the bootstrap.
    """
    gap = losses(labels, one) - losses(labels, other)
    draws = resample(len(gap), groups, seed=seed, draws=affordable(len(gap)))
    return percentile(float(gap.mean()), draws @ gap / draws.sum(axis=1))


def _right(labels: Labels, probabilities: Probabilities) -> NDArray[np.bool_]:
    """Return which answers are right: (N,), or (N, C) yes and no answers."""
    if labels.ndim == 2:
        return np.asarray((probabilities > 0.5) == (labels > 0))
    return np.asarray(probabilities.argmax(axis=1) == labels)
