"""Confidence against coverage: how many photos are answered above a threshold, and how many rightly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft.metrics import OUT_OF_FOLD, Estimate, affordable, effective, percentile, resample, wilson
from topgraft.types import Labels

SAID_ABOVE = 0.9
"""The threshold that is spoken of where none was asked for."""
SHOWN = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Thresholds that a table shows."""
POINTS = 100
"""Points of the curve that are kept."""


@dataclass(frozen=True)
class Coverage:
    """The risk-coverage curve of answers (El-Yaniv & Wiener 2010, JMLR 11:1605).

    Attributes:
        sure: (N,) how sure each answer is, surest first.
        right: (N,) whether it is right, 1 or 0, in the same order.
        groups: (N,) photos that count as one, in the same order, or None.
        each: what a photo is worth (`OUT_OF_FOLD`); 1 where it was held out.
        area: the mean share of wrong answers over all coverages, 0 where none is wrong.
    """

    sure: NDArray[np.float64]
    right: NDArray[np.float64]
    groups: Labels | None
    each: float
    area: Estimate

    def at(self, threshold: float) -> dict[str, Any]:
        """Return what answering only at or above a threshold comes to.

        Returns:
            `above`, the share `answered` with its interval, and the share of those `right` (None where
            nothing is answered).
        """
        n = len(self.sure)
        worth = self.each * effective(self.groups, n) / n
        count = int((self.sure >= threshold).sum())
        hits = float(self.right[:count].sum())
        return {
            "above": threshold,
            "answered": wilson(count * worth, n * worth).as_dict(),
            "right": wilson(hits * worth, count * worth).as_dict() if count else None,
        }

    def threshold_for(self, right: float) -> float | None:
        """Return the lowest threshold above which at least this share of the answers is right.

        Whatever lies above any higher one may be less right by chance; the whole of what is answered counts.
        So many must have been right, and their probabilities must say so too: the lowest threshold is where
        chance was kind, and 40 of 40 right do not tell that none in a hundred is wrong. Measured in
        docs/decide.md.

        Returns:
            the threshold, halfway to the next less sure answer; None where no threshold reaches the share.
        """
        answered = np.arange(1, len(self.right) + 1)
        shares = np.minimum(np.cumsum(self.right), np.cumsum(self.sure)) / answered
        last = np.append(self.sure[1:] < self.sure[:-1], True)  # answers equally sure stay together
        good = np.flatnonzero((shares >= right) & last)
        if not len(good):
            return None
        place = int(good[-1])
        below = self.sure[place + 1] if place + 1 < len(self.sure) else 0.0
        return float((self.sure[place] + below) / 2)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: the area, a table, and the curve in at most 100 points."""
        n = len(self.sure)
        places = np.unique(np.linspace(0, n - 1, min(POINTS, n)).astype(int))
        shares = np.cumsum(self.right) / np.arange(1, n + 1)
        return {
            "area": self.area.as_dict(),
            "table": [self.at(threshold) for threshold in SHOWN],
            "curve": [
                {"above": float(self.sure[i]), "answered": (int(i) + 1) / n, "right": float(shares[i])}
                for i in places
            ],
        }


def coverage(
    sure: NDArray[np.float64],
    right: NDArray[np.float64],
    groups: Labels | None = None,
    *,
    seed: int = 0,
    out_of_fold: bool = True,
) -> Coverage:
    """Return the risk-coverage curve of answers for photos that were not learned from.

    Args:
        sure: (N,) how sure each answer is.
        right: (N,) 1 where it is right, else 0.
        groups: (N,) photos that are drawn together, or None.
        seed: of the bootstrap of the area's interval.
        out_of_fold: they were given out of fold, not for photos held out: intervals are wider.
    """
    order = np.argsort(-sure, kind="stable")
    sure, right = sure[order], right[order].astype(np.float64)
    members = None if groups is None else np.asarray(groups)[order]
    each = OUT_OF_FOLD if out_of_fold else 1.0
    draws = resample(len(sure), members, seed=seed, draws=affordable(len(sure)))
    area = float(area_under(np.ones((1, len(sure))), right)[0])
    apart = (area_under(draws, right) - area) / np.sqrt(each)
    return Coverage(sure, right, members, each, percentile(area, np.clip(area + apart, 0, 1)))


def area_under(weights: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under the curve where photos count (B, N) times, the surest first: (B,)."""
    answered = np.cumsum(weights, axis=1)
    wrong = np.cumsum(weights * (1 - right), axis=1)
    risk = np.divide(wrong, answered, out=np.zeros_like(wrong), where=answered > 0)
    return np.asarray((weights * risk).sum(axis=1) / answered[:, -1])


def in_words(found: dict[str, Any]) -> str:
    """Say in a sentence what answering above a threshold comes to."""
    answered, right = found["answered"]["value"], found["right"]
    if right is None:
        return f"Answered only above {found['above']:.0%}: no photo is answered."
    return (
        f"Answered only above {found['above']:.0%}: {answered:.0%} of photos answered,"
        f" {right['value']:.0%} of them right [{right['low']:.2f}, {right['high']:.2f}]."
    )
