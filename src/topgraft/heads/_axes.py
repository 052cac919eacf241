"""The rows of a fold as its networks see them: standardised, then projected onto their principal axes.

Features do not change while a head is trained, so a BatchNorm on them needs no running average: its
statistics over all rows of the fold are known before the first step. And a few hundred photos span far fewer
directions than a feature row has numbers: a network on the leading principal axes is as good as one on the
whole row, and much cheaper. Both are linear, so the finished head folds them into its first layer and reads
plain features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft.errors import DataError
from topgraft.fingerprint import digest
from topgraft.heads._layers import Array
from topgraft.heads._parallel import Compute
from topgraft.heads._rows import standardise
from topgraft.splits import holdout
from topgraft.types import Features, Labels

INNER = 0.2
"""Share of a fold's photos kept for early stopping."""
SPARE = 16
"""Directions the search for axes carries beyond those it keeps (Halko and others 2011, section 4.3)."""
POWER_ITERATIONS = 3
"""Power iterations of that search."""
AXES = (64, 512)
"""Principal axes kept: half as many as photos, rounded down to a power of two, between these."""
MOST_KEPT = 2**22
"""Coordinates of a fold that are kept; of more, each epoch makes those it needs."""
SAMPLE = 2048
"""Rows the axes are found on."""


@dataclass(frozen=True)
class Inputs:
    """One fold, ready for its networks.

    Attributes:
        rows: photos (n,) that are trained on.
        stop: photos (m,) of the inner split, for early stopping alone; empty where there were too few.
        projection: (D, K) from a centred feature row to its coordinates, the scale folded in.
        centre: (D,) what is subtracted first.
        coordinates: what `coordinates_of` returns for every view of `rows`, two of (V, n, K), where that is
            not too large to keep.
    """

    rows: Labels
    stop: Labels
    projection: Array
    centre: Array
    coordinates: tuple[Array, Array] | None = None

    def coordinates_of(self, features: Features, view: Any, place: Any) -> tuple[Array, Array]:
        """Return coordinates on the axes, and how far Dropout scatters them.

        Dropout on many features, seen on a few axes, is a sum of many small independent changes: a normal
        deviate. That leaves nothing to be done in the width of the features. Source: Wang and Manning 2013,
        "Fast dropout training".

        Args:
            features: (V, N, D).
            view: which view, one or one for each place.
            place: which of `rows`, from 0.

        Returns:
            (n, K) coordinates; (n, K) their standard deviation under Dropout of one half.
        """
        if self.coordinates is not None:
            return self.coordinates[0][view, place], self.coordinates[1][view, place]
        return self.project(features[view, self.rows[place]])

    def project(self, rows: Features) -> tuple[Array, Array]:
        """Project any feature rows (n, D): what `coordinates_of` returns for rows of the fold."""
        seen: Array = np.asarray(rows, np.float32) - self.centre
        spread: Array = np.sqrt(np.square(seen) @ np.square(self.projection))
        mean: Array = seen @ self.projection
        return mean, spread


def prepare_all(
    features: Features,
    labels: Labels,
    groups: Labels | None,
    folds: Sequence[Labels],
    keys: Iterable[tuple[int, int]],
    *,
    positions: int = 1,
    compute: Compute,
) -> dict[tuple[int, int], Inputs]:
    """Return the inputs of (fold, seed) pairs; the heads of one comparison share what is made of the same."""
    wanted = sorted(set(keys))
    facts = [
        features,
        labels,
        labels if groups is None else groups,
        *folds,
        np.array([*wanted, (positions, 0)]),
    ]
    name = digest(b"".join(digest(np.ascontiguousarray(fact).data).encode() for fact in facts))
    if name not in compute.prepared:
        made = compute.map(
            lambda key: prepare(features, labels, groups, folds[key[0]], seed=key[1], positions=positions),
            wanted,
        )
        compute.prepared[name] = dict(zip(wanted, made, strict=True))
    found: dict[tuple[int, int], Inputs] = compute.prepared[name]
    return found


