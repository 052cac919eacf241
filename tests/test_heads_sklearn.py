"""Heads pass scikit-learn's own conformance checks and work in its tools."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils.estimator_checks import parametrize_with_checks

from topgraft.heads import HeadClassifier
from topgraft.testing.heads import clouds

NAMES = ["mean", "ridge", "lda", "logistic", "knn"]


@parametrize_with_checks(
    [HeadClassifier(name, {"C": 10.0} if name == "logistic" else None) for name in NAMES]
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", NAMES)
def test_heads_can_be_searched_and_piped(name):
    features, labels = clouds()
    names = np.array(["cup", "bowl", "plate"])[labels]
    piped = make_pipeline(Normalizer(), HeadClassifier(name))
    assert cross_val_score(piped, features[0, :, 2:], names, cv=3).mean() > 0.6
    if name == "ridge":
        grid = {"setting": [{"strength": 0.1}, {"strength": 0.01}]}
        searched = GridSearchCV(HeadClassifier(name), grid, cv=3).fit(features[0], names)
        assert searched.best_params_["setting"] in grid["setting"]
        assert set(searched.predict(features[0])) <= set(names)
