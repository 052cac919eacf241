"""Curves against scikit-learn, against hand-computed values, and at their edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from topgraft._report import curves
from topgraft.metrics import ranking, summary


def area(x: curves.Curve, y: curves.Curve) -> float:
    """Return what lies under a curve as it is drawn, of straight pieces."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


@st.composite
def _problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    size = draw(st.integers(4, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.integers(0, 2, size).astype(bool)
    labels[0], labels[1] = True, False
    steps = draw(st.sampled_from([3, 10, 1000]))  # few steps make many ties
    return labels, rng.integers(0, steps, size) / steps


@given(_problems())
@settings(max_examples=60, deadline=None)
def test_curves_agree_with_scikit_learn(problem: tuple[np.ndarray, np.ndarray]) -> None:
    positive, score = problem
    drawn = area(*curves.roc(positive, score))
    assert drawn == pytest.approx(reference.roc_auc_score(positive, score), abs=1e-12)
    assert drawn == pytest.approx(ranking(positive, score, np.ones((1, len(score))))[0][0], abs=1e-12)
    recall, precision = curves.precision_recall(positive, score)
    assert np.sum(np.diff(recall, prepend=0) * precision) == pytest.approx(
        reference.average_precision_score(positive, score), abs=1e-12
    )
    false_rate, true_rate, _ = reference.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(curves.roc(positive, score), (false_rate, true_rate), atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_area_drawn_is_the_number_said(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = np.arange(90) % classes
    probabilities = rng.dirichlet(np.ones(classes), 90)
    said = summary(labels, probabilities, [str(c) for c in range(classes)])
    areas = [area(*curves.roc(labels == c, probabilities[:, c])) for c in range(classes)]
    assert said["roc_auc"]["value"] == pytest.approx(np.mean(areas), abs=1e-12)


def test_hand_computed_curve() -> None:
    positive, score = np.array([True, False, True, False]), np.array([0.9, 0.8, 0.7, 0.1])
    np.testing.assert_array_equal(curves.roc(positive, score), ([0, 0, 0.5, 0.5, 1], [0, 0.5, 0.5, 1, 1]))
    assert area(*curves.roc(positive, score)) == 0.75
    np.testing.assert_allclose(
        curves.precision_recall(positive, score), ([0.5, 0.5, 1, 1], [1, 0.5, 2 / 3, 0.5])
    )


def test_what_is_not_defined_is_nan_and_constant_scores_are_chance() -> None:
    ones, score = np.ones(5, bool), np.linspace(0, 1, 5)
    assert np.isnan(area(*curves.roc(ones, score)))
    assert curves.precision_recall(~ones, score)[0].size == 0
    half = np.array([True, False] * 4)
    assert area(*curves.roc(half, np.full(8, 0.5))) == 0.5
