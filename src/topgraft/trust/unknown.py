"""Whether a photo shows any of the classes at all, from how far its features lie from the training photos'.

Three distances are offered, and nobody has pictures of "anything else" to choose with. The evidence used:
each class in turn is left out. The rest are fitted without it, and the distance that best tells its photos
from held-out photos of the known classes, by area under the ROC curve, is taken. (Scrambled
features as made-up unknowns were tried and point the wrong way: see docs/heads.md.)

Sources: nearest neighbours, Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors";
Mahalanobis, Lee et al. 2018, "A simple unified framework for detecting out-of-distribution samples"; energy,
Liu et al. 2020, "Energy-based out-of-distribution detection".
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.special import logsumexp

from topgraft.backbones.depths import Depths
from topgraft.heads._base import Fold, Head, Setting, head_class, last_layer
from topgraft.heads._layers import Array
from topgraft.heads._parallel import Compute
from topgraft.heads._rows import standardise
from topgraft.metrics import ranking, resample
from topgraft.settings import Settings
from topgraft.splits import folds as make_folds
from topgraft.types import Features, Labels, Logits

NEAREST = 5
REMEMBERED = 2000
"""Training rows a predictor carries for this at most: 10 MB of 1,280 features."""
ASKED, EACH = 1000, 5
"""Photos that choose between the distances, at most, and how many of every class at least: heads are fitted
without each fifth of the classes on every fold for it."""
SHRINKAGE = 0.5
ACCEPTED = 0.95
DRAWS = 200
LEAD = 0.05
"""Area under the ROC curve by which another distance must beat neighbours."""
ROLES = 5
"""How often classes are left out at most; of more classes several are left out together."""

Distances = NDArray[np.float64]


@dataclass(frozen=True)
class NearestDistance:
    """`1 - mean of the count largest of u @ rows.T`, u = x / |x|: (N, D) to (N,). rows (M, D), length 1."""

    rows: Array
    count: int


@dataclass(frozen=True)
class WhitenedDistance:
    """The least squared distance of `x @ weight + bias` to a row of points: (N, D) to (N,).

    weight (D, D), bias (D,), points (C, D).
    """

    weight: Array
    bias: Array
    points: Array


@dataclass(frozen=True)
class Energy:
    """`-log(sum of exp(logits / temperature))`: logits (N, C) to (N,)."""

    temperature: float


Measure = NearestDistance | WhitenedDistance | Energy


def neighbours(x: Features, labels: Labels | None = None) -> NearestDistance:
    """Return the directions of training rows (M, D): all, or REMEMBERED of them, small classes whole.

    Counted are no more neighbours than the smallest class has photos: more would lie in other classes, and
    its own photos would look strange.

    Args:
        x: (N, D).
        labels: (N,) class indices; 0/1 indicators (N, C), or None, count as one class.
    """
    kinds = np.zeros(len(x), np.int64) if labels is None or labels.ndim == 2 else labels
    sizes = np.unique(kinds, return_counts=True)[1]
    kept = x[evenly(kinds, REMEMBERED)]
    return NearestDistance(_unit(kept).astype(np.float32), int(min(NEAREST, sizes.min())))


def evenly(labels: Labels, most: int) -> NDArray[np.intp]:
    """Return the indices of rows, `most` at most: evenly within a class, and the large classes alike.

    Args:
        labels: (N,) class indices.
        most: how many, no fewer than there are classes; smaller classes stay whole.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    present, sizes = np.unique(labels, return_counts=True)
    each = max((q for q in range(1, most + 1) if np.minimum(sizes, q).sum() <= most), default=1)
    rows = [np.flatnonzero(labels == c) for c in present]
    chosen = [of[np.linspace(0, len(of) - 1, min(each, len(of))).round().astype(np.int64)] for of in rows]
    return np.sort(np.concatenate(chosen))


def mahalanobis(x: Features, labels: Labels) -> WhitenedDistance:
    """Return the distance from the class means in units of the shrunken covariance within classes."""
    mean, inverse, means, inside, floor = _within(x, labels)
    covariance = (1 - SHRINKAGE) * inside.T @ inside / len(x)
    covariance[np.diag_indices_from(covariance)] += floor
    lower = cholesky(covariance, lower=True, check_finite=False)
    whiten = solve_triangular(lower, np.eye(len(lower)), lower=True, check_finite=False).T
    weight = inverse[:, None] * whiten
    return WhitenedDistance(
        weight.astype(np.float32), (-mean @ weight).astype(np.float32), (means @ whiten).astype(np.float32)
    )


def _within(x: Features, labels: Labels) -> tuple[Distances, Distances, Distances, Distances, float]:
    """Return what rows vary by within classes.

    Mean and inverse deviation (D,); of standardised rows the class means (C, D) and what is left without them
    (N, D); and what shrinkage adds to every variance.
    """
    x = x.astype(np.float64)
    mean, inverse = standardise(x.sum(axis=0), (x**2).sum(axis=0), len(x))
    z = (x - mean) * inverse
    means = np.stack([z[labels == c].mean(axis=0) for c in np.unique(labels)])
    inside = z - means[np.unique(labels, return_inverse=True)[1]]
    return mean, inverse, means, inside, SHRINKAGE * max(float((inside**2).mean()), 1e-12)


