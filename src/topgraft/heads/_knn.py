"""The votes of the nearest training photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from topgraft.backbones.depths import Depths
from topgraft.errors import UsageError
from topgraft.heads._base import Fold, Head, Setting, as_indicators, as_views, last_layer
from topgraft.heads._layers import Affine, Array, Layer
from topgraft.heads._linear import known_classes
from topgraft.heads._parallel import Compute
from topgraft.heads._rows import standardise
from topgraft.nodes import largest, unit_rows
from topgraft.types import Features, Labels, Logits

if TYPE_CHECKING:
    from topgraft.nodes import Nodes

CHUNK = 512  # rows asked about at once
SMOOTHING = 0.5  # half a vote for every class: no neighbour of a class is not proof against it


@dataclass(frozen=True)
class Vote(Layer):
    """Votes of the k most similar rows by cosine: (N, D) to (N, C).

    `u = (x - centre) * scale; u /= |u|; s = u @ rows.T`; the rows of the `count` largest s vote:
    out = log(sum of their rows of `votes` + smoothing).

    Attributes:
        centre, scale: (D,) standardisation.
        rows: (M, D) standardised training rows of length 1.
        votes: (M, C) what each row votes.
        count: k.
        smoothing: added to the votes of every class.
    """

    centre: Array
    scale: Array
    rows: Array
    votes: Array
    count: int
    smoothing: float

    def add(self, g: Nodes, x: str) -> str:
        """Add the search for the nearest rows and the count of their votes."""
        unit = unit_rows(g, g("Mul", g("Sub", x, self.centre), self.scale))
        nearest = largest(g, g("MatMul", unit, self.rows.T), self.count)
        votes = g("Gather", self.votes, f"{nearest}.index", axis=0)  # (N, k, C)
        return g("Log", g("Add", g("ReduceSum", votes, [1], keepdims=0), self.smoothing))


class NearestNeighbours(Head):
    """Votes of the k training photos most similar by cosine of standardised features.

    View 0 of the training photos votes, not their augmented views: those of one photo would fill all k
    places.

    Args:
        k: how many vote, at least 1.
    """

    name: ClassVar[str] = "knn"
    simplicity: ClassVar[int] = 4
    centre: Array
    scale: Array
    rows: Array
    votes: Array

    def __init__(self, k: int = 10) -> None:
        if k < 1:
            raise UsageError(f"head knn: k must be at least 1, got {k}.")
        self.k = int(k)

    @property
    def setting(self) -> Setting:
        """The number of neighbours."""
        return {"k": self.k}

    @property
    def width(self) -> int:
        """The last layer's columns."""
        return len(self.centre)

    @classmethod
    def grid(cls) -> list[Setting]:
        """From many neighbours to few."""
        return [{"k": k} for k in (40, 20, 10, 5)]

    def fit(
        self,
        features: Features,
        labels: Labels,
        *,
        classes: int | None = None,
        sample_weight: NDArray[np.float64] | None = None,
        groups: Labels | None = None,  # noqa: ARG002 - no inner split is made
        depths: Depths | None = None,
        seed: int = 0,  # noqa: ARG002 - nothing is drawn
        compute: Compute | None = None,  # noqa: ARG002 - one fit is done on one core
    ) -> Self:
        """Keep the rows of view 0 (see `Head.fit`)."""
        votes = as_indicators(labels, known_classes(features, labels, classes))
        x = last_layer(as_views(features)[0], depths).astype(np.float64)
        mean, inverse = standardise(x.sum(axis=0), (x**2).sum(axis=0), len(x))
        self.multilabel = labels.ndim == 2
        if self.multilabel:  # every class is asked yes or no: the second half of the votes says no
            votes = np.hstack([votes, 1 - votes])
        if sample_weight is not None:
            votes = votes * sample_weight[:, None]
        self.centre, self.scale = mean.astype(np.float32), inverse.astype(np.float32)
        self.rows, self.votes = self._unit(x), votes.astype(np.float32)
        self.classes = votes.shape[1] // 2 if self.multilabel else votes.shape[1]
        return self

    @classmethod
    def sweep(
        cls,
        features: Features,
        labels: Labels,
        folds: Sequence[Fold],
        settings: Sequence[Setting],
        *,
        classes: int,
        sample_weight: NDArray[np.float64] | None = None,
        groups: Labels | None = None,  # noqa: ARG003 - no inner split is made
        depths: Depths | None = None,
        seed: int = 0,  # noqa: ARG003 - nothing is drawn
        compute: Compute | None = None,
    ) -> list[Logits]:
        """Sort the neighbours of a fold once for all k (see `Head.sweep`)."""
        rows = last_layer(features[0], depths)

        def score_fold(fold: Fold) -> Logits:
            fit, score = fold
            weight = None if sample_weight is None else sample_weight[fit]
            head = cls().fit(rows[fit], labels[fit], classes=classes, sample_weight=weight)
            ks = [int(setting["k"]) for setting in settings]
            order = head.neighbours(rows[score], max(ks))
            return np.stack([head.vote(order[:, :k]) for k in ks])

        return (compute or Compute()).map(score_fold, folds)

    def neighbours(self, features: Features, k: int) -> NDArray[np.intp]:
        """Return the indices (N, k) of the nearest training rows, nearest first."""
        found = np.empty((len(features), min(k, len(self.rows))), np.intp)
        for at in range(0, len(features), CHUNK):  # a similarity and a place for each pair of rows is much
            asked = self._unit(features[at : at + CHUNK, : len(self.centre)].astype(np.float64))
            found[at : at + CHUNK] = np.argsort(-(asked @ self.rows.T), axis=1, kind="stable")[:, :k]
        return found

    def vote(self, order: NDArray[np.intp]) -> Logits:
        """Count the votes of neighbours (N, k)."""
        votes = np.log(self.votes[order].sum(axis=1, dtype=np.float64) + SMOOTHING)
        return np.asarray(votes[:, : self.classes] - votes[:, self.classes :] if self.multilabel else votes)

    def logits(self, features: Features) -> Logits:
        """Return the logits (N, C) of rows (N, D)."""
        return self.vote(self.neighbours(features, self.k))

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the standardisation, the rows and their votes."""
        return {"centre": self.centre, "scale": self.scale, "rows": self.rows, "votes": self.votes}

    @classmethod
    def from_state(
        cls, setting: Setting, state: dict[str, NDArray[Any]], *, multilabel: bool = False
    ) -> Self:
        """Return the fitted head again."""
        head = cls(k=int(setting["k"]))
        head.centre, head.scale = state["centre"], state["scale"]
        head.rows, head.votes = state["rows"], state["votes"]
        head.multilabel, head.classes = multilabel, head.votes.shape[1] // (2 if multilabel else 1)
        return head

    def layers(self) -> list[Layer]:
        """Return the vote, and with several labels the difference of yes and no."""
        count = min(self.k, len(self.rows))
        vote = Vote(self.centre, self.scale, self.rows, self.votes, count, SMOOTHING)
        if not self.multilabel:
            return [vote]
        sides = np.vstack([np.eye(self.classes), -np.eye(self.classes)]).astype(np.float32)
        return [vote, Affine(sides, np.zeros(self.classes, np.float32))]

    def _unit(self, x: NDArray[np.float64]) -> Array:
        z = (x - self.centre) * self.scale
        return np.asarray(z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12), np.float32)
