"""Numbers with the uncertainty they deserve.

Proportions get Wilson's interval (Wilson 1927), which stays honest at the edge: 32 of 32 right is [0.89, 1].
Other scores between 0 and 1 get the same interval, of as many photos as would give a proportion their
variance: that of balanced accuracy, macro F1 and MCC is worked out from the confusion matrix, that of ROC
AUC and average precision is bootstrapped over photos. Log loss, which is skewed, gets a bootstrap-t. Photos
of one group count as one photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from topgraft.types import Labels, Probabilities

Floats = NDArray[np.float64]
Z = 1.959963984540054  # the normal quantile of a two-sided 95 %
SHOWN = 5e-4
"""Log loss below which a difference is shown as 0.000. Rounding makes such ones, with intervals as narrow."""
DOUBT = Z * Z
"""Photos of the usual accuracy that a class is lent, to tell how far it scatters (Agresti & Coull 1998)."""
OUT_OF_FOLD = 0.65
"""What a photo that was answered out of fold is worth, a photo held out being worth 1.

Other photos to learn from would have made another head. An interval that knows of the scored photos alone
held the accuracy on unseen photos in 91 % of 600 draws from five sets of real photos, and log loss in 88 %;
with this it held in 94 and 93 %, and is 1.26 times as wide (`benchmarks/coverage.py`, docs/heads.md). Nadeau
& Bengio 2003 have the reason and would give 0.47 for ten folds, wider than these photos ask for; Bates,
Hastie & Tibshirani 2024 (JASA) estimate it anew for every set, which takes hundreds of fits."""
FEW = 50
"""Photos held out below which the test alone is no headline: one mistake moves it by 2 points and more."""
RANKED = 2.0
"""A ranking is worth at most so many times its photos: few photos that are ranked well scatter too little."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Return plain data for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.2f}, {self.high:.2f}]"


