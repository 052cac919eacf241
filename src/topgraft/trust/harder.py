"""Whether photos are harder than those a run was trained on: by accuracy, and by their distance from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft.metrics import Estimate, affordable, apart, percentile, ranking, resample
from topgraft.types import Labels


@dataclass(frozen=True)
class Harder:
    """New photos beside a run's own, each of those judged by what was not fitted on it.

    Attributes:
        accuracy: of the new photos minus the cross-validated one.
        further: the share of pairs, a new photo and one of the run's own, in which the new one lies further
            from the training photos; one half where neither does.
        here, there: the median distances, of new photos and of the run's own.
    """

    accuracy: Estimate
    further: Estimate
    here: float
    there: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "accuracy": self.accuracy.as_dict(),
            "further": self.further.as_dict(),
            "distance": {"here": self.here, "there": self.there},
        }

    def __str__(self) -> str:
        gap = f"accuracy {_signed(self.accuracy)} against cross-validation"
        far = (
            f"distance to the training photos: median {self.here:.3g} here, {self.there:.3g} among"
            f" themselves; a photo of these lies further in {self.further.value:.0%} of pairs"
            f" [{self.further.low:.2f}, {self.further.high:.2f}]"
        )
        strange = self.further.low > 0.5
        if self.accuracy.high < 0:
            why = "" if strange else ", so it is not strangeness: look at the labels and at the mistakes"
            return f"This folder is harder than what it was trained on: {gap} ({far}){why}."
        if self.accuracy.low > 0:
            return f"This folder is easier than what it was trained on: {gap} ({far})."
        if strange:
            return f"These photos are unlike those it was trained on ({far}), yet no harder: {gap}."
        return f"This folder is about as hard as what it was trained on: {gap} ({far})."


def harder(
    accuracy: Estimate,
    usual: Estimate,
    here: NDArray[np.float64],
    there: NDArray[np.float64],
    groups: Labels | None = None,
    *,
    seed: int = 0,
) -> Harder:
    """Return how photos compare with those a run was trained on.

    Args:
        accuracy: on the photos.
        usual: cross-validated, on the run's own.
        here: (N,) the photos' distances to the training photos.
        there: (M,) the run's own, out of fold.
        groups: (N,) photos that count as one, or None.
        seed: of the bootstrap.
    """
    both = np.concatenate([here, there])
    draws = affordable(len(both))
    weights = np.concatenate(
        [
            np.ones((1, len(both))),
            np.hstack(
                [
                    resample(len(here), groups, seed=seed, draws=draws),
                    resample(len(there), seed=seed + 1, draws=draws),
                ]
            ),
        ]
    )
    (value, *drawn), _ = ranking(np.arange(len(both)) < len(here), both, weights)
    return Harder(
        apart(accuracy, usual),
        percentile(float(value), np.array(drawn)),
        float(np.median(here)),
        float(np.median(there)),
    )


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"
