"""What a person's corrections brought: the same head on the same folds, with the labels before and after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from topgraft.heads import head_class, to_probabilities
from topgraft.heads._parallel import one_core
from topgraft.metrics import Estimate
from topgraft.selection.ensemble import paired
from topgraft.splits import folds as make_folds
from topgraft.types import Features, Labels

HEAD, FOLDS = "logistic", 5


@dataclass(frozen=True)
class Brought:
    """Out-of-fold accuracy on photos that were there before, by their corrected labels.

    Attributes:
        photos: how many.
        before: of a head that learned from the labels before.
        after: of one that learned from the corrected labels, and the photos that came with them.
        gain: after minus before, with a paired interval.
    """

    photos: int
    before: float
    after: float
    gain: Estimate

    def __str__(self) -> str:
        return (
            f"What corrections brought: {self.before:.3f} of {self.photos:,} photos right, out of fold, by a"
            f" plain {HEAD} head without them, {self.after:.3f} with them"
            f" ({self.gain.value:+.3f} [{self.gain.low:+.3f}, {self.gain.high:+.3f}]);"
            " judged by the corrected labels."
        )


def brought(
    features: Features, labels: Labels, before: Labels, groups: Labels, *, seed: int = 0
) -> Brought | None:
    """Return what corrections brought; None where too few photos differ to deal folds.

    Args:
        features: (N, D) of the last layer, of the photos as they are.
        labels: (N,) corrected class indices.
        before: (N,) class indices before; -1 for photos that came with a correction.
        groups: (N,) photos of one number stay in one fold.
        seed: of the folds.
    """
    there = before >= 0
    count = min(FOLDS, len(np.unique(groups)))
    classes = int(max(labels.max(), before.max())) + 1
    if count < 2 or not there.any():
        return None
    rows = np.asarray(features, np.float32)
    answers = np.zeros((2, len(labels), classes))
    for fit, score in make_folds(labels, groups, count, seed):
        for which, told in enumerate((before, labels)):
            learn = fit[told[fit] >= 0]
            if len(np.unique(told[learn])) < 2:
                return None
            answers[which, score] = _answers(rows, told, learn, score, classes)
    without, with_them = (answer[there] for answer in answers)
    truth = labels[there]
    return Brought(
        photos=int(there.sum()),
        before=float((without.argmax(axis=1) == truth).mean()),
        after=float((with_them.argmax(axis=1) == truth).mean()),
        gain=paired(truth, with_them, without, groups=groups[there]),
    )


def _answers(rows: Features, labels: Labels, learn: Labels, score: Labels, classes: int) -> Features:
    """Return probabilities (n, C) of a head fitted on some photos; classes it never saw get none."""
    seen, told = np.unique(labels[learn], return_inverse=True)
    with one_core():
        head = head_class(HEAD)().fit(rows[learn][None], told, classes=len(seen))
    found = np.zeros((len(score), classes))
    found[:, seen] = to_probabilities(head.logits(rows[score]))
    return found
