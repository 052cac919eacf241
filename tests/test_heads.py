"""Every head against the suite, and those that need no PyTorch against what is known about them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from sklearn.covariance import ShrunkCovariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.linear_model import Ridge as RidgeReference
from sklearn.preprocessing import StandardScaler

from topgraft.errors import DataError, UnknownNameError, UsageError
from topgraft.heads import HEADS, head_class
from topgraft.heads._knn import NearestNeighbours
from topgraft.heads._linear import Discriminant, NearestMean
from topgraft.heads._logistic import LogisticRegression
from topgraft.heads._network import MLP, T1, Deep, Flat, Light, LinearBN, TwoDense
from topgraft.heads._ridge import STRENGTHS, Ridge
from topgraft.selection.gram import accumulate
from topgraft.testing.heads import HeadSuite, clouds


class TestNearestMean(HeadSuite):
    head = NearestMean


class TestRidge(HeadSuite):
    head = Ridge
    setting: ClassVar = {"strength": 0.01}


class TestRidgeByLeavingOut(HeadSuite):
    head = Ridge
    setting: ClassVar = {"strength": "loo"}


class TestDiscriminant(HeadSuite):
    head = Discriminant
    setting: ClassVar = {"shrinkage": 0.5}


class TestLogisticRegression(HeadSuite):
    head = LogisticRegression
    setting: ClassVar = {"C": 0.1}


class TestNearestNeighbours(HeadSuite):
    head = NearestNeighbours
    setting: ClassVar = {"k": 5}


class NetworkSuite(HeadSuite):
    """A network alone draws as it does in a sweep, but the rows that it stops early by are others."""

    pytestmark = pytest.mark.timm
    draws = True

    @pytest.fixture(autouse=True)
    def _torch(self):
        pytest.importorskip("torch")


class TestLinearBN(NetworkSuite):
    head = LinearBN


class TestLight(NetworkSuite):
    head = Light


class TestT1(NetworkSuite):
    head = T1


class TestTwoDense(NetworkSuite):
    head = TwoDense


class TestDeep(NetworkSuite):
    head = Deep


class TestMLP(NetworkSuite):
    head = MLP
    setting: ClassVar = {"widths": "32-16"}


class TestFlat(NetworkSuite):
    head = Flat

    def data(self):
        """Clouds as maps (V, N, 10, 2, 2)."""
        features, labels = clouds()
        return features.reshape(*features.shape[:2], 10, 2, 2), labels


def suites(of):
    """Yield a suite and all that inherit it."""
    yield of
    for inherited in of.__subclasses__():
        yield from suites(inherited)


def test_every_head_has_a_suite():
    assert {suite.head.name for suite in suites(HeadSuite) if hasattr(suite, "head")} == set(HEADS)


def ours_and_scaled(photos, width, classes=3, seed=0):
    features, labels = clouds(photos=photos, width=width, classes=classes, seed=seed)
    plain = features[0].astype(np.float64)
    return features, labels, StandardScaler().fit(plain).transform(plain)


@pytest.mark.parametrize(("photos", "width"), [(90, 20), (40, 120)], ids=["tall", "wide"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("C", [1e-3, 0.1, 10.0])
def test_logistic_regression_is_scikit_learns(photos, width, classes, C):
    features, labels, scaled = ours_and_scaled(photos, width, classes)
    reference = Reference(C=C, tol=1e-9, max_iter=10_000).fit(scaled, labels)
    ours = LogisticRegression(C=C).fit(features[:1], labels).probabilities(features[0])
    np.testing.assert_allclose(ours, reference.predict_proba(scaled), atol=2e-3)


def test_views_leave_the_meaning_of_the_strength_alone():
    features, labels = clouds()
    once = LogisticRegression(C=0.1).fit(features[:1], labels)
    fourfold = LogisticRegression(C=0.1).fit(np.repeat(features[:1], 4, axis=0), labels)
    np.testing.assert_allclose(once.logits(features[0]), fourfold.logits(features[0]), atol=1e-2)


def test_several_labels_are_one_logistic_regression_each():
    features, labels, scaled = ours_and_scaled(60, 40)
    table = np.eye(3, dtype=np.int64)[labels]
    table[::4, 0] = 1
    ours = LogisticRegression(C=0.1).fit(features[:1], table).probabilities(features[0])
    for c in range(3):
        reference = Reference(C=0.1, tol=1e-9, max_iter=10_000).fit(scaled, table[:, c])
        np.testing.assert_allclose(ours[:, c], reference.predict_proba(scaled)[:, 1], atol=2e-3)


@pytest.mark.parametrize(("photos", "width"), [(90, 20), (40, 120)], ids=["tall", "wide"])
@pytest.mark.parametrize("strength", [0.3, 0.01])
def test_ridge_from_sums_is_the_direct_solution(photos, width, strength):
    features, labels = clouds(photos=photos, width=width)
    rows = features.astype(np.float64)
    sums = accumulate([(view, labels) for view in rows], width, 3)
    (summed,) = Ridge.path_from_sums(sums, [strength])
    streamed = summed.logits(features[0])
    direct = Ridge(strength).fit(features, labels).logits(features[0])
    flat = rows.reshape(-1, width)
    spread = flat.std(axis=0)
    scaled = np.where(spread > 1e-3, (flat - flat.mean(axis=0)) / np.maximum(spread, 1e-3), 0)
    penalty = strength * (width - 1) * len(flat)  # one feature never varies
    reference = RidgeReference(alpha=penalty).fit(scaled, 2 * np.eye(3)[np.tile(labels, 3)] - 1)
    np.testing.assert_allclose(direct, reference.predict(scaled[:photos]), atol=1e-3)
    np.testing.assert_allclose(streamed, reference.predict(scaled[:photos]), atol=1e-3)


def test_sums_of_all_but_one_fold_are_the_fold():
    features, labels = clouds(photos=60, width=20)
    parts = [accumulate([(features[0, p::3], labels[p::3])], 20, 3) for p in range(3)]
    (fold,) = Ridge.path_from_sums(parts[0] + parts[1] + parts[2] - parts[1], [0.1])
    rest = np.concatenate([np.arange(60)[p::3] for p in (0, 2)])
    (alone,) = Ridge.path_from_sums(accumulate([(features[0, rest], labels[rest])], 20, 3), [0.1])
    np.testing.assert_allclose(fold.logits(features[0]), alone.logits(features[0]), atol=1e-4)


def test_leaving_out_in_closed_form_is_leaving_out():
    features, labels = clouds(photos=24, width=10, views=3)
    scale = features.std(axis=(0, 1)) + 1e-9
    features = (features / np.where(scale > 1e-3, scale, 1)).astype(np.float64)
    from topgraft.heads._ridge import _Path
    from topgraft.heads._rows import training_rows

    rows = training_rows(features, labels, np.arange(24), classes=3, sample_weight=None)
    path = _Path.of(rows)
    for strength, found in zip(STRENGTHS, path.leave_one_out_errors(STRENGTHS), strict=True):
        total = 0.0
        penalty = strength * path.values.sum()
        z, target = rows.z.astype(np.float64), 2 * rows.indicators - 1
        for i in range(24):
            keep = np.arange(len(z)) % 24 != i
            mean, offset = z[keep].mean(axis=0), target[keep].mean(axis=0)
            centred = z[keep] - mean
            gram = centred.T @ centred / len(z) + penalty * np.eye(10)
            weight = np.linalg.solve(gram, centred.T @ (target[keep] - offset) / len(z))
            total += ((target[i] - offset - (z[i] - mean) @ weight) ** 2).sum()
        assert found == pytest.approx(total / 24, rel=1e-6)


@pytest.mark.parametrize("shrinkage", [0.9, 0.2])
def test_the_discriminant_is_scikit_learns(shrinkage):
    features, labels, scaled = ours_and_scaled(90, 20)
    varying = scaled[:, 1:]
    centred = varying - np.stack([varying[labels == c].mean(axis=0) for c in range(3)])[labels]
    fixed = ShrunkCovariance(shrinkage=shrinkage, assume_centered=True).fit(centred)

    class Given:
        def __init__(self):
            self.covariance_ = fixed.covariance_

        def fit(self, X):
            return self

        def get_params(self, deep=True):
            return {}

    reference = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Given()).fit(varying, labels)
    ours = Discriminant(shrinkage).fit(features[:1], labels).probabilities(features[0])
    np.testing.assert_allclose(ours, reference.predict_proba(varying), atol=2e-2)


def test_unknown_heads_list_the_close_ones():
    with pytest.raises(UnknownNameError, match="Did you mean logistic"):
        head_class("logistik")
    assert {"logistic", "mean", "ridge", "lda", "knn"} <= HEADS.keys()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LogisticRegression(C=0), "C must be above 0"),
        (lambda: Ridge("best"), "above 0 or loo"),
        (lambda: Discriminant(0), "above 0 and at most 1"),
        (lambda: NearestNeighbours(0), "at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(make, said):
    with pytest.raises(UsageError, match=said):
        make()


def test_labels_that_do_not_belong_to_the_features_are_refused():
    features, labels = clouds()
    with pytest.raises(DataError, match="one for each of 60 photos, got 59"):
        Ridge().fit(features, labels[1:])
    with pytest.raises(DataError, match="expected class indices 0 to 1, got 0 to 2"):
        Ridge().fit(features, labels, classes=2)


@pytest.mark.parametrize("name", ["ridge", "logistic", "lda"])
def test_the_number_of_cores_does_not_show(name, monkeypatch):
    from topgraft.splits import folds

    features, labels = clouds(photos=80, width=300)
    kind = head_class(name)
    found = []
    for cores in (1, 4):
        monkeypatch.setenv("TOPGRAFT_THREADS", str(cores))
        swept = kind.sweep(features, labels, folds(labels, None, 4, 0), kind.grid(), classes=3)
        found.append(b"".join(logits.tobytes() for logits in swept))
    assert found[0] == found[1]


@pytest.mark.parametrize("shrinkage", [0.05, 0.95])
def test_a_discriminant_of_one_photo_a_class_is_the_nearest(shrinkage):
    features = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
    head = Discriminant(shrinkage).fit(features, np.arange(3))
    assert (head.logits(features).argmax(axis=1) == np.arange(3)).all()
    assert np.abs(head.logits(features)).max() < 1e4