def wilson(successes: float, n: float) -> Estimate:
    """Return a proportion with Wilson's score interval; without any photo it is unknown: 0.5 in [0, 1].

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


def as_proportion(value: float, variance: float, at: float, most: float = np.inf) -> Estimate:
    """Return a score from 0 to 1 with the interval of a proportion with the same variance.

    Wilson's interval of the effective number of photos at·(1 - at)/variance: Franco, Little, Louis and Slud
    2019, "Comparative study of confidence intervals for proportions in complex sample surveys".

    Args:
        value: the score.
        variance: of it, above 0 unless `most` is given.
        at: the score that the variance was worked out at, between 0 and 1 unless `most` is given.
        most: photos it is worth at most.
    """
    one_photo = at * (1 - at)  # the variance that one photo would give
    photos = min(one_photo / variance, most) if min(one_photo, variance) > 0 else most
    shared = wilson(min(max(value, 0.0), 1.0) * photos, photos)
    return Estimate(value, shared.low, shared.high)


def effective(groups: Labels | None, n: int) -> float:
    """Return the number of photos that n grouped ones are worth (Kish 1965): n where each stands alone."""
    if groups is None or n == 0:
        return float(n)
    sizes = np.unique(groups, return_counts=True)[1].astype(np.float64)
    return float(n * n / (sizes**2).sum())


def resample(n: int, groups: Labels | None = None, *, seed: int = 0, draws: int = 1000) -> Floats:
    """Draw groups with replacement: (draws, n), how often each photo was drawn."""
    _, index = numbered(groups, n)
    count = int(index.max(initial=-1)) + 1
    rng = np.random.default_rng([seed, 0xB007])
    picked = rng.multinomial(count, np.full(count, 1 / max(count, 1)), size=draws)
    return picked[:, index].astype(np.float64)


def percentile(value: float, draws: Floats) -> Estimate:
    """Return a value with the middle 95 % of its draws, stretched to hold the value itself."""
    known = draws[np.isfinite(draws)]
    if not len(known):
        return Estimate(float(value), float(value), float(value))
    low, high = np.quantile(known, [0.025, 0.975])
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))


def mean_of(values: Floats, draws: Floats, groups: Labels | None = None, *, worth: float = 1.0) -> Estimate:
    """Return the mean of skewed values with its bootstrap-t interval (Efron & Tibshirani 1993, section 12.5).

    Log losses have a long tail; a percentile interval of them covers too little on a few hundred photos.

    Args:
        values: (N,), one a photo.
        draws: (B, N) from `resample`, of the same groups.
        groups: (N,) or None.
        worth: of a photo: the standard error is that of so many times the photos.
    """
    first, index = numbered(groups, len(values))
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
    # Of a handful of photos some draws have next to no spread: no end lies beyond the photos themselves.
    least, most = float(values.min()), float(values.max())
    return Estimate(
        float(value),
        float(min(max(value - high * error / np.sqrt(worth), least), value)),
        float(max(min(value - low * error / np.sqrt(worth), most), value)),
    )


def losses(labels: Labels, probabilities: Probabilities) -> Floats:
    """Return every photo's log loss (N,), in nats; probabilities below 1e-15 count as 1e-15.

    With several labels per photo (labels a 0/1 table) it is the mean over the classes' own log losses.
    """
    if labels.ndim == 2:
        own = np.where(labels > 0, probabilities, 1 - probabilities)
        return np.asarray(-np.log(np.clip(own, 1e-15, 1.0)).mean(axis=1))
    chosen = probabilities[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.clip(chosen, 1e-15, 1.0)))


def confusion(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Count photos by (label, prediction): (C, C)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def silent(labels: Labels) -> str:
    """Say why scores are missing where all labels (N,) are of one class, else give ""."""
    if labels.ndim == 2 or len(np.unique(labels)) != 1:
        return ""
    return "All photos measured are of one class: balanced accuracy, MCC and ROC AUC (–) say nothing of it."


def summary(
    labels: Labels,
    probabilities: Probabilities,
    classes: tuple[str, ...] | list[str],
    *,
    seed: int = 0,
    groups: Labels | None = None,
    out_of_fold: bool = False,
) -> dict[str, Any]:
    """Say how good the answers are, each number with its 95 % interval.

    Args:
        labels: (N,) the true class indices.
        probabilities: (N, C).
        classes: the C names.
        seed: of the draws behind the intervals.
        groups: (N,) near-duplicates and other photos that belong together.
        out_of_fold: answers of a cross-validation, for the head that is fitted on all photos: intervals
            are wider (`OUT_OF_FOLD`).

    Returns:
        The `scores` of metrics.json: plain data; None where photos of one class alone say nothing.
    """
    n, C = probabilities.shape
    each = OUT_OF_FOLD if out_of_fold else 1.0
    worth = each * effective(groups, n) / max(n, 1)
    predicted = probabilities.argmax(axis=1)
    matrix = confusion(labels, predicted, C)
    draws = resample(n, groups, seed=seed, draws=affordable(n * C))
    loss = losses(labels, probabilities)
    right = int(np.trace(matrix))
    scores: dict[str, Any] = {
        "n": n,
        "accuracy": wilson(right * worth, n * worth).as_dict(),
        "log_loss": mean_of(loss, draws, groups, worth=each).as_dict(),
        **_of_confusion(matrix, worth),
        **_of_ranking(labels, probabilities, draws, worth),
        "top_k": {str(k): _top(labels, probabilities, k, worth) for k in (3, 5) if k < C},
        "per_class": {name: _of_class(matrix, index, worth) for index, name in enumerate(classes)},
        "confusion": matrix.tolist(),
    }
    return scores


def brief(
    labels: Labels,
    probabilities: Probabilities,
    *,
    losses: Floats,
    groups: Labels | None = None,
    seed: int = 0,
    out_of_fold: bool = False,
) -> dict[str, Any]:
    """Return one row of a leaderboard: four scores with intervals, over the repeats of a cross-validation.

    Repeats answer the same photos again: they steady the value and do not narrow the interval.

    Args:
        labels: (N,), or a 0/1 table (N, C): then all classes' yes and no answers count as one.
        probabilities: (R, N, C).
        losses: (R, N) what each answer lost.
        groups: (N,) or None.
        seed: of the draws.
        out_of_fold: as in `summary`.
    """
    R, n, C = probabilities.shape
    each = OUT_OF_FOLD if out_of_fold else 1.0
    worth = each * effective(groups, n) / max(n, 1) / R
    if labels.ndim == 2:
        true, said = np.tile(labels > 0, (R, 1, 1)).ravel(), (probabilities > 0.5).ravel()
        matrix, worth = confusion(true.astype(np.int64), said.astype(np.int64), 2), worth / C
    else:
        matrix = confusion(np.tile(labels, R), probabilities.argmax(axis=2).ravel(), C)
    loss = losses.mean(axis=0)
    draws = resample(n, groups, seed=seed, draws=affordable(n))
    shaped = _of_confusion(matrix, worth)
    return {
        "accuracy": wilson(float(np.trace(matrix)) * worth, float(matrix.sum()) * worth).as_dict(),
        "balanced_accuracy": shaped["balanced_accuracy"],
        "log_loss": mean_of(loss, draws, groups, worth=each).as_dict(),
        "macro_f1": shaped["macro_f1"],
    }


def in_words(accuracy: Estimate | dict[str, float], n: int, *, several: bool = False) -> str:
    """Say what an accuracy and its interval mean to somebody with n photos.

    Args:
        accuracy: with its interval.
        n: the photos it was measured on.
        several: they carry several labels, so it is of the yes and no answers, one a class.
    """
    value, low, high = (
        (accuracy.value, accuracy.low, accuracy.high)
        if isinstance(accuracy, Estimate)
        else (accuracy["value"], accuracy["low"], accuracy["high"])
    )
    right = round(value * n)
    measured = f"{right} of {n} photos right ({value:.3f})."
    if several:
        right, measured = -1, f"{value:.3f} of the yes and no answers, one a class, for {n} photos right."
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


@dataclass(frozen=True)
class Headline:
    """Which of two measurements to believe.

    Attributes:
        key: `test` or `cross_validation`.
        why: a sentence with two places, for the one that is believed and the other; "" where there is no
            choice to explain.
    """

    key: Literal["test", "cross_validation"]
    why: str = ""

    @property
    def other(self) -> Literal["test", "cross_validation"]:
        """The one that stands beside it."""
        return "cross_validation" if self.key == "test" else "test"


def headline(cross_validated: Estimate, test: Estimate | None, tested: int = 0) -> Headline:
    """Choose between an accuracy out of fold and one on photos held out.

    The test counts, but where it is of fewer than 50 photos, or better by more than chance explains: then the
    one with the narrower interval. A large test that is worse by more than chance is believed: photos that
    were learned from may resemble each other more than new ones do, and folds are dealt from them alone.

    Args:
        cross_validated: with the interval of answers out of fold.
        test: None where nothing was held out.
        tested: how many photos were.
    """
    if test is None:
        return Headline("cross_validation")
    low, high = sorted((cross_validated, test), key=lambda one: one.value)
    beyond = apart(high, low).low > 0
    if tested >= FEW and not beyond:
        return Headline("test")
    if tested >= FEW and test.value < cross_validated.value:
        return Headline(
            "test",
            "Believe {} rather than {}: it is lower by more than chance explains, so the photos learned from"
            " may resemble each other (one shoot, one site) more than new ones will.",
        )
    wider = test.high - test.low > cross_validated.high - cross_validated.low
    differ = (
        "by more than chance explains, so see whether the photos held out are like the others"
        if beyond
        else "by no more than chance"
    )
    why = f"Believe {{}} rather than {{}}: its interval is the narrower one, and the two differ {differ}."
    return Headline("cross_validation" if wider else "test", why)


def apart(one: Estimate, other: Estimate) -> Estimate:
    """Return the difference of two proportions of different photos, from their Wilson intervals.

    Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10.
    """
    gap = one.value - other.value
    return Estimate(
        gap,
        gap - float(np.hypot(one.value - one.low, other.high - other.value)),
        gap + float(np.hypot(one.high - one.value, other.value - other.low)),
    )


def numbered(groups: Labels | None, n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return each group's first photo (G,) and each photo's group (n,), numbered as they appear."""
    if groups is None:
        return np.arange(n), np.arange(n)
    _, first, index = np.unique(groups, return_index=True, return_inverse=True)
    return np.sort(first), np.argsort(np.argsort(first))[index]


