"""All heads on the same folds, in one table that says what is noise.

The order: every head's every setting is fitted on every fold, scored on view 0 of photos it has not seen,
and its logits turned into probabilities with a temperature from the other folds (what a finished predictor
does too). The best has the lowest log loss; chosen is the simplest within one standard error of it, never one
whose log loss is more than 20 % higher, nor, where the best is better than always answering the classes'
shares, one that is not: few photos make standard errors that excuse anything. The standard error is that of
the paired difference between the two over folds, corrected for folds sharing photos (Nadeau & Bengio 2003,
Inference for the Generalization Error, Machine Learning 52; for repeats: Bouckaert & Frank 2004).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from topgraft import metrics
from topgraft.errors import DataError, MissingExtraError, UsageError
from topgraft.heads._base import HEADS, Fold, Head, Setting, as_indicators, head_class, setting_text
from topgraft.heads._parallel import Compute, one_core
from topgraft.metrics import Estimate
from topgraft.selection.calibrate import calibrate, cross_calibrate
from topgraft.settings import Settings
from topgraft.splits import folds as make_folds
from topgraft.types import Features, Labels, Logits, Probabilities, Progress, silent

WORSE = 1.2  # times the lowest log loss: what no standard error excuses
UNEVEN = 1.5  # above this ratio of the largest class to the smallest, classes are weighted
POWER = 0.5  # of a class's share that its photos' weight is divided by


class FeatureSource(Protocol):
    """What features are read from: a feature store, for one."""

    @property
    def views(self) -> Sequence[Any]:
        """The views; 0 is the photo as it is."""
        ...

    def features(self, view: int = 0) -> Features:
        """Return (N, D), or maps (N, C, h, w)."""
        ...


@dataclass(frozen=True)
class Choice:
    """A head with a setting."""

    head: str
    setting: Setting

    def make(self) -> Head:
        """Return the head, not yet fitted."""
        return head_class(self.head)(**self.setting)

    def __str__(self) -> str:
        return f"{self.head} {setting_text(self.setting)}".strip()


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        rows: the leaderboard of metrics.json, best log loss first: plain data.
        chosen: the head and setting to use.
        oof: (R, N, C) the chosen one's out-of-fold probabilities, one layer a repeat.
        logits: (R, N, C) its out-of-fold logits, before any temperature.
        temperature: to divide the refitted head's logits by.
        folds: R lists of (fit, score).
        sample_weight: (N,) what each photo weighed in fitting, None where all weighed the same.
        notes: plain sentences about what was done and left out.
        seconds: what fitting and scoring one setting on one fold took, by head.
    """

    rows: list[dict[str, Any]]
    chosen: Choice
    oof: Probabilities
    logits: Logits
    temperature: float
    folds: list[list[Fold]]
    sample_weight: NDArray[np.float64] | None
    notes: list[str]
    seconds: dict[str, float]


def stack(source: FeatureSource | Features, photos: Labels | None = None) -> Features:
    """Read all views of some photos into an array (V, n, D) or (V, n, C, h, w), in the precision they had."""
    if isinstance(source, np.ndarray):
        everything = source[None] if source.ndim in (2, 4) else source
        return everything if photos is None else everything[:, photos]
    first = source.features(0)
    chosen = np.arange(len(first)) if photos is None else photos
    found = np.empty((len(source.views), len(chosen), *first.shape[1:]), first.dtype)
    for view in range(len(found)):
        found[view] = source.features(view)[chosen]
    return found


def class_weights(labels: Labels, classes: int, mode: str = "auto") -> tuple[NDArray[np.float64] | None, str]:
    """Weigh photos by one over the square root of their class's share, for fitting alone.

    The square root lies half way between all photos counting the same and all classes counting the same
    (Mahajan and others 2018, "Exploring the limits of weakly supervised pretraining", draw by it), where two
    photos of one class could outvote eighty of another. Temperatures, scores and the choice are not weighted,
    so that probabilities fit the shares there really are.

    Args:
        labels: (N,) class indices; 0/1 indicators (N, C) of several labels are not weighted.
        classes: C.
        mode: `auto` weighs where the largest class has more than 1.5 times the photos of the smallest, `on`
            always, `off` never.

    Returns:
        (N,) weights with mean 1, or None, and a sentence to say aloud, or "".
    """
    if mode not in ("auto", "on", "off"):
        raise UsageError(f"class_weight must be auto, on or off, got {mode!r}.")
    if labels.ndim == 2 or mode == "off":
        return None, ""
    counts = np.bincount(labels, minlength=classes)
    present = counts[counts > 0]
    ratio = float(present.max() / present.min())
    if mode == "auto" and ratio <= UNEVEN:
        return None, ""
    weight = counts[labels] ** -POWER
    return weight / weight.mean(), (
        f"The largest class has {ratio:.1f} times the photos of the smallest, so in fitting a photo of the"
        f" smallest weighs {ratio**POWER:.1f} times one of the largest, the square root of that"
        " (class_weight=off turns this off)."
    )