def mahalanobis_distances(x: Features, labels: Labels, asked: Features) -> Distances:
    """Return the Mahalanobis distances (M,) of rows asked (M, D) from rows x (N, D).

    Those of `mahalanobis`, without its matrix (D, D) where there are fewer rows than features: a matrix
    inverse of the rows (N, N) gives the same (Woodbury 1950), and this is asked fold by fold.
    """
    if len(x) >= x.shape[1]:
        return measure(mahalanobis(x, labels), asked, np.empty((0, 0)))
    mean, inverse, means, inside, floor = _within(x, labels)
    z = (asked.astype(np.float64) - mean) * inverse
    gram = inside @ inside.T
    gram[np.diag_indices_from(gram)] += floor * len(x) / (1 - SHRINKAGE)
    lower = cholesky(gram, lower=True, check_finite=False)
    seen, centres = (
        solve_triangular(lower, inside @ rows.T, lower=True, check_finite=False).T for rows in (z, means)
    )
    squares = _squares(z, means) - _squares(seen, centres)
    return np.asarray(squares.min(axis=1) / floor)


def _squares(x: Distances, points: Distances) -> Distances:
    """Return the squared distances (N, C) of rows x (N, D) from points (C, D)."""
    return np.asarray((x**2).sum(axis=1, keepdims=True) - 2 * x @ points.T + (points**2).sum(axis=1))


def measure(how: Measure, features: Features, logits: Logits) -> Distances:
    """Return how far rows (N, D) lie from the training photos, (N,); higher is further.

    Args:
        how: one of the three.
        features: (N, D).
        logits: (N, C), before any temperature.
    """
    x = features.astype(np.float64)
    if isinstance(how, NearestDistance):
        similarity = _unit(x) @ how.rows.astype(np.float64).T
        return np.asarray(1 - np.sort(similarity, axis=1)[:, -how.count :].mean(axis=1))
    if isinstance(how, WhitenedDistance):
        x = x @ how.weight.astype(np.float64) + how.bias
        return np.asarray(_squares(x, how.points.astype(np.float64)).min(axis=1))
    return np.asarray(-logsumexp(logits / how.temperature, axis=1))


def _unit(x: Features) -> Distances:
    x = x.astype(np.float64)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


@dataclass(frozen=True)
class Unknown:
    """The answer "none of these classes".

    Attributes:
        method: `neighbours`, `mahalanobis` or `energy`.
        how: its fitted distance.
        threshold: a photo further away is unknown.
        accepted: the share of out-of-fold photos that is not.
        evidence: area under the ROC curve, class against class, by method; empty where none could be had.
    """

    method: str
    how: Measure
    threshold: float
    accepted: float
    evidence: dict[str, float]

    def distance(self, features: Features, logits: Logits) -> Distances:
        """Return the distances (N,) from the training photos by features (N, D) and logits (N, C)."""
        return measure(self.how, features, logits)


def learn_unknown(
    features: Features,
    labels: Labels,
    groups: Labels | None,
    folds: list[Fold],
    *,
    logits: Logits,
    temperature: float,
    head: str,
    setting: Setting,
    columns: Depths | None = None,
    seed: int = 0,
    settings: Settings | None = None,
) -> tuple[Unknown, Distances]:
    """Choose a distance by what tells classes apart, and set its threshold on out-of-fold photos.

    Args:
        features: (N, D) view 0 of the training photos, or rows of every depth (N, D + B): distances are of
            the last layer, whatever the head reads: on block features distances were not measured.
        labels: (N,) class indices, or 0/1 indicators (N, C): then there is no evidence, and neighbours are
            taken.
        groups: (N,) or None.
        folds: those the head was scored on.
        logits: (N, C) the chosen head's out-of-fold logits.
        temperature: the chosen head's.
        head: its name.
        setting: its setting.
        columns: which columns are which, in rows of every depth.
        seed: of the folds behind the evidence.
        settings: cores and device.

    Returns:
        The answer, fitted on all photos, and the out-of-fold distances (N,).
    """
    rows, settings = features.astype(np.float32), settings or Settings.load()
    x = last_layer(rows, columns)
    areas: dict[str, Distances] = {}
    if labels.ndim == 1:
        some = evenly(labels, max(ASKED, EACH * len(np.unique(labels))))
        areas = class_against_class(
            rows[some],
            labels[some],
            None if groups is None else groups[some],
            kind=head_class(head),
            setting=setting,
            columns=columns,
            seed=seed,
            k=len(folds),
            settings=settings,
        )
    method, evidence = choose(areas), {name: float(found[0]) for name, found in areas.items()}

    def fitted(rows: Labels) -> Measure:
        if method == "neighbours":
            return neighbours(x[rows], labels[rows])
        return mahalanobis(x[rows], labels[rows]) if method == "mahalanobis" else Energy(temperature)

    def measure_fold(fold: Fold) -> Distances:
        return measure(fitted(fold[0]), x[fold[1]], logits[fold[1]])

    found = np.empty(len(x))
    for (_, score), distances in zip(folds, Compute(settings).map(measure_fold, folds), strict=True):
        found[score] = distances
    limit = threshold(found)
    accepted = float((found <= limit).mean())
    return Unknown(method, fitted(np.arange(len(x))), limit, accepted, evidence), found


