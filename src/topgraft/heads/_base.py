"""What every head is: fitted on feature rows, gives logits, and can be written down as a few plain layers.

A head is made from its setting (`LogisticRegression(C=0.01)`), fitted once, and never changed again. Labels
are class indices (N,), or 0/1 indicators (N, C) where a photo may carry several labels; indicators make a
one-vs-rest head whose logits go through a sigmoid instead of a softmax.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from topgraft.backbones.depths import Depths
from topgraft.errors import DataError, UnknownNameError, need
from topgraft.heads._layers import Layer
from topgraft.heads._parallel import Compute
from topgraft.types import Features, Labels, Logits, Probabilities

Setting = dict[str, float | int | str]
"""What a head was made with: plain values, in the order they are printed."""
Fold = tuple[Labels, Labels]
"""(photos to fit on, photos to score), as indices."""


class Head(ABC):
    """A small classifier on features.

    Subclasses set the class attributes, take their setting as keyword arguments (all with defaults), and
    write the abstract methods. Nothing concrete is overridden.

    Attributes:
        name: what the user types.
        simplicity: lower is simpler; decides between heads that are equally good.
        takes_multilabel: True where it can be fitted on several labels per photo.
        on_map: True where the head wants maps (N, C, h, w) in place of feature rows (N, D).
        reads_depths: the values of its setting `depths` that are compared where there are block features;
            a head without reads the last layer's columns of a row of every depth.
        classes: C, known after the fit.
        multilabel: True where a photo may carry several labels, known after the fit.
    """

    name: ClassVar[str]
    simplicity: ClassVar[int]
    takes_multilabel: ClassVar[bool] = True
    on_map: ClassVar[bool] = False
    reads_depths: ClassVar[tuple[str, ...]] = ()
    classes: int = 0
    multilabel: bool = False

    @property
    @abstractmethod
    def setting(self) -> Setting:
        """What the head was made with; `type(self)(**setting)` makes its twin, not yet fitted."""

    @classmethod
    @abstractmethod
    def grid(cls) -> list[Setting]:
        """The few settings worth comparing, the most regularised (simplest) first; on the last layer."""

    @abstractmethod
    def fit(
        self,
        features: Features,
        labels: Labels,
        *,
        classes: int | None = None,
        sample_weight: NDArray[np.float64] | None = None,
        groups: Labels | None = None,
        depths: Depths | None = None,
        seed: int = 0,
        compute: Compute | None = None,
    ) -> Self:
        """Fit on every view of every photo.

        Args:
            features: (V, N, D) or (N, D); a head `on_map` takes (V, N, C, h, w) or (N, C, h, w).
            labels: (N,) class indices, or 0/1 indicators (N, C).
            classes: C; None takes it from the labels.
            sample_weight: (N,) one weight a photo, shared by its views; None is one each.
            groups: (N,) photos that must stay together in an inner split; None is each alone.
            depths: which columns are the last layer's, the blocks' means and their spreads, where features
                are rows of every depth (V, N, D + B); None: all are the last layer's.
            seed: for heads that draw; the same seed gives the same bits.
            compute: cores and device; None is as the environment says.
        """

    @classmethod
    @abstractmethod
    def sweep(
        cls,
        features: Features,
        labels: Labels,
        folds: Sequence[Fold],
        settings: Sequence[Setting],
        *,
        classes: int,
        sample_weight: NDArray[np.float64] | None = None,
        groups: Labels | None = None,
        depths: Depths | None = None,
        seed: int = 0,
        compute: Compute | None = None,
    ) -> list[Logits]:
        """Fit every setting on every fold and score that fold's held-out photos, sharing what can be shared.

        Must agree with one `fit` and `logits` after the other, up to rounding (network heads: up to their
        draw).

        Args:
            features: (V, N, D): fitted on all views of a fold's first part, scored on view 0 of its second.
            labels: (N,) or (N, C), of all photos.
            folds: F pairs of indices, from any number of repeats.
            settings: S settings of this head.
            classes: C.
            sample_weight: (N,) as for `fit`, of all photos.
            groups: (N,) as for `fit`, of all photos.
            depths: as for `fit`.
            seed: as for `fit`.
            compute: as for `fit`; folds are fitted side by side.

        Returns:
            F arrays (S, photos scored in that fold, C).
        """

    @abstractmethod
    def logits(self, features: Features) -> Logits:
        """Return the logits (N, C), unnormalised log probabilities, of rows (N, D).

        Rows may be of every depth, (N, D + B): columns the head does not read are passed over.
        """

    @abstractmethod
    def state(self) -> dict[str, NDArray[Any]]:
        """Return the fitted arrays, ready for safetensors; `from_state` takes them back."""

    @classmethod
    @abstractmethod
    def from_state(
        cls, setting: Setting, state: dict[str, NDArray[Any]], *, multilabel: bool = False
    ) -> Self:
        """Return the fitted head again from its setting and arrays."""

    @abstractmethod
    def layers(self) -> list[Layer]:
        """Return the head as plain layers from features to logits, standardisation folded in."""

    @property
    @abstractmethod
    def width(self) -> int:
        """How many columns of a row are read, from the first; 0 for a head `on_map`. Known after the fit."""

    def probabilities(self, features: Features) -> Probabilities:
        """Return the probabilities (N, C) of rows (N, D); they sum to 1, unless `multilabel`."""
        return to_probabilities(self.logits(features), multilabel=self.multilabel)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({setting_text(self.setting)})"


def to_probabilities(logits: Logits, *, multilabel: bool = False, temperature: float = 1.0) -> Probabilities:
    """Return the softmax over the last axis, or a sigmoid each where a photo may carry several labels."""
    scaled = np.asarray(logits, np.float64) / temperature
    if multilabel:
        return np.asarray(0.5 * (1 + np.tanh(scaled / 2)))
    exponent = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(exponent / exponent.sum(axis=-1, keepdims=True))


def setting_text(setting: Setting) -> str:
    """Return a setting as it is printed: `C=0.01, views=16`; of a mean, what its members learn with."""
    parts: dict[str, list[str]] = {}
    for key, value in setting.items():
        member, _, name = key.rpartition(".")
        said = f"{value:.6g}" if isinstance(value, float) else f"{value}"
        parts.setdefault(member, [])
        if not (member and name == "temperature"):
            parts[member].append(f"{name}={said}")
    return "; ".join(f"{member} {', '.join(said)}".strip() for member, said in parts.items())


def last_layer(features: Features, depths: Depths | None) -> Features:
    """Return the last layer's columns of rows (…, D + B); features as they are where there are no others."""
    return features if depths is None or not depths.blocks else features[..., : depths.last]


