"""A quick head on cached features, fitted anew while a person labels, and asked what it is in doubt about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from topgraft.heads import head_class, to_probabilities
from topgraft.selection.teaching import most_useful

BATCH = 20
"""Photos that are put in order at once; then the head is fitted on what was labelled meanwhile."""


class Learner:
    """Puts photos without labels in order, and says which are alike.

    Args:
        rows: (D,) centred features of length 1, by key.
    """

    def __init__(self, rows: Mapping[str, NDArray[np.float32]]) -> None:
        self._rows = rows
        self._batch: list[str] = []
        self._chances: dict[str, dict[str, float]] = {}

    def order(self, keys: Sequence[str], labels: Mapping[str, str]) -> list[str]:
        """Return keys, the most useful first: a batch in order, then the others as they came.

        Args:
            keys: of photos without labels.
            labels: of all that have one, by key.
        """
        wanted = set(keys)
        left = [key for key in self._batch if key in wanted]
        if not left and keys:
            left = self._batch = self._learn(list(keys), labels)
        ahead = set(left)
        return left + [key for key in keys if key not in ahead]

    def chances(self, key: str) -> dict[str, float]:
        """Return the probability of each class for a photo of the batch; empty for others."""
        return self._chances.get(key, {})

    def alike(self, key: str, pool: Sequence[str], others: Sequence[str], *, least: float) -> list[str]:
        """Return the photos of a pool that are nearer to a photo than to any of the others, nearest first."""
        if key not in self._rows:
            return []
        here = [name for name in pool if name in self._rows and name != key]
        if not here:
            return []
        rows = self._table(here)
        near = rows @ self._rows[key]
        beyond = np.full(len(here), least, np.float32)
        known = [name for name in others if name in self._rows]
        if known:
            beyond = np.maximum(beyond, (rows @ self._table(known).T).max(axis=1))
        return [here[i] for i in np.argsort(-near, kind="stable") if near[i] > beyond[i]]

    def _learn(self, keys: list[str], labels: Mapping[str, str]) -> list[str]:
        known = [key for key in labels if key in self._rows]
        classes = sorted({labels[key] for key in known})
        if len(classes) < 2:
            return keys[:BATCH]
        index = {name: i for i, name in enumerate(classes)}
        seen, rows = self._table(known), self._table(keys)
        told = np.array([index[labels[key]] for key in known], np.int64)
        head = head_class("logistic")().fit(seen[None], told, classes=len(classes))
        probabilities = to_probabilities(head.logits(rows))
        batch = [keys[i] for i in most_useful(probabilities, rows, BATCH)]
        place = {key: i for i, key in enumerate(keys)}
        self._chances = {
            key: dict(zip(classes, probabilities[place[key]].tolist(), strict=True)) for key in batch
        }
        return batch

    def _table(self, keys: Sequence[str]) -> NDArray[np.float32]:
        return np.array([self._rows[key] for key in keys], np.float32)
