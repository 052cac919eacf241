"""The rows that linear heads are solved on: every group of columns standardised and on its own axes.

A row of every depth has three groups of columns: the last layer's features, and the means and the spreads of
all blocks. How much each counts is a setting of the head, `depths`; so what is dear is done once a fold, and
a combination of groups is a multiplication.

- Standardised with a floor: a column is divided by the root of its variance and of its block's mean variance
  together. By its own alone, one that hardly ever varies (a unit that is nearly always 0) would be as loud as
  any other; that costs up to 5 points of accuracy on few photos.
- Each group's total variance becomes `WIDTH` times its share, whatever its width. So the strengths of
  penalties mean the same for every combination and every backbone.
- A few hundred photos span far fewer directions than a row has numbers: each group is projected onto its
  principal axes, all of them where rows are few.

All of it is linear, so the finished head folds it into one weight matrix on plain rows. Source of the idea:
Evci and others 2022, Head2Toe (arXiv:2201.03529).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from topgraft.backbones.depths import Depths
from topgraft.errors import DataError
from topgraft.heads._base import Fold, as_indicators, as_views
from topgraft.heads._layers import Array
from topgraft.heads._parallel import Compute, content
from topgraft.heads._principal import principal, span, thinned
from topgraft.types import Features, Labels

Array64 = NDArray[np.float64]
"""Double precision, as fits are solved in; what is stored and exported is `Array`."""

SHARES: dict[str, dict[str, float]] = {
    "last": {"last": 1.0},
    "mostly-last": {"last": 0.8, "means": 0.1, "spreads": 0.1},
    "equal": {"last": 0.5, "means": 0.25, "spreads": 0.25},
    "mostly-blocks": {"last": 0.2, "means": 0.4, "spreads": 0.4},
    "blocks": {"means": 0.5, "spreads": 0.5},
}
"""What share of the total variance each group of columns has, by the name of the setting."""
WIDTH = 1280
"""The total variance of standardised rows: grids of strengths were laid for so many features."""
LOUDEST = 0.9
"""The quantile of a block's variances above which one counts no more for the floor: networks have a few
units that are a thousand times louder than the rest (Sun and others 2024, arXiv:2402.17762)."""
AXES = (256, 1024)
"""Principal axes of the last layer that are kept: twice as many as photos, between these; half as many of the
means and of the spreads."""
SAMPLE = 4096
"""Rows the axes are found on."""
CHUNK = 4096
"""Rows taken to double precision at once."""


@dataclass(frozen=True)
class Group:
    """One group of columns, as it is on the rows of one fold.

    Attributes:
        columns: which.
        mean, scale: (w,) z = (x - mean) * scale, of total variance WIDTH.
        axes: (w, r) orthonormal columns that z is projected onto; None where all of z is kept.
    """

    columns: slice
    mean: Array64
    scale: Array64
    axes: Array | None

    @property
    def width(self) -> int:
        """How many coordinates it has."""
        return len(self.scale) if self.axes is None else int(self.axes.shape[1])

    def coordinates(self, rows: Features) -> Array:
        """Return rows (n, W) of all columns on this group's axes, (n, r)."""
        z = (rows[:, self.columns].astype(np.float32) - self.mean.astype(np.float32)) * self.scale.astype(
            np.float32
        )
        return z if self.axes is None else np.asarray(z @ self.axes)

    def plain(self, weight: Array64) -> Array64:
        """Convert weights (r, C) on the axes into weights (w, C) on the plain columns."""
        return np.asarray((weight if self.axes is None else self.axes @ weight) * self.scale[:, None])


