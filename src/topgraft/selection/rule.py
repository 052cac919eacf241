"""Which head is taken, from all that were scored on the same folds.

`mean`, the default: the best ridge, the best discriminant analysis and the best logistic regression, each at
its own setting, answer together (`heads/_average.py`); each reads the last layer alone unless the blocks are
better by more than a standard error. On real photos that is as good as or better than the
best of them alone. Any other head, or one of the three alone, takes its place only where it is really better
on both accuracy and log loss: by log loss alone, nearest neighbours were chosen that were right on 1.4 % of
photos, because all heads were unsure.

`lowest`: the lowest log loss. `one-standard-error`: the simplest within one standard error of it, never one
whose log loss is more than 20 % higher, nor, where the best is better than always answering the classes'
shares, one that is not: few photos make standard errors that excuse anything. The standard error is that of
the paired difference between the two over folds, corrected for folds sharing photos (Nadeau & Bengio 2003,
Inference for the Generalization Error, Machine Learning 52; for repeats: Bouckaert & Frank 2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from topgraft.config import Rule
from topgraft.errors import UnknownNameError
from topgraft.heads._average import MEMBERS, Average, centred
from topgraft.heads._base import Fold
from topgraft.selection.calibrate import calibrate
from topgraft.selection.candidates import Candidate, difference, prior_log_loss, score
from topgraft.types import Labels, Logits

RULES: tuple[Rule, ...] = get_args(Rule)
WORSE = 1.2  # times the lowest log loss: what no standard error excuses

SAID = {
    "mean": "the mean of the best linear heads, which no head beats on both accuracy and log loss",
    "lowest": "the lowest log loss",
    "one-standard-error": "the simplest within one standard error of the lowest log loss",
}
"""Each rule in words."""


def check(rule: str) -> None:
    """Refuse a rule there is not.

    Raises:
        UnknownNameError: naming those there are.
    """
    if rule not in RULES:
        raise UnknownNameError("rule", rule, RULES)


def mean_of(best: Sequence[Candidate], labels: Labels, dealt: Sequence[list[Fold]]) -> Candidate | None:
    """Return the mean of `members`, scored; None of fewer than two.

    A member's temperature is that of all its out-of-fold answers.
    """
    if len(best) < 2:
        return None
    multilabel = labels.ndim == 2
    hot = {candidate.head: calibrate(candidate.logits, labels, multilabel=multilabel) for candidate in best}
    setting = Average.of(
        {candidate.head: (candidate.setting, hot[candidate.head]) for candidate in best}
    ).setting
    mean = mean_logits([(candidate.logits, hot[candidate.head]) for candidate in best], multilabel=multilabel)
    return score(Average.name, setting, (Average.simplicity, 0), mean, labels, dealt)


def members(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the best of each head that can be a member of the mean, where there is any."""
    own = {head: [candidate for candidate in candidates if candidate.head == head] for head in MEMBERS}
    return [best_of(found) for found in own.values() if found]


def mean_logits(parts: Sequence[tuple[Logits, float]], *, multilabel: bool) -> Logits:
    """Return the mean of logits (…, C), each centred and divided by its own temperature."""
    return np.asarray(
        np.mean([centred(own, multilabel=multilabel) / temperature for own, temperature in parts], axis=0)
    )


def best_of(own: Sequence[Candidate]) -> Candidate:
    """Return a head's candidate of the lowest loss; the last layer's, unless another is really lower.

    Really is by more than the standard error of the difference, photo by photo. Blocks that bring less than
    that cost log loss on few photos.
    """
    lowest = min(own, key=lambda candidate: candidate.loss)
    last = min(
        (candidate for candidate in own if candidate.depths == "last"),
        key=lambda candidate: candidate.loss,
        default=lowest,
    )
    gap = (last.losses - lowest.losses).mean(axis=0)
    return last if gap.mean() <= gap.std() / np.sqrt(len(gap)) else lowest


def choose(
    candidates: Sequence[Candidate], labels: Labels, dealt: Sequence[list[Fold]], *, rule: str, classes: int
) -> Candidate:
    """Return the candidate to take.

    Args:
        candidates: all of them; for the rule `mean`, their mean as well.
        labels: (N,) or (N, C).
        dealt: R lists of folds.
        rule: one of `RULES`.
        classes: C.
    """
    lowest = min(candidates, key=lambda candidate: candidate.loss)
    prior = prior_log_loss(labels, classes)
    limit = WORSE * lowest.loss if lowest.loss >= prior else min(WORSE * lowest.loss, prior)
    if rule == "mean" and (mean := _standing(candidates)) is not None:
        if mean.loss > max(limit, prior) and (
            sound := [candidate for candidate in candidates if candidate.loss <= limit]
        ):
            # The mean is worse than no head at all: take what is right most often, unless the mean is so.
            best = max(sound, key=lambda candidate: (candidate.right_by_fold.mean(), -candidate.loss))
            return mean if difference(best.right_by_fold, mean.right_by_fold, dealt)[0].high < 0 else best
        better = [candidate for candidate in candidates if _beats(candidate, mean, dealt)]
        return min(better, key=lambda candidate: candidate.loss, default=mean)
    if rule == "one-standard-error":

        def within(candidate: Candidate) -> bool:
            gap, error = difference(candidate.loss_by_fold, lowest.loss_by_fold, dealt)
            return gap.value <= error and candidate.loss <= limit

        return min(
            (candidate for candidate in candidates if candidate is lowest or within(candidate)),
            key=lambda candidate: candidate.order,
        )
    return lowest


def _standing(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the mean of linear heads, or the best of them where there is one kind alone."""
    means = [candidate for candidate in candidates if candidate.head == Average.name]
    linear = means or [candidate for candidate in candidates if candidate.head in MEMBERS]
    return min(linear, key=lambda candidate: candidate.loss, default=None)


def _beats(candidate: Candidate, mean: Candidate, dealt: Sequence[list[Fold]]) -> bool:
    """Tell whether one is better on log loss and on accuracy, by more than chance explains on both."""
    loss, _ = difference(candidate.loss_by_fold, mean.loss_by_fold, dealt)
    right, _ = difference(candidate.right_by_fold, mean.right_by_fold, dealt)
    return loss.high < 0 and right.low > 0
