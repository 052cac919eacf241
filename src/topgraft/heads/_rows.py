"""The rows a linear head is solved on: standardised, weighted, and projected onto the space they span."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topgraft.heads._base import as_indicators, as_views
from topgraft.types import Features, Labels

Array64 = NDArray[np.float64]
"""Double precision, as fits are solved in; what is stored and exported is `Array`."""


@dataclass(frozen=True)
class TrainingRows:
    """The rows that one linear head is fitted on.

    Attributes:
        z: (R, r) float32, standardised rows; projected where there are fewer rows than features.
        projection: (D, r) with orthonormal columns, or None where z is not projected.
        indicators: (R, C) 1 where a row is of the class.
        weight: (R,) sums to the number of photos: the views of a photo share its weight.
        photos: n, how many photos the rows come from.
        views: V.
        mean, inverse: (D,) z = (x - mean) * inverse; 0 for a feature that does not vary.
        multilabel: True where a photo may carry several labels.
    """

    z: NDArray[np.float32]
    projection: Array64 | None
    indicators: Array64
    weight: Array64
    photos: int
    views: int
    mean: Array64
    inverse: Array64
    multilabel: bool

    @property
    def classes(self) -> int:
        """C."""
        return int(self.indicators.shape[1])

    def fold_in(self, weight: Array64, bias: Array64) -> tuple[Array64, Array64]:
        """Convert weights (r, C) on z into weights (D, C) and a bias (C,) on plain features."""
        plain = (self.projection @ weight if self.projection is not None else weight) * self.inverse[:, None]
        return plain, bias - self.mean @ plain


def standardise(sums: Array64, squares: Array64, n: float) -> tuple[Array64, Array64]:
    """Return (mean, 1 / standard deviation) from sums and sums of squares (D,) over n rows.

    A feature that does not vary, up to the rounding of float32 features, gets 0.
    """
    mean = sums / n
    variance = np.maximum(squares / n - mean**2, 0)
    floor = 1e-9 + 1e-6 * np.abs(mean)
    spread = np.sqrt(variance)
    return mean, np.where(spread > floor, 1 / np.maximum(spread, 1e-30), 0.0)


def training_rows(
    features: Features,
    labels: Labels,
    photos: Labels,
    *,
    classes: int,
    sample_weight: NDArray[np.float64] | None,
) -> TrainingRows:
    """Return the standardised, weighted rows of all views of some photos.

    Args:
        features: (V, N, D) or (N, D).
        labels: (N,) class indices, or 0/1 indicators (N, C).
        photos: (n,) indices into N.
        classes: C.
        sample_weight: (N,) or None.
    """
    stack = as_views(features)
    views, n, width = len(stack), len(photos), stack.shape[2]
    x = np.array(stack[:, photos], np.float32).reshape(views * n, width)
    mean, inverse = standardise(
        x.sum(axis=0, dtype=np.float64), np.einsum("rd,rd->d", x, x, dtype=np.float64), len(x)
    )
    x -= mean.astype(np.float32)
    x *= inverse.astype(np.float32)
    z = x
    projection = None
    if len(z) < width:
        # Fewer rows than features: all that matters happens in the space the rows span (QR loses nothing).
        basis, triangle = np.linalg.qr(z.T.astype(np.float64))
        projection, z = basis, np.ascontiguousarray(triangle.T, np.float32)
    weight = np.ones(n) if sample_weight is None else sample_weight[photos].astype(np.float64)
    return TrainingRows(
        z=z,
        projection=projection,
        indicators=np.tile(as_indicators(labels[photos], classes), (views, 1)),
        weight=np.tile(weight * (n / weight.sum()) / views, views),
        photos=n,
        views=views,
        mean=mean,
        inverse=inverse,
        multilabel=labels.ndim == 2,
    )