@dataclass(frozen=True)
class TrainingRows:
    """The rows that one linear head is fitted on, at one setting of `depths`: z * roots.

    They are not multiplied out: of thousands of photos' views z alone is hundreds of megabytes a fold. All
    settings of `depths` look at the same z; where there are fewer rows than axes it is small, and their own.

    Attributes:
        z: (R, r) float32.
        roots: (r,) float32, of each column the square root of its group's share; 1 where z is of its own.
        held: (n, r) float32, view 0 of the photos to score, in the coordinates of z * roots.
        gram: (r, r) the weighted mean of (z * roots)(z * roots)ᵀ.
        indicators: (R, C) 1 where a row is of the class.
        weight: (R,) sums to the number of photos: the views of a photo share its weight.
        photos: n, how many photos the rows come from.
        views: V.
        multilabel: True where a photo may carry several labels.
        groups: those that z is made of, each with the square root of its share.
        basis: (sum of the groups' axes, r) what z was turned by, where there are fewer rows than axes.
    """

    z: Array
    roots: Array
    held: Array
    gram: Array64
    indicators: Array64
    weight: Array64
    photos: int
    views: int
    multilabel: bool
    groups: Sequence[tuple[Group, float]]
    basis: Array64 | None

    @property
    def classes(self) -> int:
        """C."""
        return int(self.indicators.shape[1])

    @cached_property
    def centre(self) -> Array64:
        """(r,) the weighted mean."""
        return self.sums(self.weight) / self.photos

    def sums(self, of: Array64) -> Array64:
        """Return (z * roots)ᵀ times numbers of every row (R,) or (R, C), some rows at a time, as `_gram`."""
        starts = range(0, len(self.z), CHUNK)
        parts = (self.z[at : at + CHUNK].astype(np.float64).T @ of[at : at + CHUNK] for at in starts)
        found = sum(parts, np.zeros((self.z.shape[1], *of.shape[1:])))
        return np.asarray((found.T * self.roots).T, np.float64)

    @cached_property
    def covariance(self) -> Array64:
        """(r, r) the weighted covariance."""
        return self.gram - np.outer(self.centre, self.centre)

    def fold_in(self, weight: Array64, bias: Array64) -> tuple[Array64, Array64]:
        """Convert weights (r, C) on z * roots into weights (W, C) and a bias (C,) on plain rows.

        W ends with the last column that is read: a head on the last layer alone needs no others.
        """
        turned = weight if self.basis is None else self.basis @ weight
        plain = np.zeros((max(group.columns.stop for group, _ in self.groups), weight.shape[1]))
        mean, start = np.zeros(len(plain)), 0
        for group, root in self.groups:
            plain[group.columns] = group.plain(root * turned[start : start + group.width])
            mean[group.columns] = group.mean
            start += group.width
        return plain, bias - mean @ plain


@dataclass(frozen=True)
class FoldRows:
    """All that is prepared of one fold, before it is said what share each group has.

    Attributes:
        groups: the groups of columns, by name.
        z: (R, r) float32, all rows to fit on, the groups' coordinates side by side.
        held: (n, r) float32, view 0 of the photos to score.
        indicators, weight, photos, views, multilabel: as in `TrainingRows`.
    """

    groups: dict[str, Group]
    z: Array
    held: Array
    indicators: Array64
    weight: Array64
    photos: int
    views: int
    multilabel: bool

    @property
    def classes(self) -> int:
        """C."""
        return int(self.indicators.shape[1])

    @cached_property
    def gram(self) -> Array64:
        """(r, r) the weighted mean of z zᵀ: a combination of groups scales it."""
        return _gram(self.z, self.weight / self.photos)

    def at(self, depths: str) -> TrainingRows:
        """Return the rows at one setting of `depths`.

        Raises:
            DataError: where it needs blocks and there are none.
        """
        shares = SHARES[depths]
        if lost := shares.keys() - self.groups.keys():
            raise DataError(
                f"depths={depths}: expected block features beside the last layer's, found no"
                f" {' and no '.join(sorted(lost))}. Embed the photos again, or give --depths last."
            )
        roots, start = np.zeros(self.z.shape[1], np.float32), 0
        for name, group in self.groups.items():
            roots[start : start + group.width] = np.sqrt(shares.get(name, 0.0))
            start += group.width
        places = np.flatnonzero(roots)
        read = slice(places[0], places[-1] + 1)  # groups lie side by side: a view of z, no copy
        z, roots, basis = self.z[:, read], roots[read], None
        held = self.held[:, read] * roots
        if len(z) < len(roots):
            # Fewer rows than axes: all that matters happens in the space the rows span (QR loses nothing).
            basis, triangle = np.linalg.qr((z * roots).T.astype(np.float64))
            z, held = np.ascontiguousarray(triangle.T, np.float32), (held @ basis).astype(np.float32)
            roots = np.ones(z.shape[1], np.float32)
            gram = _gram(z, self.weight / self.photos)
        else:
            gram = self.gram[read, read] * np.outer(roots, roots)
        return TrainingRows(
            z=z,
            roots=roots,
            held=held,
            gram=gram,
            indicators=self.indicators,
            weight=self.weight,
            photos=self.photos,
            views=self.views,
            multilabel=self.multilabel,
            groups=[(self.groups[name], float(np.sqrt(share))) for name, share in shares.items()],
            basis=basis,
        )


