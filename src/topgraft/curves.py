"""Ranking measures, on arrays: ROC, precision and recall, what lies under them, MCC, top-k.

A measure that is not defined for the labels at hand (one class only, say) is nan, never a guess.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topgraft.types import Labels, Probabilities

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


def auc(x: Curve, y: Curve) -> float:
    """Give the area under a curve of straight pieces; `x` must not fall."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def average_precision(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Sum the precision at every step of recall (no interpolation); nan where no sample is positive."""
    recall, precision = precision_recall(positive, score)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision)) if recall.size else float("nan")


def roc_auc(labels: Labels, probabilities: Probabilities) -> float:
    """Average the area under each class's one-against-the-rest ROC curve, classes alike.

    Args:
        labels: (N,) class indices.
        probabilities: (N, C).

    Returns:
        0 to 1; classes without a sample on both sides are left out, nan where none remains.
    """
    areas = [auc(*roc(labels == index, column)) for index, column in enumerate(probabilities.T)]
    known = [area for area in areas if not np.isnan(area)]
    return float(np.mean(known)) if known else float("nan")


def mean_average_precision(labels: Labels, probabilities: Probabilities) -> float:
    """Average each class's average precision, classes alike; absent classes are left out."""
    areas = [average_precision(labels == index, column) for index, column in enumerate(probabilities.T)]
    known = [area for area in areas if not np.isnan(area)]
    return float(np.mean(known)) if known else float("nan")


def mcc(confusion: NDArray[np.int64]) -> float:
    """Give Matthews' correlation of labels and predictions, for any number of classes.

    Args:
        confusion: (C, C) counts, rows are labels, columns predictions.

    Returns:
        -1 to 1; 0 where all labels or all predictions are of one class.

    Source: Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient,
    Computational Biology and Chemistry 28 (2004).
    """
    table = confusion.astype(np.float64)
    said, true, total = table.sum(axis=0), table.sum(axis=1), table.sum()
    spread = (total**2 - said @ said) * (total**2 - true @ true)
    return float((np.trace(table) * total - said @ true) / np.sqrt(spread)) if spread > 0 else 0.0


def top_k(labels: Labels, probabilities: Probabilities, k: int) -> NDArray[np.bool_]:
    """Say for each sample whether its label is among the k most probable classes.

    Args:
        labels: (N,) class indices.
        probabilities: (N, C).
        k: how many guesses are allowed; a tie goes to the class that comes first.

    Returns:
        (N,) booleans; their mean is the top-k accuracy.
    """
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return np.asarray((best == labels[:, None]).any(axis=1))