def pick(
    heads: str | Sequence[str], *, multilabel: bool, maps: bool, rows: bool = True
) -> tuple[list[type[Head]], list[str]]:
    """Find the heads to compare, and say which of them cannot take part.

    Args:
        heads: `all`, `linear` (those without PyTorch), or names.
        multilabel: photos carry several labels.
        maps: there are maps (N, C, h, w).
        rows: there are feature rows (N, D).

    Raises:
        UnknownNameError: for a head nobody knows.
        MissingExtraError: for a head asked for by name whose extra is not installed.
    """
    names = [heads] if isinstance(heads, str) else list(heads)
    named = set(names) - {"all", "linear"}
    if "all" in names:
        names = list(HEADS)
    elif "linear" in names:
        names = [*(name for name, entry in HEADS.items() if not entry.requires), *named]
    found, notes = [], []
    missing: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        try:
            head = head_class(name)
        except MissingExtraError as error:
            if name in named:
                raise
            missing.setdefault(error.extra, []).append(name)
            continue
        if multilabel and not head.takes_multilabel:
            notes.append(f"Left out {name}: it takes one label per photo.")
        elif not (maps if head.on_map else rows):
            if name in named:
                lacks = "maps: `topgraft embed --maps`" if head.on_map else "pooled features, not maps"
                notes.append(f"Left out {name}: it needs {lacks}.")
        else:
            found.append(head)
    for extra, absent in missing.items():
        notes.append(f"Left out {', '.join(absent)}: pip install 'topgraft[{extra}]' brings what they need.")
    if not found:
        raise UsageError(f"heads: none of {', '.join(names)} can be used here. {' '.join(notes)}")
    return found, notes


