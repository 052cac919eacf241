"""How many more photos would help: heads on growing parts of the photos, and what follows from them.

Every photo is scored by ridge regressions that were fitted on a fifth to all of the others, on photos as they
are, many times over. Errors fall with the number of photos n about as a + b n^-c (Hestness and others 2017,
arXiv:1712.00409); which c it is, five sizes cannot tell, so the interval holds slow falls and fast ones,
beside what chance does to photos (bootstrap) and to which of them are learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from topgraft.backbones.depths import Depths
from topgraft.errors import DataError, UsageError
from topgraft.heads._base import Fold
from topgraft.heads._layers import Array
from topgraft.heads._linear import prepare_all
from topgraft.heads._parallel import Compute
from topgraft.metrics import OUT_OF_FOLD, Estimate, effective, resample, wilson
from topgraft.selection.compare import FEWER, class_weights
from topgraft.settings import Settings
from topgraft.splits import folds as make_folds
from topgraft.types import Features, Labels, Progress, silent

Floats = NDArray[np.float64]
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Parts of the photos that heads are fitted on."""
STRENGTHS = (0.03, 0.01, 0.003, 0.001)
"""Of the ridge; the best at every size."""
FOLDS, SCORED, MOST = 10, 2000, 6
"""Folds of up to so many photos, and about how many answers there are at every size: few are dealt up to six
times. More photos are dealt into `FEWER` folds."""
POWERS = (0.2, 0.7)
"""How slowly and how fast errors may fall: the c of n^-c, drawn evenly between them."""
OFF = 0.35
"""By how much true gains differ from forecast ones, as a share of them: what photos come is chance, and no
form of a fall is the true one. Measured on the development sets (benchmarks/curve.py)."""
STEEPEST = 1.5
LEAST = 1e-4
"""The fastest fall, and the smallest share of errors, that are reckoned with."""
DRAWS = 2000
MORE = 10
"""Photos of a class that are asked about."""
FEWEST = 20
"""Photos below which nothing is said."""


@dataclass(frozen=True)
class Curve:
    """What came out.

    Attributes:
        numbers: the `curve` of metrics.json: plain data.
        sentences: the same in words.
    """

    numbers: dict[str, Any]
    sentences: list[str]

    def __str__(self) -> str:
        return "\n".join(self.sentences)


@dataclass(frozen=True)
class _Trials:
    """How often photos were named right.

    Attributes:
        folds: how many.
        learned: (S,) photos learned from, on average.
        right: (S, N) share of the repeats in which a photo was named right.
        by_repeat: (S, R) accuracy of each repeat.
    """

    folds: int
    learned: Floats
    right: Floats
    by_repeat: Floats