def as_views(features: Features) -> Features:
    """Return (V, N, …) whether or not there is a view axis: (N, D) and (N, C, h, w) have none."""
    return features[None] if features.ndim in (2, 4) else features


def as_indicators(labels: Labels, classes: int) -> NDArray[np.float64]:
    """Return 0/1 indicators (N, C) of class indices (N,), or indicators as they are.

    Raises:
        DataError: for a label outside 0..C-1.
    """
    if labels.ndim == 2:
        return labels.astype(np.float64)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        low, high = int(labels.min()), int(labels.max())
        raise DataError(f"labels: expected class indices 0 to {classes - 1}, got {low} to {high}.")
    return np.eye(classes)[labels]


@dataclass(frozen=True)
class HeadEntry:
    """Where a head's class lives, and the extra (with its module) that brings what it needs."""

    module: str
    attribute: str
    extra: str = ""
    requires: str = ""


def _network(attribute: str) -> HeadEntry:
    return HeadEntry("topgraft.heads._network", attribute, "timm", "torch")


HEADS: dict[str, HeadEntry] = {
    "mean": HeadEntry("topgraft.heads._linear", "NearestMean"),
    "ridge": HeadEntry("topgraft.heads._ridge", "Ridge"),
    "lda": HeadEntry("topgraft.heads._linear", "Discriminant"),
    "logistic": HeadEntry("topgraft.heads._logistic", "LogisticRegression"),
    "knn": HeadEntry("topgraft.heads._knn", "NearestNeighbours"),
    "average": HeadEntry("topgraft.heads._average", "Average"),
    "linear_bn": _network("LinearBN"),
    "light": _network("Light"),
    "t1": _network("T1"),
    "flat": _network("Flat"),
    "two_dense": _network("TwoDense"),
    "deep": _network("Deep"),
    "mlp": _network("MLP"),
}
"""Every head by name; its module is imported when it is asked for."""


def head_class(name: str) -> type[Head]:
    """Return the class of a head by name.

    Raises:
        UnknownNameError: where there is no such head.
        MissingExtraError: where it needs an extra that is not installed.
    """
    if name not in HEADS:
        raise UnknownNameError("head", name, HEADS)
    entry = HEADS[name]
    if entry.requires:
        need(entry.requires, entry.extra, f"the head {name!r}")
    found: type[Head] = getattr(importlib.import_module(entry.module), entry.attribute)
    return found
