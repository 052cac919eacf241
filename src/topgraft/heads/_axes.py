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

from topgraft.errors import DataError
from topgraft.heads._layers import Array
from topgraft.heads._parallel import Compute, content
from topgraft.heads._principal import principal, thinned
from topgraft.heads._rows import standardise
from topgraft.splits import holdout
from topgraft.types import Features, Labels

INNER = 0.2
"""Share of a fold's photos kept for early stopping."""
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
    shared = [features, labels, labels if groups is None else groups]
    name = content([*shared, *folds], f"{wanted} {positions}")
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
    basis = principal((block[thinned(len(block), len(rows), SAMPLE)] - centre) * scale, _axes(len(rows)))
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