def choose(areas: dict[str, Distances]) -> str:
    """Return `neighbours`, or the distance that beats it by far: LEAD, and three standard errors.

    One that led by 0.01 once missed a third of the strangers that neighbours found: the classes at hand say
    little about what else there is.

    Args:
        areas: by method, (1 + B,): the area and what B draws of the photos make of it.
    """
    best, lead = "neighbours", LEAD
    for name, found in areas.items():
        gap = found - areas["neighbours"]
        # A draw without a photo of a class has no area for it.
        drawn = gap[1:][np.isfinite(gap[1:])]
        if len(drawn) and gap[0] > max(lead, 3 * float(drawn.std())):
            best, lead = name, float(gap[0])
    return best


def say_of_unknown(before: str, now: str) -> None:
    """Say that a new run calls other photos unknown than the one before it, where it measures otherwise."""
    if before and now and before != now:
        logging.getLogger(__name__).info(
            "Photos are called unknown by %s now; it was %s before. Other photos will be, and thresholds of"
            " the two do not compare.",
            now,
            before,
        )


def threshold(distances: Distances, accepted: float = ACCEPTED) -> float:
    """Return the distance that the next photo of the same kind stays below with this probability.

    The ⌈(n + 1)·accepted⌉-th smallest of n (Vovk et al. 2005, split conformal prediction).
    """
    n = len(distances)
    return float(np.sort(distances)[min(int(np.ceil((n + 1) * accepted)), n) - 1])


def class_against_class(
    rows: Features,
    labels: Labels,
    groups: Labels | None,
    *,
    kind: type[Head],
    setting: Setting,
    columns: Depths | None = None,
    seed: int,
    k: int,
    settings: Settings | None = None,
) -> dict[str, Distances]:
    """Return the mean area under the ROC curve of each distance, with classes left out in turn.

    Returns:
        By method, (1 + DRAWS,): the area, then that of draws of the photos with replacement.

    Energy takes part where two known classes are left, and the head is fitted anew on view 0.
    """
    present, x = np.unique(labels), last_layer(rows, columns)
    count = len(labels) if groups is None else len(np.unique(groups))
    if min(len(present), count) < 2:
        return {}
    order = np.random.default_rng([seed, 0x0DD]).permutation(present)
    areas: dict[str, list[Distances]] = {}
    weights = np.vstack([np.ones(len(x)), resample(len(x), groups, seed=seed, draws=DRAWS)])
    for left_out in np.array_split(order, min(ROLES, len(order))):
        unknown = np.isin(labels, left_out)
        dealt = make_folds(labels, groups, min(k, count), seed)
        rounds = [(fit[~unknown[fit]], score) for fit, score in dealt]
        if any(not len(fit) for fit, _ in rounds):
            continue
        rest = np.setdiff1d(present, left_out)
        answers, compute = None, Compute(settings or Settings.load())
        if len(rest) > 1:
            known = np.clip(np.searchsorted(rest, labels), 0, len(rest) - 1)
            answers = kind.sweep(
                rows[None],
                known,
                rounds,
                [setting],
                classes=len(rest),
                groups=groups,
                depths=columns,
                seed=seed,
                compute=compute,
            )
        for name, distances in _distances(x, labels, rounds, answers, compute).items():
            areas.setdefault(name, []).append(ranking(unknown, distances, weights)[0])
    return {name: _mean(np.stack(found)) for name, found in areas.items()}


def _mean(found: Distances) -> Distances:
    """Return the mean of the areas there are, over the first axis; nan where there is none."""
    there = np.isfinite(found)
    total = np.where(there, found, 0).sum(axis=0)
    return np.where(there.any(axis=0), total / np.maximum(there.sum(axis=0), 1), np.nan)


def _distances(
    x: Features, labels: Labels, rounds: list[Fold], answers: list[Logits] | None, compute: Compute
) -> dict[str, Distances]:
    def measure_fold(fold: Fold) -> dict[str, Distances]:
        fit, score = fold
        nothing = np.empty((0, 0))
        return {
            "neighbours": measure(neighbours(x[fit], labels[fit]), x[score], nothing),
            "mahalanobis": mahalanobis_distances(x[fit], labels[fit], x[score]),
        }

    found: dict[str, Distances] = {}
    for number, ((_, score), here) in enumerate(zip(rounds, compute.map(measure_fold, rounds), strict=True)):
        if answers is not None:
            here["energy"] = measure(Energy(1.0), x[score], answers[number][0])
        for name, distances in here.items():
            found.setdefault(name, np.empty(len(x)))[score] = distances
    return found
