"""Temperature scaling: how sure a head may be, learned from answers on photos it was not fitted on."""

from __future__ import annotations

import numpy as np

from topgraft.heads._base import Fold, as_indicators, to_probabilities
from topgraft.types import Labels, Logits, Probabilities

MOST = 2000  # one number needs no more photos than that
SHARPEST, FLATTEST, SILENT = 0.01, 20.0, 1000.0  # times the spread: some heads' own scale means nothing
MISTAKES = 3.0
"""Mistakes a head always expects on the photos it is calibrated on: n photos answered right do not rule out
that 3 in n are wrong (the rule of three: Hanley & Lippman-Hand 1983, JAMA 249)."""


def calibrate(logits: Logits, labels: Labels, *, multilabel: bool = False) -> float:
    """Return the temperature that makes held-out answers most likely (Guo et al. 2017).

    One that expects fewer than 3 of these photos to be answered wrong is raised until it expects 3: else a
    few photos that are all answered right would make the head infinitely sure. It binds only where nearly
    all are right. It lies between 0.01 and 20 times the spread of the logits, or 1000 for the 3 mistakes.

    Args:
        logits: (N, C) of photos the head was not fitted on, or (R, N, C) for R repeats.
        labels: (N,) class indices, or 0/1 indicators (N, C).
        multilabel: True where a photo may carry several labels: then 3 of the N·C answers.

    Returns:
        What logits are divided by: above 1 makes the head less sure.
    """
    from scipy.optimize import brentq, minimize_scalar

    stack = logits.reshape(-1, *logits.shape[-2:])
    if not multilabel:
        stack = stack - stack.mean(axis=2, keepdims=True)
    target = as_indicators(labels, stack.shape[2])
    chosen = np.unique(np.linspace(0, len(target) - 1, min(len(target), MOST)).astype(np.int64))
    stack, target = stack[:, chosen], target[chosen]
    unit = spread(stack, multilabel=multilabel)
    answers = labels.size
    most = 0.9 * answers * (0.5 if multilabel else 1 - 1 / stack.shape[2])

    def loss(log_temperature: float) -> float:
        scaled = stack / (unit * np.exp(log_temperature))
        if multilabel:
            return float((np.logaddexp(0, scaled) - target * scaled).sum(axis=2).mean())
        top = scaled.max(axis=2, keepdims=True)
        total = np.log(np.exp(scaled - top).sum(axis=2)) + top[:, :, 0]
        return float((total - (target * scaled).sum(axis=2)).mean())

    def missing(log_temperature: float) -> float:
        """How many more mistakes than expected there should be."""
        probabilities = to_probabilities(
            stack, multilabel=multilabel, temperature=unit * np.exp(log_temperature)
        )
        wrong = np.minimum(probabilities, 1 - probabilities) if multilabel else 1 - probabilities.max(axis=2)
        return float(min(MISTAKES, most) - wrong.mean() * answers)

    found = minimize_scalar(
        loss, bounds=(np.log(SHARPEST), np.log(FLATTEST)), method="bounded", options={"xatol": 1e-3}
    ).x
    if missing(found) > 0:
        end = np.log(SILENT)
        found = brentq(missing, found, end, xtol=1e-4) if missing(end) < 0 else end
    return float(unit * np.exp(found))


def spread(stack: Logits, *, multilabel: bool) -> float:
    """Return how far the logits (R, N, C) of the median photo lie apart, or from 0 with several labels."""
    centred = stack if multilabel else stack - stack.mean(axis=2, keepdims=True)
    return float(np.median(np.sqrt((centred**2).mean(axis=2)))) or 1.0


def cross_calibrate(
    logits: Logits,
    labels: Labels,
    folds: list[Fold],
    *,
    multilabel: bool = False,
) -> Probabilities:
    """Return the probabilities of out-of-fold logits (N, C), each fold's temperature from the other folds."""
    found = np.empty_like(logits)
    for _, score in folds:
        others = np.ones(len(logits), bool)
        others[score] = False
        temperature = calibrate(logits[others], labels[others], multilabel=multilabel)
        found[score] = to_probabilities(logits[score], multilabel=multilabel, temperature=temperature)
    return found