def compare(
    features: FeatureSource | Features,
    labels: Labels,
    groups: Labels | None = None,
    *,
    maps: FeatureSource | Features | None = None,
    heads: str | Sequence[str] = "all",
    folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    classes: int | None = None,
    class_weight: str = "auto",
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Compare every setting of every head by repeated, grouped, stratified cross-validation.

    Args:
        features: a store, or an array (V, N, D) or (N, D), or maps: fitted on all views, scored on view 0.
        maps: of the same photos and views, (V, N, C, h, w), where heads on maps take part too.
        labels: (N,) class indices, or 0/1 indicators (N, C) where photos carry several.
        groups: (N,) photos of one number stay in one fold.
        heads: `all`, `linear`, or names.
        folds: how many; fewer, with a note, where there are fewer groups.
        repeats: how often to deal the folds anew.
        seed: of the folds and of heads that draw.
        classes: C; None takes it from the labels.
        class_weight: `auto`, `on` or `off`.
        settings: cores and device.
        progress: told of every head.

    Raises:
        DataError: for labels that do not belong to the features, features that are not finite, or fewer than
            two groups.
        UsageError: for options out of range.
    """
    block = stack(features)
    given = {block.ndim == 5: block} | ({} if maps is None else {True: stack(maps)})
    multilabel = labels.ndim == 2
    for views in given.values():
        if len(labels) != views.shape[1]:
            raise DataError(f"labels: expected one for each of {views.shape[1]} photos, got {len(labels)}.")
        if not all(np.isfinite(view).all() for view in views):
            bad = np.flatnonzero(~np.isfinite(views.reshape(*views.shape[:2], -1)).all(axis=(0, 2)))
            raise DataError(
                f"features: expected finite numbers, got others for {len(bad)} photos (first: photo {bad[0]},"
                " counted from 0). Embed them again."
            )
    if repeats < 1:
        raise UsageError(f"repeats must be at least 1, got {repeats}.")
    C = classes or (labels.shape[1] if multilabel else int(labels.max()) + 1)
    weight, aloud = class_weights(labels, C, class_weight)
    kinds, notes = pick(heads, multilabel=multilabel, maps=True in given, rows=False in given)
    count = len(labels) if groups is None else len(np.unique(groups))
    if count < 2:
        raise DataError(
            f"labels: expected at least 2 photos that are not near-duplicates, got {count}. Give more photos."
        )
    if folds > count:
        notes.append(f"{folds} folds were asked for, but {count} photos that differ allow only {count}.")
        folds = count
    dealt = [make_folds(labels, groups, folds, seed + repeat) for repeat in range(repeats)]
    flat = [fold for repeat in dealt for fold in repeat]
    if aloud:
        notes.insert(0, aloud)

    candidates: list[_Candidate] = []
    seconds: dict[str, float] = {}
    compute = Compute(settings or Settings.load())
    for done, kind in enumerate(kinds):
        progress("compare heads", done, len(kinds))
        begun = time.perf_counter()
        grid = kind.grid()
        scored = kind.sweep(
            given[kind.on_map],
            labels,
            flat,
            grid,
            classes=C,
            sample_weight=weight,
            groups=groups,
            seed=seed,
            compute=compute,
        )
        seconds[kind.name] = (time.perf_counter() - begun) / (len(grid) * len(flat))
        for index in range(len(grid)):
            logits = np.empty((repeats, len(labels), C))
            for number, (_, score) in enumerate(flat):
                logits[number // folds, score] = scored[number][index]
            candidates.append(_candidate(kind, index, logits, labels, dealt))
    progress("compare heads", len(kinds), len(kinds))

    order = sorted(range(len(candidates)), key=lambda i: candidates[i].loss)
    best = candidates[order[0]]
    gaps = {i: difference(candidates[i].by_fold, best.by_fold, dealt) for i in order}
    within = [i for i in order if i == order[0] or gaps[i][0].value <= gaps[i][1]]
    within = _worth_choosing(within, candidates, prior_log_loss(labels, C))
    winner = min(within, key=lambda i: (candidates[i].kind.simplicity, candidates[i].position))
    rows = [
        _row(candidates[i], gaps[i][0], labels, groups, chosen=i == winner, seed=seed, multilabel=multilabel)
        for i in order
    ]
    chosen = candidates[winner]
    return Comparison(
        rows=rows,
        chosen=Choice(chosen.kind.name, chosen.setting),
        oof=chosen.probabilities,
        logits=chosen.logits,
        temperature=calibrate(chosen.logits, labels, multilabel=multilabel),
        folds=dealt,
        sample_weight=weight,
        notes=notes,
        seconds=seconds,
    )


def fit_chosen(
    comparison: Comparison,
    features: FeatureSource | Features,
    labels: Labels,
    groups: Labels | None = None,
    *,
    maps: FeatureSource | Features | None = None,
    classes: int | None = None,
    seed: int = 0,
    settings: Settings | None = None,
) -> Head:
    """Fit the chosen head on all photos it was compared on."""
    head = comparison.chosen.make()
    with one_core():
        return head.fit(
            stack(features if maps is None or not head.on_map else maps),
            labels,
            classes=classes or comparison.oof.shape[2],
            sample_weight=comparison.sample_weight,
            groups=groups,
            seed=seed,
            compute=Compute(settings or Settings.load()),
        )


@dataclass(frozen=True)
class _Candidate:
    """One setting of one head, scored. loss is its mean log loss, by_fold (R·F,) that of each fold."""

    kind: type[Head]
    position: int
    setting: Setting
    logits: Logits
    probabilities: Probabilities
    losses: NDArray[np.float64]
    loss: float
    by_fold: NDArray[np.float64]


def _candidate(
    kind: type[Head], position: int, logits: Logits, labels: Labels, dealt: list[list[Fold]]
) -> _Candidate:
    multilabel = labels.ndim == 2
    probabilities = np.stack(
        [
            cross_calibrate(repeat, labels, folds, multilabel=multilabel)
            for repeat, folds in zip(logits, dealt, strict=True)
        ]
    )
    losses = np.stack([metrics.losses(labels, repeat) for repeat in probabilities])
    by_fold = [losses[repeat, score].mean() for repeat, folds in enumerate(dealt) for _, score in folds]
    return _Candidate(
        kind,
        position,
        kind.grid()[position],
        logits,
        probabilities,
        losses,
        float(losses.mean()),
        np.array(by_fold),
    )


def prior_log_loss(labels: Labels, classes: int) -> float:
    """Return the log loss of always answering the share each class has, which asks for no photo at all."""
    from scipy.special import entr

    shares = as_indicators(labels, classes).mean(axis=0)
    if labels.ndim == 2:
        return float((entr(shares) + entr(1 - shares)).mean())
    return float(entr(shares).sum())


def _worth_choosing(within: list[int], candidates: list[_Candidate], prior: float) -> list[int]:
    """Drop what is much worse than the best, its first, or no better than the classes' shares alone."""
    lowest = candidates[within[0]].loss
    limit = WORSE * lowest if lowest >= prior else min(WORSE * lowest, prior)
    return [i for i in within if candidates[i].loss <= limit]


def difference(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], dealt: list[list[Fold]]
) -> tuple[Estimate, float]:
    """Return the mean difference of two scores over folds with its 95 % interval, and its standard error.

    The corrected resampled t of Nadeau & Bengio 2003: variance (1/J + n_scored/n_fitted)·s² over the J =
    folds × repeats differences, because folds are fitted on mostly the same photos.

    Args:
        ours: (J,) one score a fold.
        theirs: (J,).
        dealt: the folds, repeat by repeat.
    """
    from scipy.stats import t

    gaps = ours - theirs
    J = len(gaps)
    shares = [len(score) / len(fit) for folds in dealt for fit, score in folds]
    error = float(np.sqrt((1 / J + np.mean(shares)) * gaps.var(ddof=1)))
    half_width = float(t.ppf(0.975, J - 1)) * error
    mean = float(gaps.mean())
    return Estimate(mean, mean - half_width, mean + half_width), error


def _row(
    candidate: _Candidate,
    gap: Estimate,
    labels: Labels,
    groups: Labels | None,
    *,
    chosen: bool,
    seed: int,
    multilabel: bool,
) -> dict[str, Any]:
    return {
        "head": candidate.kind.name,
        "setting": setting_text(candidate.setting),
        **metrics.brief(labels, candidate.probabilities, groups=groups, seed=seed, losses=candidate.losses),
        "difference": gap.as_dict(),
        "chosen": chosen,
    } | ({"several": True} if multilabel else {})
