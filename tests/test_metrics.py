"""Scores equal scikit-learn's, and intervals cover what they say."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from topgraft import metrics
from topgraft.metrics import Estimate, effective, in_words, summary, wilson


def answers(seed, n=160, classes=3, sharp=1.0, prior=None):
    """Draw probabilities and labels that follow them: a perfectly calibrated head."""
    rng = np.random.default_rng(seed)
    logits = sharp * rng.standard_normal((n, classes)) + (0 if prior is None else np.log(prior))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random(n)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1)
    return np.minimum(labels, classes - 1), probabilities


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_every_score_equals_scikit_learns(classes):
    labels, probabilities = answers(1, classes=classes)
    probabilities = np.maximum(np.round(probabilities, 2), 0.01)  # ties
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    said = probabilities.argmax(axis=1)
    names = [f"c{i}" for i in range(classes)]
    found = summary(labels, probabilities, names)
    table = np.eye(classes)[labels]
    expected = {
        "accuracy": reference.accuracy_score(labels, said),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, said),
        "log_loss": reference.log_loss(labels, probabilities),
        "macro_f1": reference.f1_score(labels, said, average="macro"),
        "mcc": reference.matthews_corrcoef(labels, said),
        "roc_auc": np.mean(
            [reference.roc_auc_score(table[:, c], probabilities[:, c]) for c in range(classes)]
        ),
        "average_precision": np.mean(
            [reference.average_precision_score(table[:, c], probabilities[:, c]) for c in range(classes)]
        ),
    }
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value, abs=1e-9), name
        assert found[name]["low"] < value < found[name]["high"], name
    precision, recall, f1, support = reference.precision_recall_fscore_support(labels, said)
    for c, name in enumerate(names):
        row = found["per_class"][name]
        got = [row["precision"]["value"], row["recall"]["value"], row["f1"]["value"], row["support"]]
        assert got == pytest.approx([precision[c], recall[c], f1[c], support[c]])
    assert found["confusion"] == reference.confusion_matrix(labels, said).tolist()
    assert set(found["top_k"]) == {str(k) for k in (3, 5) if k < classes}
    json.dumps(found, allow_nan=False)


def test_perfect_answers_on_few_photos_stay_uncertain():
    labels = np.arange(32) % 2
    found = summary(labels, np.eye(2)[labels] * 0.98 + 0.01, ["a", "b"])
    assert found["accuracy"]["low"] == pytest.approx(0.893, abs=0.001)
    for name in ("balanced_accuracy", "macro_f1", "mcc", "roc_auc", "average_precision"):
        assert found[name]["value"] == pytest.approx(1)
        assert found[name]["low"] < 0.95, name


@pytest.mark.parametrize("labels", [[0, 1], [0, 0, 1], [0, 1, 1, 0]])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_smallest_sets_have_intervals_that_hold_their_values(labels, grouped):
    labels = np.array(labels)
    groups = np.zeros(len(labels), np.int64) if grouped else None
    for said in (labels, 1 - labels, np.zeros_like(labels)):
        found = summary(labels, np.eye(2)[said] * 0.6 + 0.2, ["a", "b"], groups=groups)
        for name in ("balanced_accuracy", "macro_f1", "mcc", "roc_auc", "average_precision", "log_loss"):
            one = found[name]
            assert one["low"] <= one["value"] + 1e-12, (name, one)
            assert one["value"] <= one["high"] + 1e-12, (name, one)
        json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("right", [0, 1, 16, 31, 32])
def test_wilson_is_the_textbooks(right):
    from scipy.stats import binomtest

    expected = binomtest(right, 32).proportion_ci(method="wilson")
    found = wilson(right, 32)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_no_photos_tell_nothing():
    assert wilson(0, 0) == Estimate(0.5, 0.0, 1.0)


def test_photos_of_one_class_tell_nothing_of_balance_and_ranking():
    labels = np.zeros(6, np.int64)
    found = summary(labels, np.tile([0.9, 0.1], (6, 1)), ["a", "b"])
    for name in ("balanced_accuracy", "mcc", "roc_auc", "average_precision"):
        assert found[name] is None, name
    assert found["accuracy"]["value"] == found["macro_f1"]["value"] == 1
    assert summary(labels, np.ones((6, 1)), ["a"])["macro_f1"] is None
    assert "of one class" in metrics.silent(labels)
    assert not metrics.silent(np.array([0, 1]))
    assert not metrics.silent(np.ones((4, 1), np.int64))


@pytest.mark.parametrize("draws", [300, pytest.param(800, marks=pytest.mark.nightly)])
def test_intervals_cover_the_truth_95_times_in_100(draws):
    """Give or take what is seen 99 times in 100 where the coverage is 95 %: of 800 draws 93 to 97."""
    given = {"classes": 2, "sharp": 1.5}
    labels, probabilities = answers(7, n=400_000, **given)
    said = probabilities.argmax(axis=1)
    truth = {
        "accuracy": (labels == said).mean(),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, said),
        "log_loss": metrics.losses(labels, probabilities).mean(),
        "macro_f1": reference.f1_score(labels, said, average="macro"),
    }
    held = dict.fromkeys(truth, 0)
    for seed in range(draws):
        labels, probabilities = answers(seed + 1000, n=160, **given)
        found = metrics.brief(labels, probabilities[None], losses=metrics.losses(labels, probabilities)[None])
        for score, value in truth.items():
            held[score] += found[score]["low"] <= value <= found[score]["high"]
    for score, count in held.items():
        assert abs(count / draws - 0.95) <= 2.58 * np.sqrt(0.95 * 0.05 / draws), score


@pytest.mark.parametrize(
    ("sizes", "accuracy", "draws"),
    [
        ([16] * 2, 0.9, 800),
        ([86, 12], 0.7, 800),
        ([10] * 10, 0.8, 800),
        ([20] * 20, 0.9, 600),
        ([5] * 100, 0.8, 200),
        ([18] * 100, 0.8, 200),
    ],
    ids=["2x16", "86+12", "10x10", "20x20", "100x5", "100x18"],
)
def test_scores_of_a_confusion_cover_with_any_number_of_classes(sizes, accuracy, draws):
    """Balanced accuracy and macro F1 in 95 of 100 sets, give or take what `draws` of them cannot tell."""
    rng = np.random.default_rng(0)
    C, labels = len(sizes), np.repeat(np.arange(len(sizes)), sizes)
    expected = np.outer(sizes, np.full(C, (1 - accuracy) / (C - 1)))
    np.fill_diagonal(expected, np.array(sizes) * accuracy)
    precision = np.diagonal(expected) / expected.sum(axis=0)
    truth = {
        "balanced_accuracy": accuracy,
        "macro_f1": (2 * precision * accuracy / (precision + accuracy)).mean(),
    }
    held = dict.fromkeys(truth, 0)
    for _ in range(draws):
        missed = (labels + rng.integers(1, C, len(labels))) % C
        said = np.where(rng.random(len(labels)) < accuracy, labels, missed)
        found = metrics._of_confusion(metrics.confusion(labels, said, C), 1.0)
        for score, value in truth.items():
            held[score] += found[score]["low"] <= value <= found[score]["high"]
    for score, count in held.items():
        assert 0.95 - 2.5 * np.sqrt(0.95 * 0.05 / draws) - 0.01 <= count / draws <= 0.985, score


@pytest.mark.parametrize(
    ("sizes", "sharp", "draws"),
    [([16, 16], 1.5, 300), ([80, 80], 2, 200), ([86, 12], 1.5, 200), ([10] * 10, 2, 60)],
    ids=["2x16", "2x80", "86+12", "10x10"],
)
def test_rankings_cover_with_few_photos(sizes, sharp, draws):
    """ROC AUC and average precision; with many classes their intervals are a little too wide."""
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(len(sizes)), sizes)

    def drawn(labels):
        logits = rng.standard_normal((len(labels), len(sizes))) + sharp * np.eye(len(sizes))[labels]
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    many = np.repeat(labels, 200_000 // len(labels))
    answers = drawn(many)
    table = np.eye(len(sizes))[many]
    truth = {
        "roc_auc": np.mean([reference.roc_auc_score(table[:, c], answers[:, c]) for c in set(labels)]),
        "average_precision": np.mean(
            [reference.average_precision_score(table[:, c], answers[:, c]) for c in set(labels)]
        ),
    }
    held = dict.fromkeys(truth, 0)
    for seed in range(draws):
        weights = metrics.resample(len(labels), seed=seed, draws=200)
        found = metrics._of_ranking(labels, drawn(labels), weights, 1.0)
        for score, value in truth.items():
            held[score] += found[score]["low"] <= value <= found[score]["high"]
    for score, count in held.items():
        assert count / draws >= 0.95 - 2.5 * np.sqrt(0.95 * 0.05 / draws) - 0.01, (score, count / draws)


def test_an_interval_is_the_same_whatever_groups_are_called():
    labels, probabilities = answers(3, n=40)
    groups = np.repeat(np.arange(20), 2)
    renamed = np.random.default_rng(0).permutation(20)[groups]
    assert summary(labels, probabilities, "abc", groups=groups) == summary(
        labels, probabilities, "abc", groups=renamed
    )


def test_repeats_do_not_narrow_the_interval():
    labels, probabilities = answers(3)
    loss = metrics.losses(labels, probabilities)
    once = metrics.brief(labels, probabilities[None], losses=loss[None])
    five = metrics.brief(labels, np.stack([probabilities] * 5), losses=np.stack([loss] * 5))
    for name in once:
        assert five[name] == pytest.approx(once[name]), name


def test_answers_out_of_fold_say_less():
    labels, probabilities = answers(3, n=90)
    held, folded = (summary(labels, probabilities, "abc", out_of_fold=told) for told in (False, True))
    ratio = 1 / np.sqrt(metrics.OUT_OF_FOLD)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss"):
        assert held[name]["value"] == pytest.approx(folded[name]["value"])
        width = [told[name]["high"] - told[name]["low"] for told in (held, folded)]
        assert 1.1 < width[1] / width[0] < 1.01 * ratio, name


@given(st.integers(1, 400), st.floats(0, 1), st.integers(1, 400), st.floats(0, 1))
def test_the_headline_is_the_narrower_where_the_test_is_small_or_better(learned, ours, tested, theirs):
    crossed = wilson(round(ours * learned) * metrics.OUT_OF_FOLD, learned * metrics.OUT_OF_FOLD)
    test = wilson(round(theirs * tested), tested)
    found = metrics.headline(crossed, test, tested)
    apart = max(crossed.low, test.low) > min(crossed.high, test.high)  # more than chance, surely
    if "learned from" in found.why:
        assert found.key == "test"
        assert tested >= metrics.FEW
        assert metrics.apart(crossed, test).low > 0
    elif found.why:
        mine, others = (crossed, test) if found.key == "cross_validation" else (test, crossed)
        assert mine.high - mine.low <= others.high - others.low
        assert ("more than chance" in found.why) or (tested < metrics.FEW and not apart)
        assert found.why.format("A", "B").startswith("Believe A rather than B: ")
    else:
        assert found.key == "test"
        assert tested >= metrics.FEW
        assert not apart
    assert {found.key, found.other} == {"test", "cross_validation"}


def test_a_large_test_that_is_worse_is_believed_whatever_the_cross_validation_says():
    # as it was on 81 kinds of groceries, with the set's own test photos
    found = metrics.headline(wilson(1020, 1045), wilson(948, 1204), 1204)
    assert found.key == "test"
    assert "learned from" in found.why
    assert metrics.headline(wilson(1020, 1045), wilson(20, 49), 49).key == "cross_validation"  # of few photos


def test_the_headline_of_one_measurement_needs_no_reason():
    assert metrics.headline(wilson(8, 10), None) == metrics.Headline("cross_validation")
    assert metrics.headline(wilson(80, 100), wilson(78, 100), 100) == metrics.Headline("test")


def test_photos_that_belong_together_count_as_one():
    labels, probabilities = answers(3, n=40)
    copies = np.repeat(np.arange(40), 4)
    alone = summary(labels, probabilities, "abc")
    fourfold = summary(labels[copies], probabilities[copies], "abc", groups=copies)
    assert effective(copies, 160) == 40
    for name in ("accuracy", "balanced_accuracy", "log_loss"):
        assert fourfold[name] == pytest.approx(alone[name], abs=0.03), name


def test_a_bootstrap_of_a_mean_is_the_normal_interval():
    values = np.random.default_rng(0).exponential(size=400)
    draws = metrics.resample(400, seed=1)
    found = metrics.percentile(values.mean(), draws @ values / draws.sum(axis=1))
    reach = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.02)
    assert (metrics.resample(400, seed=1) == draws).all()


def test_the_interval_of_a_mean_knows_groups_and_skew():
    values = np.random.default_rng(0).exponential(size=60)
    copies = np.repeat(np.arange(60), 3)
    alone = metrics.mean_of(values, metrics.resample(60))
    grouped = metrics.mean_of(values[copies], metrics.resample(180, copies), copies)
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high))
    assert alone.high - alone.value > 1.1 * (alone.value - alone.low)
    assert metrics.mean_of(np.ones(5), metrics.resample(5)) == Estimate(1.0, 1.0, 1.0)
    few = metrics.mean_of(np.array([0.7, 0.71, 0.7, 0.72, 0.71, 0.7, 2.7]), metrics.resample(7))
    assert few.high <= 2.7  # draws without the last photo have next to no spread


def test_words_for_few_photos():
    assert in_words(wilson(12, 12), 12) == (
        "12 of 12 photos right (1.000). On new photos of the same kind expect 0.76 to 1.00:"
        " 12 photos say no more than that, each moves the number by 0.08."
    )
    assert "no mistake on 32 photos still allows about 9 in 100" in in_words(wilson(32, 32).as_dict(), 32)
    assert "differences below 0.05 between two results on 160 photos are mostly noise" in in_words(
        wilson(140, 160), 160
    )
    assert in_words(wilson(9000, 10000), 10000).endswith("expect 0.89 to 0.91.")
