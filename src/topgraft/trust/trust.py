"""How far a chosen head can be trusted: calibration, the unknown answer, and labels that look wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft.heads._base import Fold
from topgraft.metrics import Estimate, numbered, resample
from topgraft.selection.compare import Comparison
from topgraft.settings import Settings
from topgraft.trust.coverage import Coverage, coverage, in_words
from topgraft.trust.unknown import Unknown, learn_unknown
from topgraft.types import Features, Labels, Probabilities

BINS = 10
FEW = 5
"""Photos a class needs for its likelihood to be known: nothing is suggested to be of a smaller one."""


@dataclass(frozen=True)
class Trust:
    """What is known about trust.

    Attributes:
        numbers: the `trust` of metrics.json: plain data.
        unknown: the answer "none of these", fitted on all photos.
        distances: (N,) how far each photo lies from what a head knows that was not fitted on it.
        notes: plain sentences.
        coverage: how many photos are answered above a threshold; None where photos carry several labels.
        answer_above: the probability below which an answer is unsure; None answers always.
    """

    numbers: dict[str, Any]
    unknown: Unknown
    distances: NDArray[np.float64]
    notes: list[str]
    coverage: Coverage | None = None
    answer_above: float | None = None

    def answering(self, above: float | None, right: float | None) -> Trust:
        """Return the same with a threshold for answers, and what it comes to among numbers and notes.

        Args:
            above: the threshold; None answers always.
            right: the share that shall be right, in place of a threshold.
        """
        if self.coverage is None:
            said = f"Photos carry several labels, so none was sought above which {right or 0:.0%} are right."
            return replace(self, answer_above=above, notes=[*self.notes, *([said] if right else [])])
        if right is not None and (above := self.coverage.threshold_for(right)) is None:
            said = f"No threshold makes {right:.0%} of the answers right; all are answered."
            return replace(self, notes=[*self.notes, said])
        if above is None:
            return self
        found = self.coverage.at(above)
        told = {**self.numbers, "coverage": {**self.numbers["coverage"], "chosen": found}}
        return replace(self, numbers=told, answer_above=above, notes=[*self.notes, in_words(found)])


def trust(
    comparison: Comparison,
    features: Features,
    labels: Labels,
    groups: Labels | None = None,
    *,
    ids: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    unknown: tuple[Unknown, NDArray[np.float64]] | None = None,
    seed: int = 0,
    settings: Settings | None = None,
) -> Trust:
    """Return how far the chosen head can be trusted, by its out-of-fold answers.

    They are the first repeat's; label issues go by the mean of all.

    Args:
        comparison: how it was chosen.
        features: (N, D) view 0 of the photos it was compared on; (N, D + B) where block features were read.
        labels: (N,) class indices, or 0/1 indicators (N, C).
        groups: (N,) or None.
        ids: (N,) names of the photos; None numbers them.
        classes: C names; None numbers them.
        unknown: the answer "none of these" and the out-of-fold distances (N,) where they are known already.
        seed: of the draws.
        settings: cores and device.
    """
    oof = comparison.oof[0]
    names = list(classes) if classes is not None else [str(c) for c in range(oof.shape[1])]
    photos = list(ids) if ids is not None else [str(i) for i in range(len(labels))]
    believed, answered = judge(labels, oof, groups, seed=seed)
    error, perfect = (Estimate(**believed[name]) for name in ("ece", "ece_if_calibrated"))
    none_of_these, distances = unknown or learn_unknown(
        features,
        labels,
        groups,
        comparison.folds[0],
        logits=comparison.logits[0],
        temperature=comparison.temperature,
        head=comparison.chosen.head,
        setting=comparison.chosen.setting,
        columns=comparison.columns,
        seed=seed,
        settings=settings,
    )
    folds = [fold for dealt in comparison.folds for fold in dealt]
    unseen = [] if labels.ndim == 2 else never_learned(labels, folds)
    issues = [] if labels.ndim == 2 else label_issues(labels, comparison.oof.mean(axis=0), unseen)
    numbers = {
        "temperature": comparison.temperature,
        **believed,
        "unknown": {
            "method": none_of_these.method,
            "threshold": none_of_these.threshold,
            "accepted": none_of_these.accepted,
            "evidence": none_of_these.evidence,
        },
        "label_issues": [
            {"id": photos[i], "label": names[labels[i]], "suggested": names[other], "probability": chance}
            for i, other, chance in issues
        ],
    }
    notes = _notes(error, perfect, none_of_these, len(issues))
    if labels.ndim == 1:
        lumped = [c for c in unseen if (labels == c).sum() > 1]
        known = ~np.isin(labels, lumped)
        notes += _often_unknown(labels[known], distances[known] > none_of_these.threshold, names)
        notes += _unmeasured([(names[c], int((labels == c).sum())) for c in lumped])
    return Trust(numbers, none_of_these, distances, notes, answered)


def judge(
    labels: Labels,
    probabilities: Probabilities,
    groups: Labels | None = None,
    *,
    seed: int = 0,
    out_of_fold: bool = True,
) -> tuple[dict[str, Any], Coverage | None]:
    """Return how far probabilities (N, C) can be believed: calibration error, reliability, coverage.

    Args:
        labels: (N,) class indices, or 0/1 indicators (N, C): then without coverage.
        probabilities: (N, C) of photos that were not learned from.
        groups: (N,) photos that are drawn together, or None.
        seed: of the draws.
        out_of_fold: as in `coverage`.

    Returns:
        Part of the `trust` of metrics.json, and how many photos are answered above a threshold.
    """
    sure, right = certainty(labels, probabilities)
    # The surest of C answers is at least 1/C sure, a yes or no one half.
    edges = np.linspace(0.5 if labels.ndim == 2 else 1 / probabilities.shape[1], 1, BINS + 1)
    error = calibration_error(sure, right, edges, groups=groups, photos=len(labels), seed=seed)
    perfect = if_calibrated(sure, edges, groups=groups, photos=len(labels), seed=seed)
    if error.value <= perfect.high:  # no error at all would show as much
        error = replace(error, low=0.0)
    answered = None if labels.ndim == 2 else coverage(sure, right, groups, seed=seed, out_of_fold=out_of_fold)
    return {
        "ece": error.as_dict(),
        "ece_if_calibrated": perfect.as_dict(),
        "reliability": reliability(sure, right, edges),
        "coverage": answered.as_dict() if answered else None,
    }, answered


def certainty(
    labels: Labels, probabilities: Probabilities
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how sure each answer was and whether it was right: (N,), or (N·C,) yes and no answers."""
    if labels.ndim == 2:
        sure = np.maximum(probabilities, 1 - probabilities)
        return sure.ravel(), ((probabilities > 0.5) == (labels > 0)).astype(np.float64).ravel()
    return probabilities.max(axis=1), (probabilities.argmax(axis=1) == labels).astype(np.float64)