def _gram(z: Array, weight: Array64) -> Array64:
    """Add up in double precision, some rows at a time: they are many, and double precision is wide."""
    found = np.zeros((z.shape[1], z.shape[1]))
    for at in range(0, len(z), CHUNK):
        part = z[at : at + CHUNK] * np.sqrt(weight[at : at + CHUNK, None])
        found += part.T @ part  # of an array with itself: half the work
    return found


def prepare_folds(
    features: Features,
    labels: Labels,
    folds: Sequence[Fold],
    *,
    classes: int,
    sample_weight: NDArray[np.float64] | None,
    depths: Depths | None,
    compute: Compute,
) -> list[FoldRows]:
    """Return every fold's rows; the heads of one comparison share what is made of the same.

    Args:
        features: (V, N, W) or (N, W).
        labels: (N,) class indices, or 0/1 indicators (N, C).
        folds: F pairs (photos to fit on, photos to score).
        classes: C.
        sample_weight: (N,) or None.
        depths: which columns are which; None: all are the last layer's.
        compute: cores, and what was prepared.
    """
    shared = [features, labels] if sample_weight is None else [features, labels, sample_weight]
    same = content(shared, f"{classes} {depths}")
    names = [content(fold, same) for fold in folds]

    def make(fold: Fold) -> FoldRows:
        return prepare_fold(
            features, labels, fold, classes=classes, sample_weight=sample_weight, depths=depths
        )

    missing = [place for place, name in enumerate(names) if name not in compute.prepared]
    for place, made in zip(missing, compute.map(make, [folds[place] for place in missing]), strict=True):
        compute.prepared[names[place]] = made
    return [compute.prepared[name] for name in names]