def prepare(
    features: Features,
    labels: Labels,
    groups: Labels | None,
    photos: Labels,
    *,
    seed: int,
    positions: int = 1,
) -> Inputs:
    """Return the inputs of one fold.

    Args:
        features: (V, N, D).
        labels: (N,) class indices or 0/1 indicators (N, C): what the inner split is stratified by.
        groups: (N,) photos that must stay together.
        photos: the fold's photos to fit on.
        seed: of the inner split.
        positions: how many numbers side by side share their statistics: 1, or h·w of a flattened map.
    """
    rows, stop = _inner(labels, groups, photos, seed)
    count, _, width = features.shape
    block = np.asarray(features[:, rows], np.float32).reshape(count * len(rows), width)
    channels = block.reshape(len(block), -1, positions)
    mean, inverse = standardise(
        channels.sum(axis=(0, 2), dtype=np.float64),
        np.einsum("rcp,rcp->c", channels, channels, dtype=np.float64),
        len(channels) * positions,
    )
    centre = mean.astype(np.float32).repeat(positions)
    scale = inverse.astype(np.float32).repeat(positions)
    basis = _principal((block[_thinned(len(block), len(rows))] - centre) * scale, _axes(len(rows)))
    projection = np.ascontiguousarray(scale[:, None] * basis)
    given = Inputs(rows=rows, stop=stop, projection=projection, centre=centre)
    if block.shape[0] * projection.shape[1] > MOST_KEPT:
        return given
    seen, spread = (part.reshape(count, len(rows), -1) for part in given.project(block))
    return replace(given, coordinates=(seen, spread))


def _axes(photos: int) -> int:
    return int(np.clip(2 ** int(np.log2(max(photos, 2) / 2)), *AXES))


def _inner(labels: Labels, groups: Labels | None, photos: Labels, seed: int) -> tuple[Labels, Labels]:
    try:
        fit, stop = holdout(labels[photos], None if groups is None else groups[photos], INNER, seed)
    except DataError:  # too few photos to keep some apart: no early stopping
        return photos, photos[:0]
    return photos[fit], photos[stop]


def _thinned(count: int, photos: int) -> NDArray[np.int64]:
    """Choose rows for the axes: all of view 0, then evenly from the other views."""
    if count <= max(SAMPLE, photos):
        return np.arange(count)
    rest = max(SAMPLE - photos, 0)
    return np.concatenate([np.arange(photos), np.linspace(photos, count - 1, rest).astype(np.int64)])


def _principal(rows: Array, axes: int) -> Array:
    """Find the leading principal axes (D, K) of centred rows by randomised subspace iteration.

    Source: Halko, Martinsson and Tropp 2011, "Finding structure with randomness", algorithm 4.4.
    """
    width = min(*rows.shape, axes)
    if width == rows.shape[1]:
        return np.eye(width, dtype=np.float32)
    start = np.random.default_rng(0x70F5).standard_normal((rows.shape[1], min(axes + SPARE, rows.shape[1])))
    basis = _orthonormal(start.astype(np.float32))
    for _ in range(POWER_ITERATIONS):
        basis = _orthonormal(rows.T @ (rows @ basis))
    found = basis @ _leading(rows @ basis)[1][:, :width]
    largest = found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])]
    # The sign of an axis is arbitrary: fix it, so that the same rows give the same network.
    return np.asarray(found * np.sign(largest), np.float32)


def _orthonormal(columns: Array) -> Array:
    """Span the same space with orthonormal columns: many times faster than a QR of a tall matrix."""
    values, vectors = _leading(columns)
    kept = values > values[0] * 1e-10
    return np.asarray(columns @ (vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32))


def _leading(columns: Array) -> tuple[NDArray[np.float64], Array]:
    """Return the eigenvalues and eigenvectors of the columns' inner products, the largest first."""
    tall = columns.astype(np.float64)
    values, vectors = np.linalg.eigh(tall.T @ tall)
    return values[::-1], vectors[:, ::-1].astype(np.float32)
