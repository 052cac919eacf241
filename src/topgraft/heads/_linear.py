"""Linear heads: one weight matrix on standardised features, the standardisation folded into it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from topgraft.backbones.depths import Depths
from topgraft.errors import DataError, UnknownNameError, UsageError
from topgraft.heads._base import Fold, Head, Setting
from topgraft.heads._layers import Affine, Array, Layer
from topgraft.heads._parallel import Compute
from topgraft.heads._rows import SHARES, WIDTH, Array64, FoldRows, TrainingRows, prepare_fold, prepare_folds
from topgraft.types import Features, Labels, Logits

NOTHING = 1e-6  # a variance of standardised features that is rounding alone


class AffineHead(Head):
    """A head that ends as one weight matrix.

    Attributes:
        weight: (D, C) on plain features, known after the fit; (D + B, C) where block features are read.
        bias: (C,).
    """

    weight: Array
    bias: Array

    @property
    @abstractmethod
    def shares(self) -> dict[str, float]:
        """What share of standardised rows' variance the last layer, the means and the spreads have."""

    @final
    @property
    def width(self) -> int:
        """How many columns are read, from the first."""
        return len(self.weight)

    @final
    def logits(self, features: Features) -> Logits:
        """Return the logits (N, C) of rows (N, D), or of rows of every depth."""
        read = features[:, : len(self.weight)]
        return np.asarray(read.astype(np.float64) @ self.weight.astype(np.float64) + self.bias)

    @final
    def state(self) -> dict[str, NDArray[Any]]:
        """Return `weight` (D, C) and `bias` (C,)."""
        return {"weight": self.weight, "bias": self.bias}

    @final
    @classmethod
    def from_state(
        cls, setting: Setting, state: dict[str, NDArray[Any]], *, multilabel: bool = False
    ) -> Self:
        """Return the fitted head again."""
        return cls(**setting).keep(state["weight"], state["bias"], multilabel=multilabel)

    @final
    def layers(self) -> list[Layer]:
        """Return the one affine layer."""
        return [Affine(self.weight, self.bias)]

    @final
    def keep(self, weight: NDArray[Any], bias: NDArray[Any], *, multilabel: bool) -> Self:
        self.weight = np.ascontiguousarray(weight, np.float32)
        self.bias = np.asarray(bias, np.float32)
        self.classes, self.multilabel = len(self.bias), multilabel
        return self


class Linear(AffineHead):
    """What all heads share that solve for their weights; each says how.

    Attributes:
        depths: what share each group of columns has, a name of `SHARES`.
    """

    depths: str = "last"

    @final
    @property
    def shares(self) -> dict[str, float]:
        """As `depths` says."""
        return SHARES[self.depths]

    @classmethod
    @abstractmethod
    def solve(cls, rows: TrainingRows, settings: Sequence[Setting]) -> list[tuple[Array64, Array64]]:
        """Return a weight (r, C) and bias (C,) on `rows.z * rows.roots` for every setting."""

    @final
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
        """Fit on all rows (see `Head.fit`).

        Raises:
            DataError: where labels and features do not belong together, the head takes one label a photo, or
                its setting needs block features that are not there.
        """
        self.check(labels)
        return self.fit_rows(
            prepare_all(features, labels, classes=classes, sample_weight=sample_weight, depths=depths)
        )

    @final
    def fit_rows(self, prepared: FoldRows) -> Self:
        """Fit on rows that are prepared already."""
        rows = prepared.at(self.depths)
        weight, bias = rows.fold_in(*self.solve(rows, [self.setting])[0])
        return self.keep(weight, bias, multilabel=prepared.multilabel)

    @final
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
        """Solve all settings of a fold on the same prepared rows (see `Head.sweep`)."""
        cls.check(labels)
        read = [cls(**setting).depths for setting in settings]

        def score_fold(fold: FoldRows) -> Logits:
            found: dict[int, Logits] = {}
            for name in dict.fromkeys(read):
                rows, places = fold.at(name), [i for i, its in enumerate(read) if its == name]
                held = rows.held.astype(np.float64)
                for i, (weight, bias) in zip(
                    places, cls.solve(rows, [settings[i] for i in places]), strict=True
                ):
                    found[i] = held @ weight + bias
            return np.stack([found[i] for i in range(len(settings))])

        compute = compute or Compute()
        prepared = prepare_folds(
            features,
            labels,
            folds,
            classes=classes,
            sample_weight=sample_weight,
            depths=depths,
            compute=compute,
        )
        return compute.map(score_fold, prepared)

    @final
    @classmethod
    def check(cls, labels: Labels) -> None:
        """Refuse labels this head cannot learn from.

        Raises:
            DataError: for several labels a photo where it takes one.
        """
        if labels.ndim == 2 and not cls.takes_multilabel:
            raise DataError(
                f"head {cls.name}: expected one label per photo, got a table of several."
                " Try logistic or ridge."
            )


def prepare_all(
    features: Features,
    labels: Labels,
    *,
    classes: int | None,
    sample_weight: NDArray[np.float64] | None,
    depths: Depths | None,
) -> FoldRows:
    """Return all photos' rows, none held out: what a last fit is made on."""
    count, everything = known_classes(features, labels, classes), np.arange(len(labels))
    fold = (everything, everything[:0])
    return prepare_fold(features, labels, fold, classes=count, sample_weight=sample_weight, depths=depths)


