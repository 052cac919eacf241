"""Numbers with the uncertainty they deserve.

Proportions get Wilson's interval (Wilson 1927), which stays honest at the edge: 32 of 32 right is [0.89, 1].
What is computed from the confusion matrix alone (balanced accuracy, macro F1, MCC) gets an interval from
draws of that matrix's posterior with one pseudo-photo per class (Goutte & Gaussier 2005 do so for F1),
because a bootstrap of perfect answers has no spread. What needs the probabilities (log loss, ROC AUC,
average precision) gets a bootstrap over photos. Photos of one group count as one photo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft.types import Labels, Probabilities

Floats = NDArray[np.float64]
Z = 1.959963984540054  # the normal quantile of a two-sided 95 %


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Give plain data for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.2f}, {self.high:.2f}]"


def wilson(successes: float, n: float) -> Estimate:
    """Give a proportion with Wilson's score interval; without any photo it is unknown: 0.5 in [0, 1].

    Args:
        successes: how many succeeded, 0 to n; a fraction where photos are weighted.
        n: out of how many.
    """
    if n <= 0:
        return Estimate(0.5, 0.0, 1.0)
    share = successes / n
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * np.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return Estimate(
        share, min(max(float(centre - half), 0.0), share), max(min(float(centre + half), 1.0), share)
    )


def effective(groups: Labels | None, n: int) -> float:
    """Give the number of photos that n grouped ones are worth (Kish 1965): n where each stands alone."""
    if groups is None or n == 0:
        return float(n)
    sizes = np.unique(groups, return_counts=True)[1].astype(np.float64)
    return float(n * n / (sizes**2).sum())


def resample(n: int, groups: Labels | None = None, *, seed: int = 0, draws: int = 1000) -> Floats:
    """Draw groups with replacement: (draws, n), how often each photo was drawn."""
    index = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(index.max(initial=-1)) + 1
    rng = np.random.default_rng([seed, 0xB007])
    picked = rng.multinomial(count, np.full(count, 1 / max(count, 1)), size=draws)
    return picked[:, index].astype(np.float64)


def bootstrap(
    fn: Callable[[Labels], float], n: int, groups: Labels | None = None, seed: int = 0, draws: int = 1000
) -> Estimate:
    """Give a statistic of n photos with its bootstrap percentile interval (Efron & Tibshirani 1993).

    Args:
        fn: takes indices of photos, with repetitions, gives the statistic.
        n: how many photos there are.
        groups: (N,) photos that are drawn together.
        seed: the same seed gives the same interval.
        draws: how often to draw.
    """
    value, everyone = fn(np.arange(n)), np.arange(n)
    counts = resample(n, groups, seed=seed, draws=draws).astype(np.int64)
    values = [fn(np.repeat(everyone, row)) for row in counts]
    return percentile(value, np.array(values))


def percentile(value: float, draws: Floats) -> Estimate:
    """Give a value with the middle 95 % of its draws, stretched to hold the value itself."""
    known = draws[np.isfinite(draws)]
    if not len(known):
        return Estimate(float(value), float(value), float(value))
    low, high = np.quantile(known, [0.025, 0.975])
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))


def mean_of(values: Floats, draws: Floats, groups: Labels | None = None) -> Estimate:
    """Give the mean of skewed values with its bootstrap-t interval (Efron & Tibshirani 1993, section 12.5).

    Log losses have a long tail; a percentile interval of them covers too little on a few hundred photos.

    Args:
        values: (N,), one a photo.
        draws: (B, N) from `resample`, of the same groups.
        groups: (N,) or None.
    """
    alone = np.arange(len(values))
    _, first, index = np.unique(alone if groups is None else groups, return_index=True, return_inverse=True)
    total, size = np.bincount(index, values), np.bincount(index).astype(np.float64)

    def mean_and_error(weights: Floats) -> tuple[Floats, Floats]:
        n = weights @ size
        mean = weights @ total / n
        squares = weights @ total**2 - 2 * mean * (weights @ (total * size)) + mean**2 * (weights @ size**2)
        return mean, np.sqrt(np.maximum(squares, 0)) / n

    (value,), (error,) = mean_and_error(np.ones((1, len(total))))
    mean, spread = mean_and_error(draws[:, first])
    known = spread > 1e-9 * max(abs(value), 1e-300)
    if not known.any():
        return Estimate(float(value), float(value), float(value))
    low, high = np.quantile((mean[known] - value) / spread[known], [0.025, 0.975])
    lowest = float(values.min())
    return Estimate(
        float(value),
        float(min(max(value - high * error, lowest), value)),
        float(max(value - low * error, value)),
    )


def losses(labels: Labels, probabilities: Probabilities) -> Floats:
    """Give every photo's log loss (N,), in nats; probabilities below 1e-15 count as 1e-15.

    With several labels per photo (labels a 0/1 table) it is the mean over the classes' own log losses.
    """
    if labels.ndim == 2:
        own = np.where(labels > 0, probabilities, 1 - probabilities)
        return np.asarray(-np.log(np.clip(own, 1e-15, 1.0)).mean(axis=1))
    chosen = probabilities[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.clip(chosen, 1e-15, 1.0)))


def confusion(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Count photos by (label, prediction): (C, C)."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (labels, predicted), 1)
    return table


def summary(
    labels: Labels,
    probabilities: Probabilities,
    classes: tuple[str, ...] | list[str],
    *,
    seed: int = 0,
    groups: Labels | None = None,
) -> dict[str, Any]:
    """Say how good the answers are, each number with its 95 % interval.

    Args:
        labels: (N,) the true class indices.
        probabilities: (N, C).
        classes: the C names.
        seed: of the draws behind the intervals.
        groups: (N,) near-duplicates and other photos that belong together.

    Returns:
        The `scores` of metrics.json: plain data.
    """
    n, C = probabilities.shape
    worth = effective(groups, n) / max(n, 1)
    predicted = probabilities.argmax(axis=1)
    table = confusion(labels, predicted, C)
    draws = resample(n, groups, seed=seed, draws=_affordable(n * C))
    loss = losses(labels, probabilities)
    right = int(np.trace(table))
    scores: dict[str, Any] = {
        "n": n,
        "accuracy": wilson(right * worth, n * worth).as_dict(),
        "log_loss": mean_of(loss, draws, groups).as_dict(),
        **_of_confusion(table, worth, seed),
        **_of_ranking(labels, probabilities, draws, worth),
        "top_k": {str(k): _top(labels, probabilities, k, worth) for k in (3, 5) if k < C},
        "per_class": {name: _of_class(table, index, worth) for index, name in enumerate(classes)},
        "confusion": table.tolist(),
    }
    return scores


def brief(
    labels: Labels,
    probabilities: Probabilities,
    *,
    losses: Floats,
    groups: Labels | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Give one row of a leaderboard: four scores with intervals, over the repeats of a cross-validation.

    Repeats answer the same photos again: they steady the value and do not narrow the interval.

    Args:
        labels: (N,), or a 0/1 table (N, C): then all classes' yes and no answers count as one table.
        probabilities: (R, N, C).
        losses: (R, N) what each answer lost.
        groups: (N,) or None.
        seed: of the draws.
    """
    R, n, C = probabilities.shape
    worth = effective(groups, n) / max(n, 1) / R
    if labels.ndim == 2:
        true, said = np.tile(labels > 0, (R, 1, 1)).ravel(), (probabilities > 0.5).ravel()
        table, worth = confusion(true.astype(np.int64), said.astype(np.int64), 2), worth / C
    else:
        table = confusion(np.tile(labels, R), probabilities.argmax(axis=2).ravel(), C)
    each = losses.mean(axis=0)
    draws = resample(n, groups, seed=seed, draws=_affordable(n))
    shaped = _of_confusion(table, worth, seed)
    return {
        "accuracy": wilson(float(np.trace(table)) * worth, float(table.sum()) * worth).as_dict(),
        "balanced_accuracy": shaped["balanced_accuracy"],
        "log_loss": mean_of(each, draws, groups).as_dict(),
        "macro_f1": shaped["macro_f1"],
    }