def prepare_fold(
    features: Features,
    labels: Labels,
    fold: Fold,
    *,
    classes: int,
    sample_weight: NDArray[np.float64] | None,
    depths: Depths | None,
) -> FoldRows:
    """Return one fold's rows; see `prepare_folds`."""
    fit, score = fold
    stack, n = as_views(features), len(fit)
    chosen = thinned(len(stack) * n, n, SAMPLE)
    sample = stack[chosen // n, fit[chosen % n]]
    groups = {}
    for name, group in _groups(stack, fit, depths).items():
        most = int(np.clip(2 * n, *AXES)) // (1 if name == "last" else 2)
        groups[name] = replace(group, axes=_axes(group.coordinates(sample), most))

    def coordinates(rows: Features) -> Array:
        return np.concatenate([group.coordinates(rows) for group in groups.values()], axis=1)

    weight = np.ones(n) if sample_weight is None else sample_weight[fit].astype(np.float64)
    width = sum(group.width for group in groups.values())
    z = np.empty((len(stack), n, width), np.float32)
    for own, view in zip(z, stack, strict=True):
        for at in range(0, n, CHUNK):
            own[at : at + CHUNK] = coordinates(view[fit[at : at + CHUNK]])
    return FoldRows(
        groups=groups,
        z=z.reshape(-1, width),
        held=coordinates(stack[0, score]),
        indicators=np.tile(as_indicators(labels[fit], classes), (len(stack), 1)),
        weight=np.tile(weight * (n / weight.sum()) / len(stack), len(stack)),
        photos=n,
        views=len(stack),
        multilabel=labels.ndim == 2,
    )


def standard(
    features: Features, photos: Labels, depths: Depths | None, shares: Mapping[str, float]
) -> tuple[Array64, Array64]:
    """Return mean and scale (W,) that standardise rows as a linear head's are: z = (x - mean) * scale.

    Args:
        features: (V, N, W) or (N, W).
        photos: indices of those it goes by.
        depths: which columns are which; None: all are the last layer's.
        shares: of each group of columns in the total variance, as in `SHARES`; of others it is 0.
    """
    stack = as_views(features)
    mean, scale = np.zeros(stack.shape[2]), np.zeros(stack.shape[2])
    for name, group in _groups(stack, photos, depths).items():
        mean[group.columns] = group.mean
        scale[group.columns] = group.scale * np.sqrt(shares.get(name, 0.0))
    return mean, scale


def _groups(stack: Features, fit: Labels, depths: Depths | None) -> dict[str, Group]:
    """Return the groups of columns, standardised on some photos of (V, N, W), without axes."""
    count, sums, squares = len(stack) * len(fit), 0.0, 0.0
    for view in stack:
        x = view[fit].astype(np.float32)
        sums = sums + x.sum(axis=0, dtype=np.float64)
        squares = squares + np.einsum("rd,rd->d", x, x, dtype=np.float64)
    mean, variance = moments(np.asarray(sums), np.asarray(squares), count)
    inverse = floored(variance, _blocks(depths, stack.shape[2]))
    groups = {}
    for name, part in (depths or Depths(stack.shape[2])).groups().items():
        total = float(variance[part] @ inverse[part] ** 2)
        scale = inverse[part] * (np.sqrt(WIDTH / total) if total > 0 else 0.0)
        groups[name] = Group(part, mean[part], scale, None)
    return groups


def _axes(z: Array, most: int) -> Array | None:
    """Return the axes (w, r) of rows z (n, w): all there are, or the leading `most`; None for z as it is."""
    if z.shape[1] <= min(len(z), most):
        return None
    return span(z) if len(z) <= most else principal(z, most)


def _blocks(depths: Depths | None, width: int) -> list[slice]:
    """Return the columns that share a floor: the last layer's, and each block's means and spreads."""
    if depths is None:
        return [slice(0, width)]
    blocks = [
        depths.columns(block.name, statistic) for block in depths.blocks for statistic in ("means", "spreads")
    ]
    return [slice(0, depths.last), *blocks]


def moments(sums: Array64, squares: Array64, n: float) -> tuple[Array64, Array64]:
    """Return (mean, variance) from sums and sums of squares (D,) over n rows.

    The variance of a feature that does not vary, up to the rounding of float32 features, is 0.
    """
    mean = sums / n
    variance = np.maximum(squares / n - mean**2, 0)
    return mean, np.where(np.sqrt(variance) > 1e-9 + 1e-6 * np.abs(mean), variance, 0.0)


def floored(variance: Array64, blocks: Sequence[slice]) -> Array64:
    """Return (D,) what centred columns are multiplied by: 1 / sqrt(variance + mean variance of the block)."""
    found = np.zeros(len(variance))
    for block in blocks:
        own = variance[block]
        floor = np.minimum(own, np.quantile(own, LOUDEST)).mean()
        found[block] = 1 / np.sqrt(np.maximum(own + floor, 1e-30)) if own.any() else 0.0
    return found


def standardise(sums: Array64, squares: Array64, n: float) -> tuple[Array64, Array64]:
    """Return (mean, 1 / standard deviation) from sums and sums of squares (D,) over n rows.

    A feature that does not vary, up to the rounding of float32 features, gets 0.
    """
    mean, variance = moments(sums, squares, n)
    return mean, np.where(variance > 0, 1 / np.sqrt(np.maximum(variance, 1e-60)), 0.0)