def known_classes(features: Features, labels: Labels, classes: int | None) -> int:
    """Return C, from the labels where it is not given.

    Raises:
        DataError: where there is not one label for every photo.
    """
    photos = features.shape[-2]
    if len(labels) != photos:
        raise DataError(f"labels: expected one for each of {photos} photos, got {len(labels)}.")
    if labels.ndim == 2:
        return int(labels.shape[1])
    return classes or int(labels.max()) + 1


def known_depths(head: str, depths: str) -> str:
    """Return a setting of `depths` as it is.

    Raises:
        UnknownNameError: for another.
    """
    if depths not in SHARES:
        raise UnknownNameError(f"depths of the head {head}", depths, SHARES)
    return depths


def with_depths(setting: Setting, depths: str) -> Setting:
    """Return a setting with its depths, where they are more than the last layer."""
    return setting if depths == "last" else {**setting, "depths": depths}


class NearestMean(Linear):
    """The class whose mean is nearest, on standardised features of the last layer.

    Squared distances are divided by the rows' total variance: they add up over features that know much the
    same, so undivided they would be far too sure.
    """

    name: ClassVar[str] = "mean"
    simplicity: ClassVar[int] = 0
    takes_multilabel: ClassVar[bool] = False

    @property
    def setting(self) -> Setting:
        """There is nothing to set."""
        return {}

    @classmethod
    def grid(cls) -> list[Setting]:
        """The one there is."""
        return [{}]

    @classmethod
    def solve(cls, rows: TrainingRows, settings: Sequence[Setting]) -> list[tuple[Array64, Array64]]:
        """Compare with the class means."""
        means = class_means(rows)
        solved = without_absent(rows, means.T / WIDTH, -0.5 * (means**2).sum(axis=1) / WIDTH)
        return [solved] * len(settings)


class Discriminant(Linear):
    """Linear discriminant analysis with shrinkage of the covariance within classes.

    Covariance: (1 - shrinkage)·S + shrinkage·(trace(S)/D)·I (Friedman 1989, eq. 18 with one covariance), with
    `WIDTH` for D whatever the columns.

    Args:
        shrinkage: above 0 to 1; 1 is nearest mean with class sizes.
        depths: what share the last layer and the blocks have, a name of `SHARES`.
    """

    name: ClassVar[str] = "lda"
    simplicity: ClassVar[int] = 2
    takes_multilabel: ClassVar[bool] = False
    reads_depths: ClassVar[tuple[str, ...]] = tuple(SHARES)

    def __init__(self, shrinkage: float = 0.5, depths: str = "last") -> None:
        if not 0 < shrinkage <= 1:
            raise UsageError(f"head lda: shrinkage must be above 0 and at most 1, got {shrinkage}.")
        self.shrinkage, self.depths = shrinkage, known_depths(self.name, depths)

    @property
    def setting(self) -> Setting:
        """The shrinkage, and the depths where they are more than the last layer."""
        return with_depths({"shrinkage": self.shrinkage}, self.depths)

    @classmethod
    def grid(cls) -> list[Setting]:
        """From much shrinkage to little."""
        return [{"shrinkage": value} for value in (0.95, 0.8, 0.5, 0.2, 0.05, 0.01)]

    @classmethod
    def solve(cls, rows: TrainingRows, settings: Sequence[Setting]) -> list[tuple[Array64, Array64]]:
        """Solve the shrunken covariance for the class means, one Cholesky factor a setting."""
        means = class_means(rows)
        share = rows.weight @ rows.indicators / rows.photos
        covariance = rows.gram - means.T @ (share[:, None] * means)
        target = np.trace(covariance) / WIDTH
        if target < NOTHING:  # one photo a class, one view: as if classes varied like all photos do
            target = 1.0
        solved = []
        for setting in settings:
            shrinkage = float(setting["shrinkage"])
            shrunken = (1 - shrinkage) * covariance + shrinkage * target * np.eye(len(covariance))
            weight = cho_solve(cho_factor(shrunken, check_finite=False), means.T, check_finite=False)
            prior = np.log(np.maximum(share, 0.5 / rows.photos))
            solved.append(without_absent(rows, weight, prior - 0.5 * (means.T * weight).sum(axis=0)))
        return solved


def class_means(rows: TrainingRows) -> Array64:
    """Return the weighted means of the classes (C, r); that of a class without rows is the overall mean."""
    weighted = rows.indicators * rows.weight[:, None]
    return np.asarray(rows.sums(weighted).T / np.maximum(weighted.sum(axis=0), 1e-12)[:, None])


def without_absent(rows: TrainingRows, weight: Array64, bias: Array64) -> tuple[Array64, Array64]:
    """Let a class without rows answer as the average of the others, less 1: never the likeliest."""
    absent = rows.weight @ rows.indicators == 0
    if absent.any():
        weight[:, absent] = weight[:, ~absent].mean(axis=1, keepdims=True)
        bias[absent] = bias[~absent].mean() - 1
    return weight, bias