def in_words(accuracy: Estimate | dict[str, float], n: int) -> str:
    """Say what an accuracy and its interval mean to somebody with n photos.

    Args:
        accuracy: with its interval.
        n: the photos it was measured on.
    """
    value, low, high = (
        (accuracy.value, accuracy.low, accuracy.high)
        if isinstance(accuracy, Estimate)
        else (accuracy["value"], accuracy["low"], accuracy["high"])
    )
    right = round(value * n)
    measured = f"{right} of {n} photos right ({value:.3f})."
    expect = f"On new photos of the same kind expect {low:.2f} to {high:.2f}"
    if n < 30:
        return f"{measured} {expect}: {n} photos say no more than that, each moves the number by {1 / n:.2f}."
    if right == n:
        return f"{measured} {expect}: no mistake on {n} photos still allows about {3 / n * 100:.0f} in 100."
    half = (high - low) / 2
    if half > 0.02:
        noise = f"differences below {half:.2f} between two results on {n} photos are mostly noise"
        return f"{measured} {expect}; {noise}."
    return f"{measured} {expect}."


def _affordable(cells: int) -> int:
    return int(np.clip(2e8 / max(cells, 1), 200, 1000))


def _top(labels: Labels, probabilities: Probabilities, k: int, worth: float) -> dict[str, float]:
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    hits = int((best == labels[:, None]).any(axis=1).sum())
    return wilson(hits * worth, len(labels) * worth).as_dict()


def _of_class(table: NDArray[np.int64], index: int, worth: float) -> dict[str, Any]:
    """Precision, recall and F1 of one class; F1 = 2J/(1+J) of J = TP/(TP+FP+FN), a proportion."""
    hit, said, support = int(table[index, index]), int(table[:, index].sum()), int(table[index].sum())
    union = said + support - hit
    jaccard = wilson(hit * worth, union * worth)
    f1 = Estimate(*(2 * j / (1 + j) for j in (jaccard.value, jaccard.low, jaccard.high)))
    return {
        "precision": wilson(hit * worth, said * worth).as_dict(),
        "recall": wilson(hit * worth, support * worth).as_dict(),
        "f1": (f1 if union else Estimate(0.5, 0.0, 1.0)).as_dict(),
        "support": support,
    }