def _bins(sure: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.clip(np.searchsorted(edges, sure, side="right") - 1, 0, BINS - 1)


def reliability(
    sure: NDArray[np.float64], right: NDArray[np.float64], edges: NDArray[np.float64]
) -> list[dict[str, float | int | None]]:
    """Return the reliability diagram: how sure the answers of each bin were, and how often right."""
    which = _bins(sure, edges)
    return [
        {
            "low": float(edges[b]),
            "high": float(edges[b + 1]),
            "count": int((which == b).sum()),
            "confidence": float(sure[which == b].mean()) if (which == b).any() else None,
            "accuracy": float(right[which == b].mean()) if (which == b).any() else None,
        }
        for b in range(BINS)
    ]


def calibration_error(
    sure: NDArray[np.float64],
    right: NDArray[np.float64],
    edges: NDArray[np.float64],
    *,
    groups: Labels | None = None,
    photos: int | None = None,
    seed: int = 0,
) -> Estimate:
    """Return the expected calibration error (Naeini et al. 2015) with a basic bootstrap interval.

    Drawn photos are noisier than the photos themselves, so drawn errors lie too high; the basic interval
    mirrors them at the value and takes that out (Davison & Hinkley 1997, section 5.2).

    Args:
        sure: (M,) of all answers; those of one photo side by side.
        right: (M,) 1 where an answer is, else 0.
        edges: (BINS + 1,).
        groups: (N,) photos that are drawn together.
        photos: N; None is one answer a photo.
        seed: of the draws.
    """
    n = photos or len(sure)
    answers, which = len(sure) // n, _bins(sure, edges)
    # What a photo adds to every bin, (N, BINS): all that a draw needs to know of it.
    adds = np.zeros((n, BINS))
    np.add.at(adds, (np.repeat(np.arange(n), answers), which), sure - right)
    draws = resample(n, groups, seed=seed)
    value = float(np.abs(adds.sum(axis=0)).sum() / len(sure))
    drawn = np.abs(draws @ adds).sum(axis=1) / (draws.sum(axis=1) * answers)
    low, high = np.quantile(2 * value - drawn, [0.025, 0.975])
    return Estimate(value, float(np.clip(low, 0, value)), float(max(high, value)))


def if_calibrated(
    sure: NDArray[np.float64],
    edges: NDArray[np.float64],
    *,
    groups: Labels | None = None,
    photos: int | None = None,
    seed: int = 0,
    draws: int = 1000,
) -> Estimate:
    """Return the calibration error that answers as right as they are sure would show on as many photos.

    It is not 0, because bins of few photos scatter (Bröcker & Smith 2007: consistency resampling). Photos of
    a group are right or wrong together. Arguments as for `calibration_error`.
    """
    n = photos or len(sure)
    _, index = numbered(groups, n)
    shape, which = (int(index.max()) + 1, len(sure) // n), _bins(sure, edges)
    rng, found = np.random.default_rng([seed, 0xECE]), np.empty(draws)
    for number in range(draws):
        right = rng.random(shape)[index].ravel() < sure
        found[number] = np.abs(np.bincount(which, sure - right, BINS)).sum() / len(sure)
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(float(found.mean()), float(low), float(high))


def never_learned(labels: Labels, folds: Sequence[Fold]) -> list[int]:
    """Return the classes that some fold scores photos of and learned none of: they lie in one group."""
    return sorted({int(c) for fit, score in folds for c in np.setdiff1d(labels[score], labels[fit])})


def label_issues(
    labels: Labels, probabilities: Probabilities, unseen: Sequence[int] = ()
) -> list[tuple[int, int, float]]:
    """Return photos whose label looks wrong, most striking first (confident learning, Northcutt et al. 2021).

    A photo is listed where its own class is not the likeliest, and it is at least as likely to be of another
    class as photos of that class are on average: at least 1/C, and of no class of fewer than 5 photos, whose
    average says little. Suggested is the likeliest of those.

    Args:
        labels: (N,) as given.
        probabilities: (N, C) out of fold.
        unseen: classes that answers were given without: nothing is said of their photos.

    Returns:
        (photo, suggested class, its probability).
    """
    C = probabilities.shape[1]
    known = (np.bincount(labels, minlength=C) >= FEW) & ~np.isin(np.arange(C), unseen)
    usual = [max(probabilities[labels == c, c].mean(), 1 / C) if known[c] else np.inf for c in range(C)]
    likely = np.where(probabilities >= usual, probabilities, -1.0)
    suggested = likely.argmax(axis=1)
    own = probabilities[np.arange(len(labels)), labels]
    wrong = (likely.max(axis=1) > 0) & (suggested != labels) & (probabilities.argmax(axis=1) != labels)
    listed = np.flatnonzero(wrong & ~np.isin(labels, unseen))
    listed = listed[np.argsort(own[listed], kind="stable")]
    return [(int(i), int(suggested[i]), float(probabilities[i, suggested[i]])) for i in listed]


def _notes(error: Estimate, perfect: Estimate, unknown: Unknown, issues: int) -> list[str]:
    within = "no more than" if error.value <= perfect.high else "more than"
    told = ", ".join(f"{name} {area:.2f}" for name, area in unknown.evidence.items())
    why = f" (area under ROC, class against class: {told})" if told else ""
    calibrated = (
        f"Said probabilities are off by {error.value:.3f} on average, {within} chance gives on so few photos"
        f" (up to {perfect.high:.3f})."
    )
    strange = (
        f"A photo is called unknown by {unknown.method}{why};"
        f" {unknown.accepted:.0%} of photos the head was not fitted on are accepted."
    )
    notes = [calibrated, strange]
    if issues:
        which = (
            "1 photo may carry the wrong label: it is"
            if issues == 1
            else f"{issues} photos may carry the wrong label: they are"
        )
        notes.append(f"{which} in the report, under Likely label errors.")
    return notes


def _unmeasured(lumped: Sequence[tuple[str, int]]) -> list[str]:
    """Return a note on classes, with their photos, of which every photo is in one group."""
    if not lumped:
        return []
    name, photos = lumped[0]
    which, they = f"All {photos} photos of {name} are in one group", "it is"
    if len(lumped) > 1:
        named = ", ".join(f"{name} {photos}" for name, photos in lumped[:8])
        more = f" and {len(lumped) - 8} more" if len(lumped) > 8 else ""
        which, they = f"Of {len(lumped)} classes ({named}{more}) all photos are in one group", "they are"
    said = (
        f"{which} (near-duplicates, or one that came with them), so none could be scored by what had learned"
        f" others: how well {they} recognised is not known, and in the numbers above these photos count as"
        " wrong. Add photos from other places or times; if they only look alike by nature, say `--duplicates"
        " exact`."
    )
    return [said]


def _often_unknown(labels: Labels, called: NDArray[np.bool_], names: Sequence[str]) -> list[str]:
    """Return a note on classes of which half the photos or more are unknown to what was fitted on others."""
    often = []
    for c in np.unique(labels):
        gone, n = int(called[labels == c].sum()), int((labels == c).sum())
        if gone >= n / 2:
            often.append(f"{names[c]} ({gone} of {n})")
    if not often:
        return []
    return [f"Many photos of some classes are called unknown: {', '.join(often)}. Give them more photos."]
