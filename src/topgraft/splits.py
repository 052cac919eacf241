"""Who is fitted on and who is scored: stratified by label, no group on two sides, whatever the layout.

A holdout takes from every class, the rarest first, the groups whose keyed hash is lowest until its share is
full. So a photo more or less moves a photo or two, not all of them.

Folds are dealt group by group, the largest first, each to the fold where it lifts the chi-square distance to
equal shares least. For single photos that is the Sainte-Laguë rule, so every class is divided as evenly as
whole photos allow. (scikit-learn's StratifiedGroupKFold may leave a fold empty and takes a second to import.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft import notebook
from topgraft.errors import DataError, UsageError
from topgraft.types import Labels


@dataclass(frozen=True)
class Split:
    """Which samples are for what, by id. `val` may be empty: cross-validation needs none."""

    train: tuple[str, ...]
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def __repr__(self) -> str:
        sides = ", ".join(f"{len(ids):,} {name}" for name, ids in self._sides().items() if ids)
        return f"Split({sides or 'empty'})"

    def _repr_html_(self) -> str:
        """Show the sizes of the sides, in a notebook."""
        return notebook.facts(
            "Split", [(name, f"{len(ids):,} photos") for name, ids in self._sides().items()]
        )

    def _sides(self) -> dict[str, tuple[str, ...]]:
        return {"train": self.train, "val": self.val, "test": self.test}

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, a photo a row: id, side.

        Raises:
            MissingPandasError: where pandas is not installed.
        """
        return notebook.frame({"id": id_, "side": name} for name, ids in self._sides().items() for id_ in ids)


def holdout(
    labels: Labels,
    groups: Labels | None,
    test: float,
    seed: int = 0,
    *,
    keys: Sequence[str] | None = None,
    side: str = "test",
) -> tuple[Labels, Labels]:
    """Keep a share of the photos apart.

    Args:
        labels: (N,) class indices, or a 0/1 table (N, C).
        groups: (N,) photos with one number stay together; None is each alone.
        test: the share to keep apart, 0 to below 1; 0 keeps none.
        seed: the same seed gives the same split.
        keys: N names that stay with their photos (digests, say): with them the split stays nearly the same
            when photos come, go or change places. None takes the photos' positions.
        side: what they are for, to be named in errors: `test` or `val`.

    Returns:
        (train, test): sorted indices, nothing on both sides.

    Raises:
        UsageError: for a share outside 0 to 1.
        DataError: where nothing can be held out without taking all photos of a class.
    """
    if not 0 <= test < 1:
        raise UsageError(f"test must be from 0 to below 1, got {test}. Try --test 0.2.")
    if test == 0:
        return np.arange(len(labels)), np.empty(0, np.int64)
    held = _hold(labels, groups, test, seed, keys)
    train, tested = np.flatnonzero(~held), np.flatnonzero(held)
    if not len(tested):
        raise DataError(
            f"{side}: a share of {test:g} of {len(train)} photos leaves none: every class keeps a photo to"
            f" train on. Give more photos, fewer groups, or {'--test 0' if side == 'test' else 'val = 0'}."
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
    parts = _deal(labels, groups, k, seed)
    return [(np.flatnonzero(parts != part), np.flatnonzero(parts == part)) for part in range(k)]


def _indicators(labels: Labels) -> NDArray[np.bool_]:
    if labels.ndim == 2:
        return labels.astype(bool)
    return np.asarray(labels[:, None] == np.unique(labels)[None, :])


def _grouped(
    labels: Labels, groups: Labels | None
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.intp]]:
    """Count labels by group: (G, C), with the sizes (G,) and the group of every photo (N,)."""
    table = _indicators(labels)
    table = np.column_stack([table, ~table.any(axis=1)])  # photos without any label are a class of their own
    index: NDArray[Any] = (
        np.arange(len(table)) if groups is None else np.unique(groups, return_inverse=True)[1]
    )
    counts = np.zeros((int(index.max(initial=-1)) + 1, table.shape[1]))
    np.add.at(counts, index, table)
    return counts, np.bincount(index, minlength=len(counts)), index


def _hold(
    labels: Labels, groups: Labels | None, test: float, seed: int, keys: Sequence[str] | None
) -> NDArray[np.bool_]:
    """Say of every photo (N,) whether it is held out; every class keeps a photo that is not."""
    counts, _, index = _grouped(labels, groups)
    order = _by_hash(index, len(counts), seed, keys)
    totals = counts.sum(axis=0)
    held, left = np.zeros(len(counts), bool), totals.copy()
    undecided = np.ones(len(counts), bool)
    quota = _quotas(totals, test)
    for which in np.argsort(totals, kind="stable"):
        wanted = quota[which] - counts[held, which].sum()
        for group in order[undecided[order] & (counts[order, which] > 0)]:
            undecided[group] = False
            nearer = counts[group, which] < 2 * wanted  # than without it
            if nearer and _spares(left, counts[group]):
                held[group] = True
                wanted -= counts[group, which]
                left -= counts[group]
    if not held.any():  # all groups are larger than what was wanted: one of them, then
        able = [group for group in order if _spares(left, counts[group])]
        held[able[:1]] = True
    return np.asarray(held[index])


def _spares(left: NDArray[np.float64], taken: NDArray[np.float64]) -> bool:
    return bool((left - taken)[taken > 0].min() > 0)


def _by_hash(index: NDArray[np.intp], count: int, seed: int, keys: Sequence[str] | None) -> NDArray[np.intp]:
    """Order groups (G,) by a hash of the seed and the group's smallest key."""
    names = [""] * count
    for group, key in zip(
        index.tolist(), keys if keys is not None else map(str, range(len(index))), strict=True
    ):
        names[group] = min(names[group] or key, key)
    salt = str(seed).encode()
    return np.array(
        sorted(range(count), key=lambda i: blake2b(names[i].encode(), key=salt).digest()), np.intp
    )


def _quotas(totals: NDArray[np.float64], test: float) -> NDArray[np.float64]:
    """Share out how many photos of each class to hold out: whole numbers, largest remainders first."""
    exact = totals * test
    quota = np.floor(exact)
    spare = max(round(float(exact.sum())), 1) - int(quota.sum())
    quota[np.argsort(quota - exact, kind="stable")[:spare]] += 1
    return np.asarray(np.minimum(quota, np.maximum(totals - 1, 0)))


def _deal(labels: Labels, groups: Labels | None, k: int, seed: int) -> NDArray[np.intp]:
    """Return the number of each photo's fold, (N,); none stays empty while there are enough groups."""
    counts, sizes, index = _grouped(labels, groups)
    shuffled = np.random.default_rng([seed, 0x5EED]).permutation(len(counts))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    wanted = np.maximum(np.full((k, 1), 1 / k) * counts.sum(axis=0), 1e-9)
    held, photos = np.zeros_like(wanted), np.zeros(k)
    sides = np.empty(len(counts), np.intp)
    for position, group in enumerate(order):
        cost = ((2 * held + counts[group]) * counts[group] / wanted).sum(axis=1)
        crowding = 2 * photos + sizes[group]
        empty = photos == 0
        if empty.sum() >= len(order) - position:  # the last groups go where nobody is yet
            cost = np.where(empty, cost, np.inf)
        best = np.flatnonzero(cost <= cost.min() * (1 + 1e-9))
        side = best[np.argmin(crowding[best])]
        sides[group] = side
        held[side] += counts[group]
        photos[side] += sizes[group]
    return np.asarray(sides[index])
