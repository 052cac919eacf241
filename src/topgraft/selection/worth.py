"""What augmentation is worth, from stored features alone.

Each level of each axis ("rotate(120)", "vflip", "fill(wrap)") and each policy is judged twice, by ridge
regression on held-out photos: what its views add to the photos as they are, and what they add to all the
others. Sums over rows are added and taken away instead of rows (ridge needs no more), so that hundreds of
views cost little; as they grow with the square of the columns, they are of the last layer, whichever depths
the heads read. It measures and does not select: of hundreds of policies, some always look good by chance.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft import metrics
from topgraft.errors import DataError, UsageError
from topgraft.heads._base import Fold, Setting
from topgraft.heads._parallel import Compute
from topgraft.heads._ridge import Ridge
from topgraft.selection.calibrate import cross_calibrate
from topgraft.selection.candidates import difference
from topgraft.selection.gram import Gram, accumulate
from topgraft.selection.source import FeatureSource, refuse_plain
from topgraft.settings import Settings
from topgraft.splits import folds as make_folds
from topgraft.types import Features, Labels, Logits, Probabilities, Progress, silent

STRENGTHS = (0.03, 0.01, 0.003)
BLOCK = 512
WORDS = {"hflip": "horizontal flips", "vflip": "vertical flips", "crop": "cropping"}


@dataclass(frozen=True)
class Worth:
    """What came out.

    Attributes:
        numbers: the `worth` of metrics.json: plain data. A difference in log loss below 0 and one in accuracy
            above 0 speak for the views.
        sentences: the same in words.
    """

    numbers: dict[str, Any]
    sentences: list[str]

    @property
    def brief(self) -> list[str]:
        """Those of the sentences that say something happened, and how many parts made no difference."""
        levels = self.numbers["levels"]
        telling = [
            said
            for level, said in zip(levels, self.sentences[1:], strict=False)
            if _side(level["to_view_0"]["log_loss"]) or _side(level["to_the_rest"]["log_loss"])
        ]
        none = len(levels) - len(telling)
        rest = f"Of the parts of the policies, {none} of {len(levels)} make no measurable difference each."
        return [self.sentences[0], *telling, rest]


@dataclass(frozen=True)
class _Score:
    """Log losses and hits (R, N) of out-of-fold answers, their means by fold (R·F,), and the answers."""

    probabilities: Probabilities
    losses: NDArray[np.float64]
    loss_by_fold: NDArray[np.float64]
    right_by_fold: NDArray[np.float64]


def worth(
    source: FeatureSource,
    labels: Labels,
    groups: Labels | None = None,
    *,
    photos: Labels | None = None,
    folds: int = 5,
    repeats: int = 3,
    seed: int = 0,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Worth:
    """Measure what each axis level and each policy adds to held-out log loss and accuracy.

    Args:
        source: a feature store with at least one policy's view beside view 0.
        labels: (N,) class indices of the chosen photos.
        groups: (N,) photos that stay in one fold, or None.
        photos: (N,) which rows of the source to use (the training side), or None for all.
        folds: how many.
        repeats: how often to deal them anew.
        seed: of the folds.
        settings: cores.
        progress: told of every policy.

    Raises:
        UsageError: for a store without policies, or several labels per photo.
    """
    if labels.ndim == 2:
        raise UsageError("worth: expected one label per photo, got a table of several.")
    if len(source.views) < 2:
        raise UsageError("worth: expected views of policies, got view 0 alone. Embed with --policies 16.")
    bench = _Bench(
        source,
        labels,
        groups,
        photos,
        folds=folds,
        repeats=repeats,
        seed=seed,
        compute=Compute(settings or Settings.load()),
    )
    policies = [str(view.policy) for view in source.views]
    levels = levels_of(policies)
    total = len(levels) + len(policies) + 1
    progress("worth of policies", 0, total)
    base, sums = (
        [bench.sums(views, repeat) for repeat in range(repeats)] for views in ([0], range(len(policies)))
    )
    plain, plain_strength = bench.score(base, STRENGTHS)
    full, full_strength = bench.score(sums, STRENGTHS)

    def judged(views: list[int]) -> dict[str, Any]:
        own = [bench.sums(views, repeat) for repeat in range(repeats)]
        if len(views) == 1 and bench.few:
            alone = bench.pair(views[0])
        else:
            alone, _ = bench.score([_plus(*pair) for pair in zip(base, own, strict=True)], STRENGTHS)
        rest, _ = bench.score([_minus(*pair) for pair in zip(sums, own, strict=True)], (full_strength,))
        return {"to_view_0": bench.gap(alone, plain), "to_the_rest": bench.gap(full, rest)}

    named = [({"level": level, "views": len(views)}, views) for level, views in levels.items()]
    named += [({"policy": policies[view]}, [view]) for view in range(1, len(policies))]
    found = []
    for done, (name, views) in enumerate(named, 1):
        progress("worth of policies", done, total)
        found.append({**name, **judged(views)})
    progress("worth of policies", total, total)

    numbers = {
        "photos": len(labels),
        "folds": folds,
        "repeats": repeats,
        "head": "ridge",
        "view_0": bench.brief(plain, seed),
        "all": bench.brief(full, seed),
        "strength": {"view_0": plain_strength, "all": full_strength},
        "difference": bench.gap(full, plain),
        "levels": found[: len(levels)],
        "policies": found[len(levels) :],
    }
    return Worth(numbers, in_words(numbers))


def levels_of(policies: Sequence[str]) -> dict[str, list[int]]:
    """Return the terms policies are made of, and the views that have each: `{"rotate(60)": [1, 5, …]}`.

    A term that every policy has tells nothing and is left out; terms that only occur together are one level.
    """
    found: dict[str, list[int]] = {}
    for view, policy in enumerate(policies):
        for term in policy.split(" | ") if view else []:
            found.setdefault(term, []).append(view)
    together: dict[tuple[int, ...], list[str]] = {}
    for term, views in sorted(found.items()):
        if len(views) < len(policies) - 1:
            together.setdefault(tuple(views), []).append(term)
    return {" | ".join(terms): list(views) for views, terms in together.items()}


class _Bench:
    """Folds, and ridge regressions from sums over some of the views."""

    def __init__(
        self,
        source: FeatureSource,
        labels: Labels,
        groups: Labels | None,
        photos: Labels | None,
        *,
        folds: int,
        repeats: int,
        seed: int,
        compute: Compute,
    ) -> None:
        self.source, self.labels, self.groups, self.compute = source, labels, groups, compute
        self.photos = np.arange(len(labels)) if photos is None else photos
        refuse_plain(source, self.photos)
        if len(self.photos) != len(labels):
            raise DataError(f"labels: expected one for each of {len(self.photos)} photos, got {len(labels)}.")
        self.classes = int(labels.max()) + 1
        self.dealt = [make_folds(labels, groups, folds, seed + repeat) for repeat in range(repeats)]
        self.view_0 = self.rows(0)
        self.few = 2 * len(labels) <= self.view_0.shape[1]  # two views have fewer rows than their sums

    def rows(self, view: int) -> Features:
        """Return one view of the chosen photos: (N, D)."""
        return self.source.features(view)[self.photos]

    def sums(self, views: Sequence[int], repeat: int) -> list[Gram]:
        """Return the sums over the scored photos of every fold, over some views."""
        width = self.view_0.shape[1]

        def sum_fold(fold: Fold) -> Gram:
            score = fold[1]
            some = max(1, BLOCK // len(score))  # views at once: sums of few rows are slow
            blocks = (
                (
                    np.concatenate([self.rows(view)[score] for view in views[at : at + some]]),
                    np.tile(self.labels[score], len(views[at : at + some])),
                )
                for at in range(0, len(views), some)
            )
            return accumulate(blocks, width, self.classes)

        return self.compute.map(sum_fold, self.dealt[repeat])

    def score(self, parts: Sequence[list[Gram]], strengths: Sequence[float]) -> tuple[_Score, float]:
        """Fit on all parts but one, score view 0 of that one, and keep the strength of least log loss."""
        logits = np.empty((len(strengths), len(self.dealt), len(self.labels), self.classes))
        for repeat, (dealt, sums) in enumerate(zip(self.dealt, parts, strict=True)):
            whole = functools.reduce(operator.add, sums)

            def score_fold(job: tuple[Gram, Fold]) -> list[Logits]:
                fitted_on, (_, score) = job
                return [
                    head.logits(self.view_0[score]) for head in Ridge.path_from_sums(fitted_on, strengths)
                ]

            jobs = [(whole - part, fold) for part, fold in zip(sums, dealt, strict=True)]
            for (_, score), answers in zip(dealt, self.compute.map(score_fold, jobs), strict=True):
                for index, answer in enumerate(answers):
                    logits[index, repeat, score] = answer
        return self._best(logits, strengths)

    def pair(self, view: int) -> _Score:
        """Return the score of a fit on view 0 and one other."""
        both = np.stack([self.view_0, self.rows(view)])
        flat = [fold for dealt in self.dealt for fold in dealt]
        settings: list[Setting] = [{"strength": strength} for strength in STRENGTHS]
        # What is prepared of one pair is never asked for again: it is not kept with the rest.
        once = Compute(self.compute.settings)
        answers = Ridge.sweep(both, self.labels, flat, settings, classes=self.classes, compute=once)
        logits = np.empty((len(STRENGTHS), len(self.dealt), len(self.labels), self.classes))
        for number, (_, score) in enumerate(flat):
            logits[:, number // len(self.dealt[0]), score] = answers[number]
        return self._best(logits, STRENGTHS)[0]

    def _best(self, logits: NDArray[np.float64], strengths: Sequence[float]) -> tuple[_Score, float]:
        scored = self.compute.map(self._scored, list(logits))
        best = int(np.argmin([score.losses.mean() for score in scored]))
        return scored[best], strengths[best]

    def _scored(self, logits: Logits) -> _Score:
        probabilities = np.stack(
            [
                cross_calibrate(repeat, self.labels, dealt)
                for repeat, dealt in zip(logits, self.dealt, strict=True)
            ]
        )
        losses = np.stack([metrics.losses(self.labels, repeat) for repeat in probabilities])
        right = (probabilities.argmax(axis=2) == self.labels).astype(np.float64)
        by_fold = [(repeat, score) for repeat, dealt in enumerate(self.dealt) for _, score in dealt]
        return _Score(
            probabilities,
            losses,
            np.array([losses[at].mean() for at in by_fold]),
            np.array([right[at].mean() for at in by_fold]),
        )

    def gap(self, ours: _Score, theirs: _Score) -> dict[str, dict[str, float]]:
        """Return how far two scores lie apart, with the corrected paired interval of `difference`."""
        loss, _ = difference(ours.loss_by_fold, theirs.loss_by_fold, self.dealt)
        right, _ = difference(ours.right_by_fold, theirs.right_by_fold, self.dealt)
        return {"log_loss": loss.as_dict(), "accuracy": right.as_dict()}

    def brief(self, score: _Score, seed: int) -> dict[str, Any]:
        """Return the headline numbers of one score."""
        row = metrics.brief(
            self.labels,
            score.probabilities,
            losses=score.losses,
            groups=self.groups,
            seed=seed,
            out_of_fold=True,
        )
        return {name: row[name] for name in ("log_loss", "accuracy")}


def _plus(ours: list[Gram], theirs: list[Gram]) -> list[Gram]:
    return [mine + yours for mine, yours in zip(ours, theirs, strict=True)]


def _minus(ours: list[Gram], theirs: list[Gram]) -> list[Gram]:
    return [mine - yours for mine, yours in zip(ours, theirs, strict=True)]


def in_words(numbers: dict[str, Any]) -> list[str]:
    """Return what the numbers mean, one sentence a level."""
    photos, policies = numbers["photos"], numbers["policies"]
    plain, full, gap = numbers["view_0"], numbers["all"], numbers["difference"]["log_loss"]
    before, after = (f"{score['log_loss']['value']:.3f}" for score in (plain, full))
    right, now = (f"{score['accuracy']['value']:.3f}" for score in (plain, full))
    together = (
        f"All {len(policies)} policies together: {_verdict(gap)} on {photos} photos, by a ridge on the last"
        f" layer. Log loss {before} on"
        f" photos as they are, {after} with all views ({_interval(gap)}); accuracy {right} and {now}."
    )
    said = [together, *(_of_level(level, photos) for level in numbers["levels"])]
    telling = sum(1 for policy in policies if _side(policy["to_view_0"]["log_loss"]))
    said.append(
        f"{telling} of {len(policies)} single policies change the log loss measurably when added to photos as"
        f" they are; where none did, chance would make about {0.05 * len(policies):.0f} look so."
    )
    return said


def _of_level(entry: dict[str, Any], photos: int) -> str:
    alone, rest = entry["to_view_0"]["log_loss"], entry["to_the_rest"]["log_loss"]
    word = WORDS.get(entry["level"].split("(")[0])
    name = f"{word} ({entry['level']})" if word else entry["level"]
    if _side(alone) == _side(rest):
        verdict = f"{_verdict(alone)} on {photos} photos"
    else:
        verdict = (
            f"{_verdict(alone)} beside photos as they are, {_verdict(rest)} beside all other views,"
            f" on {photos} photos"
        )
    return f"{name}: {verdict} (log loss {_interval(alone)} and {_interval(rest)})."


def _side(gap: dict[str, float]) -> int:
    return -1 if gap["high"] < 0 else 1 if gap["low"] > 0 else 0


def _verdict(gap: dict[str, float]) -> str:
    return {-1: "a gain", 1: "a harm", 0: "no measurable harm or gain"}[_side(gap)]


def _interval(gap: dict[str, float]) -> str:
    return f"{gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
