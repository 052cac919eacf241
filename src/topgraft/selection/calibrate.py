"""Temperature scaling: how sure a head may be, learned from answers on photos it was not fitted on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topgraft.heads._base import Fold, as_indicators, to_probabilities
from topgraft.types import Labels, Logits, Probabilities

MOST = 4000  # one number needs no more photos than that
SHARPEST, FLATTEST = 0.05, 20.0  # times the spread of the logits: some heads' own scale means nothing
PRIOR, PRIOR_SPREAD, PRIOR_PHOTOS = (
    float(np.log(2)),
    1.0,
    3.0,
)  # the log temperature expected, and how strongly


def calibrate(logits: Logits, labels: Labels, *, multilabel: bool = False) -> float:
    """Return the temperature that makes held-out answers most likely (Guo et al. 2017).

    A label counts as certain only as far as n photos allow, (n_c + 1)/(n_c + 2) of class c (Platt 1999):
    else a few photos that are all answered right would make the head infinitely sure. A few photos answered
    wrong, in turn, would make it say nothing: so the log temperature has a normal prior worth three photos,
    which hundreds of photos drown, and stays within 0.05 and 20 times the spread of the logits.

    Args:
        logits: (N, C) of photos the head was not fitted on, or (R, N, C) for R repeats.
        labels: (N,) class indices, or 0/1 indicators (N, C).
        multilabel: True where a photo may carry several labels.

    Returns:
        What logits are divided by: above 1 makes the head less sure.
    """
    from scipy.optimize import minimize_scalar

    stack = logits.reshape(-1, *logits.shape[-2:])
    classes = stack.shape[2]
    target = soften(as_indicators(labels, classes), multilabel=multilabel)
    chosen = np.unique(np.linspace(0, len(target) - 1, min(len(target), MOST)).astype(np.int64))
    stack, target = stack[:, chosen], target[chosen]

    def loss(log_temperature: float) -> float:
        scaled = stack / (unit * np.exp(log_temperature))
        if multilabel:
            losses = (np.logaddexp(0, scaled) - target * scaled).sum(axis=2)
        else:
            top = scaled.max(axis=2, keepdims=True)
            total = np.log(np.exp(scaled - top).sum(axis=2)) + top[:, :, 0]
            losses = total - (target * scaled).sum(axis=2)
        return float(losses.mean() + belief * (log_temperature - PRIOR) ** 2)

    unit = spread(stack, multilabel=multilabel)
    belief = PRIOR_PHOTOS / (2 * PRIOR_SPREAD**2 * len(labels))
    found = minimize_scalar(
        loss, bounds=(np.log(SHARPEST), np.log(FLATTEST)), method="bounded", options={"xatol": 1e-4}
    )
    return float(unit * np.exp(found.x))


def spread(stack: Logits, *, multilabel: bool) -> float:
    """Return how far the logits (R, N, C) of the median photo lie apart, or from 0 with several labels."""
    centred = stack if multilabel else stack - stack.mean(axis=2, keepdims=True)
    return float(np.median(np.sqrt((centred**2).mean(axis=2)))) or 1.0


def soften(indicators: NDArray[np.float64], *, multilabel: bool) -> NDArray[np.float64]:
    """Return labels less the 1/(n_c + 2) of class c that its n_c photos cannot rule out (Platt 1999)."""
    counts = indicators.sum(axis=0)
    doubt = 1 / (counts + 2)
    if multilabel:
        absent = 1 / (len(indicators) - counts + 2)
        return np.asarray(np.where(indicators > 0, 1 - doubt, absent))
    own = indicators @ doubt
    others = own / max(indicators.shape[1] - 1, 1)
    return np.asarray(np.where(indicators > 0, 1 - own[:, None], others[:, None]))


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
