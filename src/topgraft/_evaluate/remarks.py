"""What is said beside the numbers of an evaluation, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from topgraft._evaluate.ask import Heard
from topgraft.metrics import Estimate
from topgraft.predictor import PredictorCard
from topgraft.run import Run
from topgraft.run.evaluation import Result
from topgraft.run.predictions import read_predictions
from topgraft.selection.ensemble import paired, paired_loss
from topgraft.text import counted
from topgraft.trust.coverage import Coverage, in_words
from topgraft.trust.harder import Harder, harder
from topgraft.types import Labels, Probabilities

OWN_THRESHOLDS = (
    "The threshold below which a run is unsure is of its own probabilities, and not applied to their mean."
    " Evaluate that run alone to see what it does."
)


def held_beside(runs: list[Run], member: Result, heard: Heard, labels: Labels, seed: int) -> Harder | None:
    """Hold the photos against those the run was trained on, where it says how far those lie."""
    if len(runs) > 1 or labels.ndim == 2:
        return None
    run = runs[0].metrics
    there = [
        row.distance
        for row in read_predictions(runs[0], run.classes)
        if row.split == "cv" and row.distance is not None
    ]
    if not there:
        return None
    return harder(
        Estimate(**member.scores["accuracy"]),
        run.cross_validation.accuracy,
        heard.each[0].distance,
        np.array(there),
        heard.groups,
        seed=seed,
    )


def augmented(
    labels: Labels, said: Probabilities, plain: Probabilities, tta: int, groups: Labels, seed: int
) -> dict[str, Any] | None:
    """Say what test-time augmentation changed; None without."""
    if not tta:
        return None
    return {
        "views": tta,
        "accuracy": paired(labels, said, plain, groups=groups).as_dict(),
        "log_loss": paired_loss(labels, said, plain, groups=groups, seed=seed).as_dict(),
    }


def of_tta(found: dict[str, Any]) -> str:
    """Say whether test-time augmentation made it better or worse."""
    gap, loss = Estimate(**found["accuracy"]), Estimate(**found["log_loss"])
    better = gap.low > 0 or (loss.high < 0 and gap.value >= 0)
    worse = gap.high < 0 or (loss.low > 0 and gap.value <= 0)
    verdict = "made it better" if better else "made it worse" if worse else "made no measurable difference"
    return (
        f"Test-time augmentation with {counted(found['views'], 'view')} {verdict}: accuracy"
        f" {gap.value:+.3f} [{gap.low:+.2f}, {gap.high:+.2f}], log loss"
        f" {loss.value:+.3f} [{loss.low:+.3f}, {loss.high:+.3f}] on the same photos without it."
    )


def at_threshold(cards: Sequence[PredictorCard], answered: Coverage | None) -> dict[str, Any] | None:
    """Return what the threshold of one run comes to here; None where it has none, and for several runs."""
    above = cards[0].answer_above
    return None if len(cards) > 1 or above is None or answered is None else answered.at(above)


def of_thresholds(cards: Sequence[PredictorCard], limit: dict[str, Any] | None) -> list[str]:
    """Say what the threshold of one run comes to here; several runs' are not applied to their mean."""
    if limit:
        return [in_words(limit)]
    several = len(cards) > 1 and any(card.answer_above is not None for card in cards)
    return [OWN_THRESHOLDS] if several else []


def of_strangers(counts: Counter[str], photos: int, flagged: int, runs: int) -> list[str]:
    """Say how many photos are of other classes, and how many of them are called unknown."""
    if not counts:
        return []
    listed = ", ".join(f"{name} {n}" for name, n in sorted(counts.items())[:8])
    said = f"{photos} photos are of classes the run does not know ({listed}); they are in no number,"
    return [f"{said} and {flagged} of {photos} are called unknown{' by every run' if runs > 1 else ''}."]


def worse(members: tuple[Result, ...], ensembles: tuple[Result, ...]) -> list[str]:
    """Say it where an ensemble is worse than one of its members."""
    notes = []
    for together in ensembles:
        for member in members:
            gap = (together.against or {})[member.name]
            if gap.value < 0:
                notes.append(
                    f"The {together.name} ensemble is worse than {member.name} alone: accuracy"
                    f" {gap.value:+.3f} [{gap.low:+.2f}, {gap.high:+.2f}] on the same photos."
                )
    return notes