def affordable(cells: int) -> int:
    """Say how many draws of so many cells fit in memory: 200 to 1,000."""
    return int(np.clip(2e8 / max(cells, 1), 200, 1000))


def _top(labels: Labels, probabilities: Probabilities, k: int, worth: float) -> dict[str, float]:
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    hits = int((best == labels[:, None]).any(axis=1).sum())
    return wilson(hits * worth, len(labels) * worth).as_dict()


def _of_class(matrix: NDArray[np.int64], index: int, worth: float) -> dict[str, Any]:
    """Precision, recall and F1 of one class; F1 = 2J/(1+J) of J = TP/(TP+FP+FN), a proportion."""
    hit, said, support = int(matrix[index, index]), int(matrix[:, index].sum()), int(matrix[index].sum())
    union = said + support - hit
    jaccard = wilson(hit * worth, union * worth)
    f1 = Estimate(*(2 * j / (1 + j) for j in (jaccard.value, jaccard.low, jaccard.high)))
    return {
        "precision": wilson(hit * worth, said * worth).as_dict(),
        "recall": wilson(hit * worth, support * worth).as_dict(),
        "f1": (f1 if union else Estimate(0.5, 0.0, 1.0)).as_dict(),
        "support": support,
    }


def _of_confusion(matrix: NDArray[np.int64], worth: float) -> dict[str, dict[str, float] | None]:
    """Return the scores of a confusion matrix; of one class alone balanced accuracy and MCC say nothing.

    Their variance is that of the rows, each a multinomial of the photos its class has, to first order (delta
    method). A few photos that are all right would have none, so a row is shrunken towards the accuracy of all
    classes together.
    """
    sizes = matrix.sum(axis=1).astype(np.float64)
    present = sizes > 0
    C, matrix, sizes = len(matrix), matrix[present], sizes[present]
    scores = {"balanced_accuracy": (_balanced, 0.0), "macro_f1": (_macro_f1, 0.0), "mcc": (_mcc, -1.0)}
    own = np.eye(C)[present]
    right = ((matrix * own).sum() * worth + 1) / (sizes.sum() * worth + 2)
    usual = np.where(own > 0, right, (1 - right) / max(C - 1, 1))
    rows = (matrix * worth + DOUBT * usual) / (sizes * worth + DOUBT)[:, None]
    found: dict[str, dict[str, float] | None] = {}
    for name, (score, lowest) in scores.items():
        if C < 2 or len(matrix) < (1 if name == "macro_f1" else 2):
            found[name] = None
            continue
        value, (at, gradient) = score(matrix.astype(np.float64), own)[0], score(rows * sizes[:, None], own)
        gradient = gradient * sizes[:, None]
        spread = (rows * gradient**2).sum(axis=1) - (rows * gradient).sum(axis=1) ** 2
        variance, span = float((spread / (sizes * worth)).sum()), 1 - lowest
        shared = as_proportion((value - lowest) / span, variance / span**2, (at - lowest) / span)
        ends = [lowest + span * end for end in (shared.low, shared.high)]
        found[name] = Estimate(value, *ends).as_dict()
    return found


