"""Whether more views pay: two comparisons of heads on the same photos and folds, photo by photo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft import metrics
from topgraft.metrics import Estimate, affordable, percentile, resample
from topgraft.selection.compare import Comparison
from topgraft.types import Labels

FIRST, TIMES = 4, 4
"""How many views the first step adds, and how many times as many there are after each other step."""


def steps(most: int) -> Iterator[int]:
    """Yield how many views there are after each step: 4, 16, 64, …, and at last the most there may be."""
    count = FIRST
    while count < most:
        yield count
        count *= TIMES
    if most:
        yield most


@dataclass(frozen=True)
class Step:
    """What a number of views of each photo is worth against fewer.

    Attributes:
        policies: how many views there are, beside the photo as it is.
        log_loss, accuracy: out of fold, with them.
        difference: in log loss, from before, with a paired 95 % interval; below 0 speaks for the views.
        pays: whether it is better by more than a standard error of the paired difference, and by `SHOWN`.
    """

    policies: int
    log_loss: float
    accuracy: float
    difference: Estimate
    pays: bool

    @classmethod
    def between(
        cls,
        policies: int,
        before: Comparison,
        after: Comparison,
        labels: Labels,
        groups: Labels,
        *,
        seed: int = 0,
    ) -> Step:
        """Judge a step by the chosen heads of both comparisons.

        Args:
            policies: how many views there are after it.
            before: without them.
            after: with them, on the same folds.
            labels: (N,) or (N, C).
            groups: (N,) photos that are drawn together.
            seed: of the bootstrap.
        """
        difference, error = gap(before, after, labels, groups, seed=seed)
        return cls(
            policies,
            *_values(after, labels),
            difference,
            pays=difference.value < -max(error, metrics.SHOWN),
        )

    def __str__(self) -> str:
        by, verdict = self.difference, "they pay" if self.pays else "they do not pay"
        return (
            f"with {self.policies} views of each photo: log loss {self.log_loss:.3f}, accuracy"
            f" {self.accuracy:.3f}; {by.value:+.3f} [{by.low:+.3f}, {by.high:+.3f}] in log loss: {verdict}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as metrics.json has it."""
        return {
            "policies": self.policies,
            "log_loss": self.log_loss,
            "accuracy": self.accuracy,
            "difference": self.difference.as_dict(),
            "pays": self.pays,
        }


def gap(
    before: Comparison, after: Comparison, labels: Labels, groups: Labels, *, seed: int = 0
) -> tuple[Estimate, float]:
    """Return the chosen heads' difference in log loss, `after` minus `before`, and its standard error.

    Photo by photo, with a paired bootstrap over groups; both were compared on the same folds.
    """
    gaps = losses_of(after, labels) - losses_of(before, labels)
    draws = resample(len(gaps), groups, seed=seed, draws=affordable(len(gaps)))
    means = draws @ gaps / draws.sum(axis=1)
    return percentile(float(gaps.mean()), means), float(means.std())


def losses_of(found: Comparison, labels: Labels) -> NDArray[np.float64]:
    """Return each photo's out-of-fold log loss under the chosen head, (N,): the mean over repeats."""
    return np.asarray(np.mean([metrics.losses(labels, repeat) for repeat in found.oof], axis=0))


def facts(found: Comparison, labels: Labels, taken: Sequence[Step]) -> dict[str, Any]:
    """Return what views brought, as metrics.json has it: view 0 alone, each step, and how many are kept."""
    return {
        "view_0": dict(zip(("log_loss", "accuracy"), _values(found, labels), strict=True)),
        "steps": [step.as_dict() for step in taken],
        "kept": max((step.policies for step in taken if step.pays), default=0),
    }


def in_words(brought: dict[str, Any]) -> str:
    """Return what the facts mean, in a sentence."""
    at, said = brought["view_0"]["log_loss"], []
    for step in brought["steps"]:
        by = step["difference"]
        change = f"{by['value']:+.3f} [{by['low']:+.3f}, {by['high']:+.3f}]"
        said.append(f"{step['policies']} of each photo from {at:.3f} to {step['log_loss']:.3f} ({change})")
        at = step["log_loss"]
    kept, tried = brought["kept"], brought["steps"][-1]["policies"]
    verdict = (
        f"{kept} are learned from."
        if kept == tried
        else f"more than {kept} do not pay, and {kept} are learned from."
        if kept
        else "they do not pay, and the photos are learned from as they are."
    )
    return f"Augmented views brought the log loss, out of fold: {'; '.join(said)}: {verdict}"


def scores_of(
    found: Comparison, labels: Labels, groups: Labels | None = None, *, seed: int = 0
) -> dict[str, Estimate]:
    """Return the accuracy and log loss of what is chosen, out of fold, with intervals."""
    losses = np.stack([metrics.losses(labels, repeat) for repeat in found.oof])
    row = metrics.brief(labels, found.oof, losses=losses, groups=groups, seed=seed, out_of_fold=True)
    return {name: Estimate(**row[name]) for name in ("accuracy", "log_loss")}


def _values(found: Comparison, labels: Labels) -> tuple[float, float]:
    """Return the log loss and the accuracy."""
    scores = scores_of(found, labels)
    return scores["log_loss"].value, scores["accuracy"].value