def _of_confusion(table: NDArray[np.int64], worth: float, seed: int, draws: int = 1000) -> dict[str, Any]:
    rng = np.random.default_rng([seed, 0xC0F])
    C = len(table)
    draws = int(np.clip(1e7 / C**2, 200, draws))
    drawn = rng.standard_gamma(table * worth + 1 / C, size=(draws, C, C))
    present = table.sum(axis=1) > 0
    # Each class keeps the number of photos it had; only where they went is drawn.
    drawn *= (table.sum(axis=1) / drawn.sum(axis=2))[:, :, None]
    exact = table[None].astype(np.float64)
    return {
        name: percentile(float(fn(exact, present)[0]), fn(drawn, present)).as_dict()
        for name, fn in (("balanced_accuracy", _balanced), ("macro_f1", _macro_f1), ("mcc", _mcc))
    }


def _balanced(tables: Floats, present: NDArray[np.bool_]) -> Floats:
    hits = np.diagonal(tables, axis1=1, axis2=2)[:, present]
    return np.asarray((hits / tables.sum(axis=2)[:, present]).mean(axis=1))


def _macro_f1(tables: Floats, present: NDArray[np.bool_]) -> Floats:
    hits = np.diagonal(tables, axis1=1, axis2=2)
    f1 = 2 * hits / np.maximum(tables.sum(axis=1) + tables.sum(axis=2), 1e-12)
    return np.asarray(f1[:, present].mean(axis=1))


def _mcc(tables: Floats, _present: NDArray[np.bool_]) -> Floats:
    """Matthews' correlation for C classes (Gorodkin 2004); 0 where all answers are one class."""
    hits, total = np.trace(tables, axis1=1, axis2=2), tables.sum(axis=(1, 2))
    said, true = tables.sum(axis=1), tables.sum(axis=2)
    cover = hits * total - (said * true).sum(axis=1)
    spread = (total**2 - (said**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1))
    return np.asarray(np.where(spread > 0, cover / np.sqrt(np.maximum(spread, 1e-12)), 0.0))


def _of_ranking(labels: Labels, probabilities: Probabilities, draws: Floats, worth: float) -> dict[str, Any]:
    """Macro one-vs-rest ROC AUC and average precision over the classes that have both sides."""
    C = probabilities.shape[1]
    counts = np.bincount(labels, minlength=C)
    usable = [c for c in range(C) if 0 < counts[c] < len(labels)]
    if not usable:
        return {
            "roc_auc": Estimate(0.5, 0.0, 1.0).as_dict(),
            "average_precision": Estimate(0.5, 0.0, 1.0).as_dict(),
        }
    weights = np.concatenate([np.ones((1, len(labels))), draws])
    pairs = [ranking(labels == c, probabilities[:, c], weights) for c in usable]
    smallest = float(min(min(counts[c], len(labels) - counts[c]) for c in usable)) * worth
    found = {}
    for name, parts in zip(("roc_auc", "average_precision"), zip(*pairs, strict=True), strict=True):
        known = np.isfinite(parts)  # a draw may hold no photo of a class
        values = np.where(known, parts, 0.0).sum(axis=0) / np.where(
            known.any(axis=0), known.sum(axis=0), np.nan
        )
        found[name] = at_edge(percentile(float(values[0]), values[1:]), smallest).as_dict()
    return found


def at_edge(estimate: Estimate, n: float) -> Estimate:
    """Give a perfect score the lower end that n of n successes have: a bootstrap of it has no spread."""
    if estimate.value < 1 - 1e-12:
        return estimate
    return Estimate(estimate.value, min(estimate.low, wilson(n, n).low), estimate.high)


def ranking(positive: NDArray[np.bool_], scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """ROC AUC and average precision under many weightings of the photos; equal scores are one step.

    Args:
        positive: (N,).
        scores: (N,), higher is more likely positive.
        weights: (B, N).

    Returns:
        (B,) and (B,); NaN where a side has no weight.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hit = np.cumsum(weights[:, order] * positive[order], axis=1)[:, ends]
    miss = np.cumsum(weights[:, order] * ~positive[order], axis=1)[:, ends]
    step_hit, step_miss = np.diff(hit, axis=1, prepend=0), np.diff(miss, axis=1, prepend=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (step_miss * (hit - step_hit / 2)).sum(axis=1) / (hit[:, -1] * miss[:, -1])
        precision = np.where(hit + miss > 0, hit / np.maximum(hit + miss, 1e-12), 0.0)
        average = (step_hit * precision).sum(axis=1) / hit[:, -1]
    return np.where(miss[:, -1] > 0, area, np.nan), average