def curve(
    features: Features,
    labels: Labels,
    groups: Labels | None = None,
    *,
    classes: Sequence[str],
    columns: Depths | None = None,
    error: float | None = None,
    class_weight: str = "auto",
    seed: int = 0,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Curve:
    """Return what more photos would bring, from features of those there are.

    Args:
        features: (N, W) of photos as they are.
        labels: (N,) class indices.
        groups: (N,) photos that stay in one fold, or None.
        classes: C names.
        columns: which columns of a row are which, where block features are read.
        error: the share of wrong answers of the head that is in use; None takes the ridge's. What more photos
            bring is told in proportion to it.
        class_weight: `auto`, `on` or `off`, as that head was fitted.
        seed: of folds, parts and the bootstrap.
        settings: cores.
        progress: told of repeats.

    Raises:
        UsageError: for several labels a photo.
        DataError: for fewer than 20 photos that differ.
    """
    if labels.ndim == 2:
        raise UsageError("curve: expected one label per photo, got a table of several.")
    count = len(labels) if groups is None else len(np.unique(groups))
    if count < FEWEST:
        raise DataError(f"curve: expected at least {FEWEST} photos that differ, got {count}. Add photos.")
    tried = _try(
        features,
        labels,
        groups,
        len(classes),
        columns,
        class_weight,
        seed,
        Compute(settings or Settings.load()),
        progress,
    )
    n = len(labels)
    draws = np.concatenate([np.ones((1, n)), resample(n, groups, seed=seed, draws=DRAWS)])
    falls = _falls(tried, draws, seed)
    now = falls.at(n)
    known = now[0] if error is None else error
    scale = known / max(now[0], 1 / n)  # the head in use errs so many times as often
    worth = OUT_OF_FOLD * effective(groups, n)
    sizes = [
        {
            "photos": round(float(at), 1),
            "accuracy": wilson(float(right.mean()) * worth, worth).as_dict(),
            "draws": [round(float(accuracy), 6) for accuracy in repeat],
        }
        for at, right, repeat in zip(tried.learned, tried.right, tried.by_repeat, strict=True)
    ]
    off = np.exp(OFF * np.random.default_rng([seed, 0x0FF]).normal(size=len(draws)))
    off[0] = 1.0  # the first draw is the photos as they are
    gains = {name: _gain(scale * off * (now - falls.at(times * n)), known) for name, times in TIMES.items()}
    numbers = {
        "photos": n,
        "head": "ridge",
        "folds": tried.folds,
        "repeats": int(tried.by_repeat.shape[1]),
        "error": float(known),
        "class_weight": class_weight,
        "sizes": sizes,
        "fitted": [
            {"photos": round(float(at), 1), "accuracy": _band(1 - scale * falls.at(at))}
            for at in np.geomspace(tried.learned[0], 4 * n, 24)
        ],
        "gain": gains,
        "more": MORE,
        "classes": _of_classes(tried, labels, draws, falls, scale * off, classes),
    }
    return Curve(numbers, in_words(numbers))


TIMES = {"half_more": 1.5, "twice": 2.0, "four_times": 4.0}
"""How many times the photos are asked about."""


def _try(
    features: Features,
    labels: Labels,
    groups: Labels | None,
    classes: int,
    columns: Depths | None,
    class_weight: str,
    seed: int,
    compute: Compute,
    progress: Progress,
) -> _Trials:
    """Score every photo by heads that were fitted on parts of the others."""
    rows = prepare_all(features[None], labels, classes=classes, sample_weight=None, depths=columns)
    z = rows.at("equal" if columns is not None and columns.blocks else "last").z
    n, target = len(labels), 2.0 * np.eye(classes)[labels] - 1
    folds = min(FOLDS if n <= SCORED else FEWER, n if groups is None else len(np.unique(groups)))
    repeats = int(np.clip(SCORED // n, 2, MOST))
    right = np.zeros((len(SHARES), len(STRENGTHS), repeats, n))
    learned = np.zeros(len(SHARES))
    alone = np.arange(n) if groups is None else groups
    counts = np.bincount(labels, minlength=classes)
    most = counts - -(-counts // folds)  # of every class, whichever fold is scored
    sizes = np.maximum(np.round(np.outer(SHARES, most)), 1).astype(np.int64)

    for repeat in range(repeats):
        progress("learning curve", repeat, repeats)

        def judge(job: tuple[int, Fold], repeat: int = repeat) -> list[tuple[int, list[Floats]]]:
            number, (fit, score) = job
            rng = np.random.default_rng([seed, repeat, number, 0xC0BE])
            parts = [fit[part] for part in _parts(labels[fit], alone[fit], sizes, rng)]
            weights = [_weight(labels[part], classes, class_weight) for part in parts]
            return [
                (len(part), _ridge(z[part], target[part], z[score], weight))
                for part, weight in zip(parts, weights, strict=True)
            ]

        dealt = make_folds(labels, groups, folds, seed + repeat)
        for (_, score), answered in zip(dealt, compute.map(judge, enumerate(dealt)), strict=True):
            for size, (used, answers) in enumerate(answered):
                learned[size] += used
                for strength, answer in enumerate(answers):
                    right[size, strength, repeat, score] = answer.argmax(axis=1) == labels[score]
    progress("learning curve", repeats, repeats)
    best = right.mean(axis=(2, 3)).argmax(axis=1)
    chosen = right[np.arange(len(SHARES)), best]
    return _Trials(folds, learned / (folds * repeats), chosen.mean(axis=1), chosen.mean(axis=2))


def _parts(labels: Labels, groups: Labels, sizes: Labels, rng: np.random.Generator) -> list[Labels]:
    """Draw growing parts of photos, each holding the one before.

    A part has as many photos of a class in every fold. The class of a photo that is scored has lost that
    photo: were the others learned from whole, a class of a handful would be found less often for that alone.
    Groups come whole, as far as they fit.

    Args:
        labels: (n,) of photos that may be learned from.
        groups: (n,) photos that belong together.
        sizes: (S, C) how many of each class.
        rng: what is drawn from.
    """
    _, place = np.unique(groups, return_inverse=True)
    order = np.argsort(rng.permutation(place.max() + 1)[place], kind="stable")
    parts = []
    for size in sizes:
        kept = [order[labels[order] == label][: size[label]] for label in np.unique(labels)]
        parts.append(np.sort(np.concatenate(kept)))
    return parts


def _weight(labels: Labels, classes: int, mode: str) -> Floats:
    """Return what each photo weighs (n,), as in training."""
    weight, _ = class_weights(labels, classes, mode)
    return np.ones(len(labels)) if weight is None else weight


def _ridge(z: Array, target: Floats, held: Array, weight: Floats) -> list[Floats]:
    """Answer (m, C) by ridges of several strengths, solved on rows or columns, whichever are fewer.

    Args:
        z: (n, r) to fit on; products are as precise as these are.
        target: (n, C), 1 or -1.
        held: (m, r) to answer for.
        weight: (n,) of the rows, with mean 1.
    """
    centre, mean = (weight @ z / len(z)).astype(z.dtype), weight @ target / len(z)
    root = np.sqrt(weight)[:, None].astype(z.dtype)
    z, held, target = (z - centre) * root, held - centre, ((target - mean) * root).astype(z.dtype)
    few = len(z) <= z.shape[1]
    gram = (z @ z.T if few else z.T @ z).astype(np.float64)
    right, left = (target, held @ z.T) if few else (z.T @ target, held)
    total = max(float(np.trace(gram)), 1e-12)
    found = []
    for strength in STRENGTHS:
        raised = gram.copy()
        raised[np.diag_indices_from(raised)] += strength * total
        solved = cho_solve(
            cho_factor(raised, check_finite=False, overwrite_a=True), right, check_finite=False
        )
        found.append(np.asarray(left @ solved + mean))
    return found


@dataclass(frozen=True)
class _Falls:
    """Errors over numbers of photos: a + b n^-c, (B,) draws of each, the first of the photos as they are."""

    floor: Floats
    slope: Floats
    power: Floats

    def at(self, n: float) -> Floats:
        """Return the share of wrong answers after n photos: (B,)."""
        return np.asarray(self.floor + self.slope * n**-self.power)

    def steepness(self, n: float) -> Floats:
        """Return the power by which errors fall around n photos: (B,), c where there is no floor."""
        return np.asarray(self.power * (1 - self.floor / np.maximum(self.at(n), 1e-12)))


def _falls(tried: _Trials, draws: Floats, seed: int) -> _Falls:
    """Fit the fall of errors to every draw of photos (B, N), each with a power of its own."""
    rng = np.random.default_rng([seed, 0xFA11])
    total = draws.sum(axis=1)
    errors = 1 - draws @ tried.right.T / total[:, None]  # (B, S)
    # Which photos are learned from is chance, too. All but the whole are drawn anew in every repeat, and the
    # fewer they are, the more it matters.
    variance = tried.by_repeat[:-1].var(axis=1, ddof=1)
    spread = np.sqrt((variance * tried.learned[:-1]).mean() / tried.learned)
    errors[1:] += rng.normal(0, 1, (len(draws) - 1, len(spread))) * spread
    power = rng.uniform(*POWERS, len(draws))
    power[0] = np.mean(POWERS)
    return _fit(tried.learned, errors, power)


def _fit(learned: Floats, errors: Floats, power: Floats) -> _Falls:
    """Fit a and b, neither below 0, to errors (B, S) by least squares, c being given (B,).

    Where a would be below 0, the errors fall faster than c says: a is 0 there, and b and c are fitted to
    their logarithms. Sizes weigh as their photos: the last ones say most about what comes.
    """
    share = (learned / learned.sum())[None, :]
    slope, floor = _line(learned[None, :] ** -power[:, None], errors, share)
    slope = np.maximum(slope, 0)
    floor = np.where(slope > 0, floor, (share * errors).sum(axis=1))
    steeper = floor < 0
    x, y = np.broadcast_to(np.log(learned), errors.shape), np.log(np.maximum(errors, LEAST))
    fall = np.clip(-_line(x, y, share)[0], 0, STEEPEST)
    height = (share * (y + fall[:, None] * x)).sum(axis=1)
    return _Falls(
        np.where(steeper, 0.0, floor),
        np.where(steeper, np.exp(height), slope),
        np.where(steeper, fall, power),
    )


def _line(x: Floats, y: Floats, share: Floats) -> tuple[Floats, Floats]:
    """Return slope and height (B,) of lines through y (B, S) over x by weighted least squares."""
    mean_x, mean_y = (share * x).sum(axis=1), (share * y).sum(axis=1)
    spread = (share * (x - mean_x[:, None]) ** 2).sum(axis=1)
    slope = (share * (x - mean_x[:, None]) * y).sum(axis=1) / np.maximum(spread, 1e-30)
    return slope, mean_y - slope * mean_x


def _gain(gains: Floats, most: float) -> dict[str, float]:
    """Return what is gained: the middle of the draws, and the middle 95 %; at most all errors."""
    low, value, high = np.quantile(np.minimum(gains[1:], most), [0.025, 0.5, 0.975])
    return Estimate(float(value), float(low), float(high)).as_dict()


def _band(values: Floats) -> dict[str, float]:
    low, value, high = np.quantile(np.clip(values[1:], 0, 1), [0.025, 0.5, 0.975])
    return Estimate(float(value), float(low), float(high)).as_dict()


def _of_classes(
    tried: _Trials, labels: Labels, draws: Floats, falls: _Falls, scale: Floats, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Say of every class what ten more of its photos would bring to how much of it is found.

    A class's errors are taken to fall with its photos as fast as all errors fall with all photos: those of a
    few photos alone say too little of how fast, and a class that is never found shows no fall at all. `scale`
    (draws,) is how many times as often as the ridge the head in use errs; the first is the measured one.

    Returns:
        One entry a class, that of the largest gain first.
    """
    steepness, found = falls.steepness(len(labels)), []
    for c, name in enumerate(classes):
        own = labels == c
        n = int(own.sum())
        if not n:
            continue
        total = draws[:, own].sum(axis=1)
        errors = scale * (1 - draws[:, own] @ tried.right[-1, own] / np.maximum(total, 1))
        gains = (errors * (1 - (n / (n + MORE)) ** steepness))[total > 0]
        known = min(float(errors[0]), 1.0)
        found.append({"class": name, "photos": n, "found": 1 - known, "gain": _gain(gains, known)})
    return sorted(found, key=lambda entry: (-entry["gain"]["value"], entry["class"]))


def in_words(numbers: dict[str, Any]) -> list[str]:
    """Return what the numbers mean."""
    n, twice = numbers["photos"], numbers["gain"]["twice"]
    four = in_points(numbers["gain"]["four_times"])
    said = [
        f"Twice the photos ({2 * n:,}) would bring about {in_points(twice)} of accuracy; four times {four}."
    ]
    if twice["high"] < 0.01:
        said.append("More photos of the same kind would hardly help: look at the mistakes instead.")
    ranked = numbers["classes"]
    if ranked and ranked[0]["gain"]["value"] > 0:
        listed = "; ".join(
            f"{entry['class']} {in_points(entry['gain'])}"
            for entry in ranked[:3]
            if entry["gain"]["value"] > 0
        )
        said.append(f"Ten more photos of one class would bring it the most of: {listed}.")
    return said


def in_points(gain: dict[str, float]) -> str:
    """Write a gain in points of a hundred, with its interval: +2 points (0.5 to 3.5)."""
    value, low, high = (100 * gain[part] for part in ("value", "low", "high"))
    digits = 0 if value >= 10 else 1
    return f"+{value:.{digits}f} points ({low:.{digits}f} to {high:.{digits}f})"
