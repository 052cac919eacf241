"""Curves of a ranking, to be drawn: ROC, and precision over recall.

What is not defined for the labels at hand (one class only, say) is nan or empty, never a guess. The numbers
that sum these curves up, with their intervals, are in `metrics`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]


def _counts(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[Curve, Curve]:
    """Count true and false positives at each distinct threshold, from the highest score down."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)
    hits = np.cumsum(positive[order])[ends].astype(np.float64)
    return hits, ends + 1.0 - hits


def roc(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[Curve, Curve]:
    """Trace the ROC curve; tied scores are one step.

    Args:
        positive: (N,) whether the sample is of the class.
        score: (N,) higher means more likely of the class.

    Returns:
        False and true positive rates, each from 0 to 1; (0, 1) and nan where one side is empty.

    Source: Fawcett, An introduction to ROC analysis, Pattern Recognition Letters 27 (2006), algorithm 1.
    """
    total = int(positive.sum())
    if total in (0, positive.size):
        return np.array([0.0, 1.0]), np.array([np.nan, np.nan])
    hits, alarms = _counts(positive, score)
    return np.append(0.0, alarms / (positive.size - total)), np.append(0.0, hits / total)


def precision_recall(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[Curve, Curve]:
    """Trace precision over recall, from the highest threshold down.

    Args:
        positive: (N,) whether the sample is of the class.
        score: (N,) higher means more likely of the class.

    Returns:
        Recall, rising to 1, and the precision there; empty where no sample is positive.
    """
    total = int(positive.sum())
    if total == 0:
        return np.empty(0), np.empty(0)
    hits, alarms = _counts(positive, score)
    return hits / total, hits / (hits + alarms)