def _balanced(matrix: Floats, own: Floats) -> tuple[float, Floats]:
    """Return balanced accuracy, and its gradient in every cell (P, C) of the P classes that are present."""
    share = 1 / matrix.sum(axis=1, keepdims=True) / len(matrix)
    return float((matrix * own * share).sum()), own * share


def _macro_f1(matrix: Floats, own: Floats) -> tuple[float, Floats]:
    """Return the mean F1 of the classes that are present, and its gradient in every cell."""
    size, said = matrix.sum(axis=1), own @ matrix.sum(axis=0)
    weight = 1 / (size + said)
    f1 = 2 * (matrix * own).sum(axis=1) * weight
    return float(f1.mean()), (2 * own * weight[:, None] - (f1 * weight) @ own) / len(matrix)


def _mcc(matrix: Floats, own: Floats) -> tuple[float, Floats]:
    """Return Matthews' correlation for C classes (Gorodkin 2004) and gradient; 0 where all answers agree."""
    total, hits = matrix.sum(), float((matrix * own).sum())
    true, said = matrix.sum(axis=1) @ own, matrix.sum(axis=0)
    narrow, wide = total**2 - (said**2).sum(), total**2 - (true**2).sum()
    if narrow <= 0 or wide <= 0:
        return 0.0, np.zeros_like(matrix)
    value = float((hits * total - said @ true) / np.sqrt(narrow * wide))
    return value, (total * own - true) / np.sqrt(narrow * wide) + value * said / narrow


def _of_ranking(
    labels: Labels, probabilities: Probabilities, draws: Floats, worth: float
) -> dict[str, dict[str, float] | None]:
    """Macro one-vs-rest ROC AUC and average precision over the classes that have both sides; None of none."""
    C, n = probabilities.shape[1], len(labels)
    counts = np.bincount(labels, minlength=C)
    usable = [c for c in range(C) if 0 < counts[c] < n]
    if not usable:
        return {"roc_auc": None, "average_precision": None}
    weights = np.concatenate([np.ones((1, n)), draws])
    pairs = [ranking(labels == c, probabilities[:, c], weights) for c in usable]
    most = RANKED * worth * min(n, len(usable) ** 2 / float((1 / counts[usable]).sum()))
    found: dict[str, dict[str, float] | None] = {}
    for name, parts in zip(("roc_auc", "average_precision"), zip(*pairs, strict=True), strict=True):
        known = np.isfinite(parts)  # a draw may hold no photo of a class
        values = np.where(known, parts, 0.0).sum(axis=0) / np.where(
            known.any(axis=0), known.sum(axis=0), np.nan
        )
        value, drawn = float(values[0]), values[1:][np.isfinite(values[1:])]
        variance = float(drawn.var()) if len(drawn) > 1 else np.inf
        found[name] = as_proportion(value, variance, value, most).as_dict()
    return found


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
