"""All heads on the same folds, in one table that says what is noise.

The order: every head's every setting is fitted on every fold (of many photos, those that are clearly worse on
two folds go no further, and depths of which none is left are not asked of the next head), scored on view 0 of
photos it has not seen, and its logits turned into probabilities with a temperature from the other folds (what
a finished predictor does too). Which of them is taken is said in `rule.py`. To choose within a part of the
photos, as nested cross-validation does, compare that part alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft.backbones.depths import Depths
from topgraft.errors import DataError, MissingExtraError, UsageError
from topgraft.heads._average import MEMBERS, Average
from topgraft.heads._base import HEADS, Fold, Head, Setting, head_class, setting_text
from topgraft.heads._parallel import Compute, one_core
from topgraft.selection.calibrate import calibrate
from topgraft.selection.candidates import Bench, Candidate, worth_a_row
from topgraft.selection.nested import nested
from topgraft.selection.rule import SAID, check, choose, mean_of, members
from topgraft.selection.source import FeatureSource, columns_of, combinations, stack
from topgraft.settings import Settings
from topgraft.splits import folds as make_folds
from topgraft.types import Features, Labels, Logits, Probabilities, Progress, silent

UNEVEN = 1.5  # above this ratio of the largest class to the smallest, classes are weighted
FOLDS, MANY, FEWER = 10, 500, 5
"""Folds of up to so many photos, and of more. Five learn from four fifths of the photos: with the choice made
on other folds their accuracy was 0.5 points below that on unseen photos, that of ten 0.1 (600 draws of 20 to
400 photos from five sets). With many photos that shrinks, and a fit costs more."""
POWER = 0.5  # of a class's share that its photos' weight is divided by


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


class _Leaderboard:
    """Makes the rows of a comparison when they are first asked for.

    Their intervals take a quarter of a comparison's time, and a first answer, or a step that does not pay,
    needs none of them.
    """

    def __init__(self, bench: Bench, candidates: Sequence[Candidate], winner: Candidate) -> None:
        # what heads were fitted on is large, and no longer needed
        bench = replace(bench, given={}, compute=Compute(bench.compute.settings))
        self._left: tuple[Bench, Sequence[Candidate], Candidate] | None = (bench, candidates, winner)
        self._rows: list[dict[str, Any]] = []

    def __call__(self) -> list[dict[str, Any]]:
        """Return the rows, and let go of what they are made of."""
        if self._left is not None:
            bench, candidates, winner = self._left
            self._rows = [
                row | {"chosen": candidate is winner}
                for candidate, row in zip(candidates, bench.rows(candidates), strict=True)
            ]
            self._left = None
        return self._rows


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        leaderboard: makes `rows`.
        chosen: the head and setting to use.
        oof: (R, N, C) out-of-fold probabilities, one layer a repeat: each fold's are of what the other folds
            would have chosen (`selection/nested.py`), so that they do not flatter.
        logits: (R, N, C) its out-of-fold logits, before any temperature.
        temperature: to divide the refitted head's logits by.
        folds: R lists of (fit, score).
        sample_weight: (N,) what each photo weighed in fitting, None where all weighed the same.
        notes: plain sentences about what was done and left out.
        seconds: what fitting and scoring one setting on one fold took, by head.
        columns: which columns of a row are which, where block features were read.
        rule: by which the head was chosen.
    """

    leaderboard: Callable[[], list[dict[str, Any]]]
    chosen: Choice
    oof: Probabilities
    logits: Logits
    temperature: float
    folds: list[list[Fold]]
    sample_weight: NDArray[np.float64] | None
    notes: list[str]
    seconds: dict[str, float]
    columns: Depths | None = None
    rule: str = "mean"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The leaderboard of metrics.json, best log loss first: plain data."""
        return self.leaderboard()

    @property
    def why(self) -> str:
        """Say why the chosen one was chosen."""
        if self.rule != "mean" or self.chosen.head == Average.name:
            return SAID[self.rule]
        if any(row["head"] == Average.name for row in self.rows):
            return "better here than the mean of the best linear heads"
        return "the best of those compared"


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
    names, named = _names([heads] if isinstance(heads, str) else list(heads))
    found, notes = [], []
    missing: dict[str, list[str]] = {}
    for name in names:
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


def _names(given: list[str]) -> tuple[list[str], set[str]]:
    """Return the names of all heads that are asked for, and of those that are asked for by name."""
    named = set(given) - {"all", "linear"}
    names = given + list(MEMBERS) * (Average.name in given)  # it is made of these
    if "all" in given:
        names = list(HEADS)
    elif "linear" in given:
        names = [*(name for name, entry in HEADS.items() if not entry.requires), *named]
    return [name for name in dict.fromkeys(names) if name != Average.name], named


def compare(
    features: FeatureSource | Features,
    labels: Labels,
    groups: Labels | None = None,
    *,
    maps: FeatureSource | Features | None = None,
    heads: str | Sequence[str] = "all",
    folds: int | None = None,
    repeats: int = 1,
    seed: int = 0,
    classes: int | None = None,
    class_weight: str = "auto",
    columns: Depths | None = None,
    depths: str = "auto",
    rule: str = "mean",
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
        folds: how many; fewer, with a note, where there are fewer groups. None: 10 of up to 500 photos, 5
            of more.
        repeats: how often to deal the folds anew.
        seed: of the folds and of heads that draw.
        classes: C; None takes it from the labels.
        class_weight: `auto`, `on` or `off`.
        columns: which columns of an array (V, N, D + B) are the last layer's and which the blocks'; None: all
            are the last layer's. A store says it itself.
        depths: `auto` leaves it to the cross-validation how much block features count, `last` reads none,
            `all` always reads them.
        rule: by which one is chosen: `mean`, `lowest` or `one-standard-error` (`selection/rule.py`).
        settings: cores and device.
        progress: told of every head.

    Raises:
        DataError: for labels that do not belong to the features, features that are not finite, or fewer than
            two groups.
        UsageError: for options out of range.
    """
    check(rule)
    if repeats < 1:
        raise UsageError(f"repeats must be at least 1, got {repeats}.")
    if not isinstance(features, np.ndarray):
        columns = columns_of(features, depths)
    block = stack(features, columns=columns)
    given = {block.ndim == 5: block} | ({} if maps is None else {True: stack(maps)})
    _refuse_misfits(given.values(), labels)
    multilabel = labels.ndim == 2
    C = classes or (labels.shape[1] if multilabel else int(labels.max()) + 1)
    weight, aloud = class_weights(labels, C, class_weight)
    kinds, notes = pick(heads, multilabel=multilabel, maps=True in given, rows=False in given)
    count = len(labels) if groups is None else len(np.unique(groups))
    if count < 2:
        raise DataError(
            f"labels: expected at least 2 photos that are not near-duplicates, got {count}. Give more photos."
        )
    if folds is None:
        folds = min(FOLDS if len(labels) <= MANY else FEWER, count)
    if folds > count:
        notes.append(f"{folds} folds were asked for, but {count} photos that differ allow only {count}.")
        folds = count
    dealt = [make_folds(labels, groups, folds, seed + repeat) for repeat in range(repeats)]
    if aloud:
        notes.insert(0, aloud)

    bench = Bench(
        given=given,
        labels=labels,
        groups=groups,
        weight=weight,
        classes=C,
        dealt=dealt,
        columns=columns,
        read=combinations(columns, depths),
        # the simplest within a standard error may be one that is clearly worse than the best
        glance=count > MANY and rule != "one-standard-error",
        seed=seed,
        compute=Compute(settings or Settings.load()),
    )
    candidates: list[Candidate] = []
    promising: dict[str, bool] = {}
    seconds: dict[str, float] = {}
    for done, kind in enumerate(kinds):
        progress("compare heads", done, len(kinds))
        begun = time.perf_counter()
        own, fits = bench.candidates(kind, promising)
        seconds[kind.name] = (time.perf_counter() - begun) / fits
        if len(kind.reads_depths) > 1:
            kept = {candidate.depths for candidate in own}
            for name in set(bench.read) & set(kind.reads_depths):
                promising[name] = promising.get(name, False) or name in kept
        candidates += worth_a_row(own)
    progress("compare heads", len(kinds), len(kinds))
    alone = candidates
    mean = mean_of(members(alone), labels, dealt) if rule == "mean" else None
    candidates = sorted([*alone, *([] if mean is None else [mean])], key=lambda candidate: candidate.loss)
    winner = choose(candidates, labels, dealt, rule=rule, classes=C)
    return Comparison(
        leaderboard=_Leaderboard(bench, candidates, winner),
        chosen=Choice(winner.head, winner.setting),
        oof=nested(alone, winner, labels, dealt, rule=rule, classes=C),
        logits=winner.logits,
        temperature=calibrate(winner.logits, labels, multilabel=multilabel),
        folds=dealt,
        sample_weight=weight,
        notes=notes,
        seconds=seconds,
        columns=columns,
        rule=rule,
    )


def _refuse_misfits(given: Iterable[Features], labels: Labels) -> None:
    """Refuse features that do not belong to the labels, or are not finite.

    Raises:
        DataError: saying which.
    """
    for views in given:
        if len(labels) != views.shape[1]:
            raise DataError(f"labels: expected one for each of {views.shape[1]} photos, got {len(labels)}.")
        if not all(np.isfinite(view).all() for view in views):
            bad = np.flatnonzero(~np.isfinite(views.reshape(*views.shape[:2], -1)).all(axis=(0, 2)))
            raise DataError(
                f"features: expected finite numbers, got others for {len(bad)} photos (first: photo {bad[0]},"
                " counted from 0). Embed them again."
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
    columns = None if head.on_map else comparison.columns
    with one_core():
        return head.fit(
            stack(features if maps is None or not head.on_map else maps, columns=columns),
            labels,
            classes=classes or comparison.oof.shape[2],
            sample_weight=comparison.sample_weight,
            groups=groups,
            depths=columns,
            seed=seed,
            compute=Compute(settings or Settings.load()),
        )
