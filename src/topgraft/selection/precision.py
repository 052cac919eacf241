"""Whether INT8 loses nothing: both precisions' features judged on the same folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from topgraft.backbones.depths import Depths
from topgraft.heads._base import last_layer
from topgraft.selection.compare import compare
from topgraft.settings import Settings
from topgraft.types import Features, Labels

MOST_LOST = 0.005
"""INT8 is kept where cross-validated accuracy falls by no more than half a point."""


@dataclass(frozen=True)
class Verdict:
    """Whether INT8 is worth keeping, and why.

    Attributes:
        keep: whether.
        cosine: mean cosine between the features of both, photo by photo.
        accuracy_f32, accuracy_int8: cross-validated on the same folds.
        sentence: the same in words.
    """

    keep: bool
    cosine: float
    accuracy_f32: float
    accuracy_int8: float
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "kept": self.keep,
            "cosine": self.cosine,
            "accuracy_f32": self.accuracy_f32,
            "accuracy_int8": self.accuracy_int8,
        }


def worth_keeping(
    exact: Features,
    coarse: Features,
    labels: Labels,
    groups: Labels | None = None,
    *,
    columns: Depths | None = None,
    folds: int = 5,
    repeats: int = 3,
    seed: int = 0,
    settings: Settings | None = None,
) -> Verdict:
    """Judge INT8 features against f32 by logistic regression on the same folds.

    Args:
        exact: (N, D) f32 features of the training photos as they are, or rows of every depth (N, D + B).
        coarse: (N, D) INT8 features of the same.
        labels: (N,) class indices, or 0/1 indicators (N, C).
        groups: (N,) photos that stay together.
        columns: which columns are which, in rows of every depth.
        folds: of the cross-validation.
        repeats: how often the folds are dealt; three steady the half point that decides.
        seed: of the folds.
        settings: cores.
    """
    exact, coarse = exact.astype(np.float32), coarse.astype(np.float32)
    ours, theirs = last_layer(exact, columns), last_layer(coarse, columns)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosine = float(((ours * theirs).sum(axis=1) / np.maximum(lengths, 1e-12)).mean())
    scores = []
    for features in (exact, coarse):
        found = compare(
            features,
            labels,
            groups,
            heads="logistic",
            columns=columns,
            folds=folds,
            repeats=repeats,
            seed=seed,
            settings=settings,
        )
        scores.append(next(row["accuracy"]["value"] for row in found.rows if row["chosen"]))
    lost = scores[0] - scores[1]
    kept = lost <= MOST_LOST
    sentence = (
        f"INT8 features agree with f32 to a mean cosine of {cosine:.4f}; cross-validated accuracy goes from"
        f" {scores[0]:.3f} to {scores[1]:.3f}, so {'INT8 is used' if kept else 'f32 is kept'}"
        f" (at most {MOST_LOST:.3f} may be lost)."
    )
    return Verdict(kept, cosine, scores[0], scores[1], sentence)
