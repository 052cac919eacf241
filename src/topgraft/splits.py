"""Who is fitted on and who is scored: stratified by label, no group on two sides, whatever the layout.

Groups are dealt one by one, the largest first, each to the side where it lifts the chi-square distance to the
wanted shares least. For single photos that is the Sainte-Laguë rule, so every class is divided as evenly as
whole photos allow. (scikit-learn's StratifiedGroupKFold has no unequal shares, may leave a fold empty, and
takes a second to import.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft.errors import DataError, UsageError
from topgraft.types import Labels


@dataclass(frozen=True)
class Split:
    """Which samples are for what, by id. `val` may be empty: cross-validation needs none."""

    train: tuple[str, ...]
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


def holdout(labels: Labels, groups: Labels | None, test: float, seed: int = 0) -> tuple[Labels, Labels]:
    """Keep a share of the photos apart.

    Args:
        labels: (N,) class indices, or a 0/1 table (N, C).
        groups: (N,) photos with one number stay together; None is each alone.
        test: the share to keep apart, 0 to below 1; 0 keeps none.
        seed: the same seed gives the same split.

    Returns:
        (train, test): sorted indices, nothing on both sides.

    Raises:
        UsageError: for a share outside 0 to 1.
        DataError: where no photo, or no photo of some class, is left to train on, or none to test on.
    """
    if not 0 <= test < 1:
        raise UsageError(f"test must be from 0 to below 1, got {test}. Try --test 0.2.")
    if test == 0:
        return np.arange(len(labels)), np.empty(0, np.int64)
    sides = _deal(labels, groups, np.array([1 - test, test]), seed)
    train, tested = np.flatnonzero(sides == 0), np.flatnonzero(sides == 1)
    if not len(tested) or not len(train):
        raise DataError(
            f"test: a share of {test:g} leaves {len(train)} photos to train on and {len(tested)} to test on. "
            "Give more photos, fewer groups, or --test 0."
        )
    table = _table(labels)
    missing = np.flatnonzero(table.any(axis=0) & ~table[train].any(axis=0))
    if len(missing):
        raise DataError(
            f"test: a share of {test:g} leaves no photo of class number {int(missing[0])} to train on. "
            "Give more photos of it, or a smaller --test."
        )
    return train, tested


def folds(labels: Labels, groups: Labels | None, k: int, seed: int = 0) -> list[tuple[Labels, Labels]]:
    """Divide the photos into k parts and score each part once.

    Args:
        labels: (N,) class indices, or a 0/1 table (N, C).
        groups: (N,) photos with one number stay in one fold; None is each alone.
        k: how many folds, at least 2 and at most the number of groups.
        seed: the same seed gives the same folds.

    Returns:
        k pairs (fit, score) of sorted indices; every photo is scored once, and no fold is empty.

    Raises:
        UsageError: for fewer than 2 folds.
        DataError: for more folds than groups.
    """
    if k < 2:
        raise UsageError(f"folds must be at least 2, got {k}. Try --folds 5.")
    count = len(labels) if groups is None else len(np.unique(groups))
    if k > count:
        raise DataError(
            f"folds: {k} folds need {k} photos that are not near-duplicates, got {count}. "
            f"Try --folds {max(count, 2)}."
        )
    parts = _deal(labels, groups, np.full(k, 1 / k), seed)
    return [(np.flatnonzero(parts != part), np.flatnonzero(parts == part)) for part in range(k)]


def _table(labels: Labels) -> NDArray[np.bool_]:
    if labels.ndim == 2:
        return labels.astype(bool)
    return np.asarray(labels[:, None] == np.unique(labels)[None, :])


def _deal(labels: Labels, groups: Labels | None, shares: NDArray[np.float64], seed: int) -> NDArray[np.intp]:
    """Give every photo (N,) the number of its side; no side stays empty while there are enough groups."""
    table = _table(labels)
    table = np.column_stack([table, ~table.any(axis=1)])  # photos without any label are a class of their own
    index: NDArray[Any] = (
        np.arange(len(table)) if groups is None else np.unique(groups, return_inverse=True)[1]
    )
    counts = np.zeros((int(index.max(initial=-1)) + 1, table.shape[1]))
    np.add.at(counts, index, table)
    sizes = np.bincount(index, minlength=len(counts))

    shuffled = np.random.default_rng([seed, 0x5EED]).permutation(len(counts))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    wanted = np.maximum(shares[:, None] * counts.sum(axis=0), 1e-9)
    held, photos = np.zeros_like(wanted), np.zeros(len(shares))
    sides = np.empty(len(counts), np.intp)
    for position, group in enumerate(order):
        cost = ((2 * held + counts[group]) * counts[group] / wanted).sum(axis=1)
        crowding = (2 * photos + sizes[group]) / shares
        empty = photos == 0
        if empty.sum() >= len(order) - position:  # the last groups go where nobody is yet
            cost = np.where(empty, cost, np.inf)
        best = np.flatnonzero(cost <= cost.min() * (1 + 1e-9))
        side = best[np.argmin(crowding[best])]
        sides[group] = side
        held[side] += counts[group]
        photos[side] += sizes[group]
    return np.asarray(sides[index])
