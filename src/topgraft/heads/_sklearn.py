"""Heads as scikit-learn estimators, for pipelines and searches of your own."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from topgraft.heads._base import Setting, head_class
from topgraft.types import Features, Probabilities


class HeadClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A head by name, on feature rows (N, D).

    Args:
        head: its name, as in `topgraft heads`.
        setting: what it is made with; None takes the head's own defaults.
        seed: for heads that draw.

    Attributes:
        head_: the fitted head, known after the fit.
        classes_: (C,) the labels as they were given.
    """

    def __init__(self, head: str = "logistic", setting: Setting | None = None, seed: int = 0) -> None:
        self.head = head
        self.setting = setting
        self.seed = seed

    def fit(self, X: Features, y: NDArray[Any]) -> Self:
        """Fit on rows (N, D) with labels (N,) of any kind.

        Raises:
            ValueError: for rows or labels that cannot be learned from.
        """
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least 2 classes, got one class, {self.classes_[0]!r}.")
        head = head_class(self.head)(**(self.setting or {}))
        self.head_ = head.fit(X, labels, classes=len(self.classes_), seed=self.seed)
        return self

    def predict_proba(self, X: Features) -> Probabilities:
        """Return the probabilities (N, C) of rows (N, D), in the order of `classes_`."""
        check_is_fitted(self)
        return self.head_.probabilities(validate_data(self, X, reset=False))

    def predict(self, X: Features) -> NDArray[Any]:
        """Return the likeliest label of every row (N,)."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[likeliest])
