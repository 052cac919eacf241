"""Answers without the flattery of having been chosen: every fold's choice is made on the other folds.

The best of many settings looks better on the folds it was chosen on than it is. So each fold is answered by
what the other folds alone would have chosen, temperatures included. No head is fitted again: a choice reads
the out-of-fold answers there are, and only those of other photos (the idea: Tsamardinos and others 2018,
"Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation", Machine
Learning 107).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from topgraft.heads._average import Average
from topgraft.heads._base import Fold, to_probabilities
from topgraft.selection.calibrate import calibrate
from topgraft.selection.candidates import Candidate, answers
from topgraft.selection.rule import choose, mean_logits, mean_of, members
from topgraft.types import Labels, Logits, Probabilities

ENOUGH = 3
"""Folds it takes: of two, the other one alone has no others that its temperatures could come from."""


def nested(
    candidates: Sequence[Candidate],
    winner: Candidate,
    labels: Labels,
    dealt: Sequence[list[Fold]],
    *,
    rule: str,
    classes: int,
) -> Probabilities:
    """Return out-of-fold probabilities (R, N, C) of whatever the other folds would have chosen.

    Args:
        candidates: all that were fitted, without the mean that is made of them.
        winner: what all folds together chose: its answers are returned where there are only two folds.
        labels: (N,) or (N, C).
        dealt: R lists of folds.
        rule: one of `rule.RULES`.
        classes: C.
    """
    if len(dealt[0]) < ENOUGH or len(candidates) == 1:
        return answers(winner.logits, labels, dealt)
    multilabel = labels.ndim == 2
    found = np.empty(winner.logits.shape)
    for repeat, folds in enumerate(dealt):
        for number, (fit, scored) in enumerate(folds):
            logits = _chosen_without(candidates, labels, repeat, folds, number, rule=rule, classes=classes)
            temperature = calibrate(logits[fit], labels[fit], multilabel=multilabel)
            found[repeat, scored] = to_probabilities(
                logits[scored], multilabel=multilabel, temperature=temperature
            )
    return found


def _chosen_without(
    candidates: Sequence[Candidate],
    labels: Labels,
    repeat: int,
    folds: list[Fold],
    number: int,
    *,
    rule: str,
    classes: int,
) -> Logits:
    """Return one repeat's out-of-fold logits (N, C) of what all folds but one would have chosen."""
    fit, rest = folds[number][0], [_inside(folds, number)]
    able = [_without(candidate, repeat, number, folds) for candidate in candidates]
    logits: dict[Any, Logits] = {
        (candidate.head, candidate.order): candidate.logits[repeat] for candidate in candidates
    }
    best = members(able) if rule == "mean" else []
    own = [logits[candidate.head, candidate.order] for candidate in best]
    seen = [replace(candidate, logits=whole[None, fit]) for candidate, whole in zip(best, own, strict=True)]
    mean = mean_of(seen, labels[fit], rest)
    together = able if mean is None else [*able, mean]
    taken = choose(together, labels[fit], rest, rule=rule, classes=classes)
    if taken is not mean:
        return logits[taken.head, taken.order]
    hot = Average(**mean.setting).temperatures
    parts = [(whole, hot[candidate.head]) for candidate, whole in zip(best, own, strict=True)]
    return mean_logits(parts, multilabel=labels.ndim == 2)


def _inside(folds: list[Fold], number: int) -> list[Fold]:
    """Return all folds but one, numbered among the photos that are not of that one."""
    photos = folds[number][0]
    others = [np.isin(photos, scored) for other, (_, scored) in enumerate(folds) if other != number]
    return [(np.flatnonzero(~scored), np.flatnonzero(scored)) for scored in others]


def _without(candidate: Candidate, repeat: int, number: int, folds: list[Fold]) -> Candidate:
    """Return a candidate as one repeat without one fold would have judged it; its logits stay away."""
    losses = candidate.losses[repeat : repeat + 1, folds[number][0]]
    own = slice(repeat * len(folds), (repeat + 1) * len(folds))
    return replace(
        candidate,
        logits=candidate.logits[:0],
        losses=losses,
        loss=float(losses.mean()),
        loss_by_fold=np.delete(candidate.loss_by_fold[own], number),
        right_by_fold=np.delete(candidate.right_by_fold[own], number),
    )
