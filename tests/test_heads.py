"""Every head against the suite, and those that need no PyTorch against what is known about them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.linear_model import Ridge as RidgeReference

from topgraft.backbones.depths import Depth, Depths
from topgraft.errors import DataError, UnknownNameError, UsageError
from topgraft.heads import HEADS, head_class, setting_text
from topgraft.heads._average import Average
from topgraft.heads._knn import NearestNeighbours
from topgraft.heads._linear import Discriminant, NearestMean, prepare_all
from topgraft.heads._logistic import LogisticRegression
from topgraft.heads._network import MLP, T1, Deep, Flat, Light, LinearBN, TwoDense
from topgraft.heads._ridge import STRENGTHS, Ridge, leave_one_out_errors
from topgraft.heads._rows import SHARES, floored, moments
from topgraft.selection.gram import accumulate
from topgraft.testing.heads import HeadSuite, clouds, clouds_of_every_depth


class TestNearestMean(HeadSuite):
    head = NearestMean


class TestRidge(HeadSuite):
    head = Ridge
    setting: ClassVar = {"strength": 0.01}


class TestRidgeByLeavingOut(HeadSuite):
    head = Ridge
    setting: ClassVar = {"strength": "loo"}


class TestRidgeOfEveryDepth(HeadSuite):
    head = Ridge
    setting: ClassVar = {"strength": 0.003, "depths": "mostly-blocks"}


class TestDiscriminantOfEveryDepth(HeadSuite):
    head = Discriminant
    setting: ClassVar = {"shrinkage": 0.5, "depths": "equal"}


class TestLogisticRegressionOfEveryDepth(HeadSuite):
    head = LogisticRegression
    setting: ClassVar = {"C": 0.1, "depths": "mostly-last"}


class TestAverage(HeadSuite):
    head = Average
    setting: ClassVar = {
        "ridge.strength": 0.003,
        "ridge.depths": "equal",
        "ridge.temperature": 0.3,
        "logistic.C": 0.1,
        "logistic.temperature": 1.0,
    }


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
    """TwoDense with more and wider layers: nothing in the code knows the difference."""

    pytestmark = pytest.mark.nightly
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
    return features, labels, scaled_by_hand(features[0])


def scaled_by_hand(rows):
    """Standardise with the floor, and bring the total variance to 1,280."""
    rows = rows.astype(np.float64)
    variance = np.where(rows.std(axis=0) > 1e-3, rows.var(axis=0), 0)
    floor = np.minimum(variance, np.quantile(variance, 0.9)).mean()
    scaled = (rows - rows.mean(axis=0)) / np.sqrt(variance + floor)
    return scaled * np.sqrt(1280 / scaled.var(axis=0).sum())


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
    scaled = scaled_by_hand(flat)
    penalty = strength * 1280 * len(flat)
    reference = RidgeReference(alpha=penalty).fit(scaled, 2 * np.eye(3)[np.tile(labels, 3)] - 1)
    np.testing.assert_allclose(direct, reference.predict(scaled[:photos]), atol=1e-3)
    np.testing.assert_allclose(streamed, reference.predict(scaled[:photos]), atol=1e-3)


@pytest.mark.parametrize("depths", ["last", "mostly-blocks"])
def test_many_rows_are_left_as_they_are_and_weights_turned(depths, monkeypatch):
    features, labels = clouds(photos=60, width=10, views=2)
    columns = Depths(4, (Depth(name="a", channels=3),))
    rows = prepare_all(features, labels, classes=3, sample_weight=None, depths=columns).at(depths)
    settings = [{"C": C} for C in (0.001, 0.1)]
    copied = LogisticRegression.solve(rows, settings)
    monkeypatch.setattr("topgraft.heads._logistic.MANY", 0)
    for (weight, bias), (same, level) in zip(copied, LogisticRegression.solve(rows, settings), strict=True):
        np.testing.assert_allclose(weight, same, atol=5e-3 * np.abs(weight).max())
        np.testing.assert_allclose(bias, level, atol=1e-3)


def test_sums_of_all_but_one_fold_are_the_fold():
    features, labels = clouds(photos=60, width=20)
    parts = [accumulate([(features[0, p::3], labels[p::3])], 20, 3) for p in range(3)]
    (fold,) = Ridge.path_from_sums(parts[0] + parts[1] + parts[2] - parts[1], [0.1])
    rest = np.concatenate([np.arange(60)[p::3] for p in (0, 2)])
    (alone,) = Ridge.path_from_sums(accumulate([(features[0, rest], labels[rest])], 20, 3), [0.1])
    np.testing.assert_allclose(fold.logits(features[0]), alone.logits(features[0]), atol=1e-4)


@pytest.mark.parametrize("depths", ["last", "mostly-blocks"])
def test_leaving_out_in_closed_form_is_leaving_out(depths):
    features, labels = clouds(photos=24, width=10, views=3)
    scale = features.std(axis=(0, 1)) + 1e-9
    features = (features / np.where(scale > 1e-3, scale, 1)).astype(np.float64)
    columns = Depths(4, (Depth(name="a", channels=3),))
    prepared = prepare_all(features, labels, classes=3, sample_weight=None, depths=columns)
    rows = prepared.at(depths)
    for strength, found in zip(STRENGTHS, leave_one_out_errors(rows, STRENGTHS), strict=True):
        total = 0.0
        penalty = strength * np.trace(rows.covariance)
        z, target = rows.z.astype(np.float64) * rows.roots, 2 * rows.indicators - 1
        for i in range(24):
            keep = np.arange(len(z)) % 24 != i
            mean, offset = z[keep].mean(axis=0), target[keep].mean(axis=0)
            centred = z[keep] - mean
            gram = centred.T @ centred / len(z) + penalty * np.eye(z.shape[1])
            weight = np.linalg.solve(gram, centred.T @ (target[keep] - offset) / len(z))
            total += ((target[i] - offset - (z[i] - mean) @ weight) ** 2).sum()
        assert found == pytest.approx(total / 24, rel=1e-6)


@pytest.mark.parametrize("shrinkage", [0.9, 0.2])
def test_the_discriminant_is_scikit_learns(shrinkage):
    features, labels, varying = ours_and_scaled(90, 20)
    centred = varying - np.stack([varying[labels == c].mean(axis=0) for c in range(3)])[labels]
    within = centred.T @ centred / len(centred)
    shrunken = (1 - shrinkage) * within + shrinkage * np.trace(within) / 1280 * np.eye(20)

    class Given:
        def __init__(self):
            self.covariance_ = shrunken

        def fit(self, X):
            return self

        def get_params(self, deep=True):
            return {}

    reference = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Given()).fit(varying, labels)
    ours = Discriminant(shrinkage).fit(features[:1], labels).probabilities(features[0])
    np.testing.assert_allclose(ours, reference.predict_proba(varying), atol=2e-2)


def total_variances(head, rows, depths):
    """Return how the variance of the logits is shared between the groups of columns, by their own."""
    found = {}
    for name, part in depths.groups().items():
        own = np.zeros_like(rows[0])
        own[:, part] = rows[0][:, part] - rows[0][:, part].mean(axis=0)
        found[name] = head.logits(own).var(axis=0).sum()
    return found


def test_depths_say_how_much_each_group_of_columns_counts():
    rows, labels, depths = clouds_of_every_depth()
    heavy = {}
    for name, shares in SHARES.items():
        head = Ridge(0.1, depths=name).fit(rows, labels, depths=depths)
        found = total_variances(head, rows, depths)
        heavy[name] = found["last"] / sum(found.values())
        if set(shares) == {"last"}:
            assert head.width == depths.last
        else:
            assert head.width == depths.width
    assert list(heavy) == sorted(heavy, key=heavy.get, reverse=True)
    assert heavy["last"] == 1
    assert heavy["blocks"] == 0


@pytest.mark.parametrize("photos", [30, 400], ids=["fewer rows than columns", "more"])
def test_a_combination_of_groups_is_ridge_on_scaled_columns(photos):
    rows, labels, depths = clouds_of_every_depth(photos=photos, views=1)
    flat = rows[0].astype(np.float64)
    ours = Ridge(0.01, depths="equal").fit(rows, labels, depths=depths).logits(rows[0])
    columns = depths.groups()
    blocks = {
        name: [columns["last"]]
        if name == "last"
        else [depths.columns(one.name, name) for one in depths.blocks]
        for name in columns
    }
    scaled = np.zeros_like(flat)
    for name, share in SHARES["equal"].items():
        for part in blocks[name]:
            variance = flat[:, part].var(axis=0)
            floor = np.minimum(variance, np.quantile(variance, 0.9)).mean()
            scaled[:, part] = (flat[:, part] - flat[:, part].mean(axis=0)) / np.sqrt(variance + floor)
        total = scaled[:, columns[name]].var(axis=0).sum()
        scaled[:, columns[name]] *= np.sqrt(1280 * share / total)
    reference = RidgeReference(alpha=0.01 * 1280 * photos).fit(scaled, 2 * np.eye(3)[labels] - 1)
    np.testing.assert_allclose(ours, reference.predict(scaled), atol=1e-3)


def test_blocks_tell_what_the_last_layer_does_not():
    rows, labels, depths = clouds_of_every_depth(last_knows=0.0)
    fit, held = np.arange(len(labels)) % 2 == 0, np.arange(len(labels)) % 2 == 1
    right = [
        np.mean(
            Ridge(0.01, depths=name)
            .fit(rows[:, fit], labels[fit], depths=depths)
            .logits(rows[0, held])
            .argmax(axis=1)
            == labels[held]
        )
        for name in ("last", "equal")
    ]
    assert right[0] < 0.6 < 0.8 < right[1]


def test_depths_without_block_features_say_so():
    features, labels = clouds()
    with pytest.raises(DataError, match=r"expected block features.*no means and no spreads.*--depths last"):
        Ridge(depths="equal").fit(features, labels)
    with pytest.raises(UnknownNameError, match="Did you mean equal"):
        Ridge(depths="equl")


def test_a_column_a_thousand_times_louder_does_not_silence_its_block():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((200, 50)) * np.r_[1e4, np.ones(49)]
    _, variance = moments(rows.sum(axis=0), (rows**2).sum(axis=0), 200)
    inverse = floored(variance, [slice(0, 50)])
    np.testing.assert_allclose((rows * inverse).std(axis=0)[1:], np.sqrt(0.5), rtol=0.1)
    assert floored(np.zeros(5), [slice(0, 5)]).tolist() == [0.0] * 5


def test_the_mean_of_heads_is_the_mean_of_their_cooled_logits():
    rows, labels, depths = clouds_of_every_depth()
    members = {"ridge": ({"strength": 0.01, "depths": "equal"}, 0.5), "lda": ({"shrinkage": 0.5}, 2.0)}
    head = Average.of(members)
    found = head.fit(rows, labels, depths=depths).logits(rows[0])
    expected = np.zeros_like(found)
    for name, (setting, temperature) in members.items():
        logits = head_class(name)(**setting).fit(rows, labels, depths=depths).logits(rows[0])
        expected += (logits - logits.mean(axis=1, keepdims=True)) / temperature / 2
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert setting_text(head.setting) == "ridge strength=0.01, depths=equal; lda shrinkage=0.5"
    for wrong in ({"ridg.strength": 1}, {"ridge.temperature": 0}):
        with pytest.raises(UsageError):
            Average(**wrong)


def test_many_photos_and_views_are_read_on_fewer_axes_that_lose_little():
    rows, labels, depths = clouds_of_every_depth(photos=60, views=10, width=700)
    head = Ridge(0.01, depths="equal").fit(
        rows, labels, depths=depths
    )  # 600 rows, 256 axes of the last layer
    assert prepare_all(rows, labels, classes=3, sample_weight=None, depths=depths).z.shape[1] < 600
    assert np.mean(head.logits(rows[0]).argmax(axis=1) == labels) > 0.95


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
    assert np.abs(head.logits(features)).max() < 1e5  # 1,280 of variance over a twentieth
