"""Trust: said probabilities, the unknown answer, labels that look wrong."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from topgraft.heads._base import head_class
from topgraft.heads._linear import NearestMean
from topgraft.selection.compare import compare, fit_chosen
from topgraft.testing.heads import clouds, multilabel_indicators
from topgraft.trust.trust import calibration_error, if_calibrated, label_issues, reliability, trust
from topgraft.trust.unknown import (
    NearestDistance,
    choose,
    class_against_class,
    evenly,
    learn_unknown,
    measure,
    neighbours,
    say_of_unknown,
    threshold,
)

EDGES = np.linspace(0.5, 1, 11)


def answers(seed, n=300, lie=0.0):
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.5, 1, n)
    return sure, (rng.random(n) < sure - lie).astype(float)


def test_the_calibration_error_knows_what_chance_does():
    honest = [calibration_error(*answers(seed), EDGES, seed=seed) for seed in range(40)]
    lying = [calibration_error(*answers(seed, lie=0.25), EDGES, seed=seed) for seed in range(40)]
    perfect = if_calibrated(answers(0)[0], EDGES)
    assert 0.01 < perfect.low < perfect.high < 0.12
    assert sum(error.value <= perfect.high for error in honest) >= 36
    assert sum(error.value > perfect.high for error in lying) >= 39
    covered = sum(error.low <= 0.25 <= error.high for error in lying)
    assert covered >= 34
    assert all(0 <= error.low <= error.value <= error.high for error in honest + lying)


def test_near_duplicates_do_not_make_chance_look_like_a_lie():
    groups = np.repeat(np.arange(40), 5)
    accused = 0
    for seed in range(100):
        sure, right = (np.repeat(answer, 5) for answer in answers(seed, n=40))
        error = calibration_error(sure, right, EDGES, groups=groups, seed=seed)
        accused += error.value > if_calibrated(sure, EDGES, groups=groups, seed=seed).high
    assert accused <= 9  # 2.5 expected


def test_several_answers_a_photo_are_counted_and_drawn_with_it():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 300)
    right = (rng.random(300) < sure).astype(float)
    alone = calibration_error(sure, right, EDGES)
    twice = calibration_error(np.repeat(sure, 2), np.repeat(right, 2), EDGES, photos=300)
    assert (twice.value, twice.low, twice.high) == pytest.approx((alone.value, alone.low, alone.high))
    assert if_calibrated(sure, EDGES, photos=100).high < 0.12


def test_yes_and_no_answers_have_bins_from_one_half():
    features, labels = clouds(photos=60)
    table = multilabel_indicators(labels, 3)
    rows = trust(compare(features, table, heads=["ridge"]), features[0], table).numbers["reliability"]
    assert (rows[0]["low"], rows[-1]["high"]) == (0.5, 1.0)


@pytest.mark.parametrize("seed", range(4))
def test_an_error_that_chance_explains_may_be_none(seed):
    features, labels = clouds(photos=60, seed=seed)
    found = compare(features, labels, heads=["ridge"])
    chance = trust(found, features[0], labels)
    assert chance.numbers["ece"]["value"] <= chance.numbers["ece_if_calibrated"]["high"]
    assert chance.numbers["ece"]["low"] == 0
    assert "no more than chance gives" in chance.notes[0]
    swapped = trust(found, features[0], (labels + 1) % 3)
    assert swapped.numbers["ece"]["low"] > 0.3
    assert ", more than chance gives" in swapped.notes[0]


def test_the_reliability_diagram_counts_every_answer():
    sure, right = answers(1)
    rows = reliability(sure, right, EDGES)
    assert sum(row["count"] for row in rows) == 300
    assert all(row["low"] <= row["confidence"] <= row["high"] for row in rows if row["count"])
    assert reliability(np.array([1.0]), np.array([1.0]), EDGES)[0]["accuracy"] is None


def test_swapped_labels_are_found():
    features, labels = clouds(photos=120)
    wrong = labels.copy()
    swapped = np.arange(5, 120, 20)
    wrong[swapped] = (labels[swapped] + 1) % 3
    found = compare(features, wrong, heads=["logistic"])
    issues = label_issues(wrong, found.oof[0])
    assert len(set(swapped) & {photo for photo, _, _ in issues}) >= 5
    assert len(issues) <= 9
    assert all(suggested == labels[photo] for photo, suggested, _ in issues if photo in swapped)


def test_photos_that_are_predicted_as_labelled_are_no_label_issues():
    labels = np.repeat([0, 1, 2], [30, 30, 2])
    probabilities = np.repeat([[0.8, 0.15, 0.05], [0.15, 0.8, 0.05], [0.5, 0.5, 0.0]], [30, 30, 2], axis=0)
    # the class of 2 photos is never foreseen, so its usual likelihood is 0: all photos would pass it
    assert {photo for photo, _, _ in label_issues(labels, probabilities)} == set()
    probabilities[3] = [0.1, 0.85, 0.05]
    probabilities[7] = [0.1, 0.1, 0.8]  # of a class too small to know how its photos look
    assert label_issues(labels, probabilities) == [(3, 1, 0.85)]
    # a usual likelihood below 1/C is no evidence either
    vague = np.tile([0.4, 0.3, 0.3], (30, 1))
    vague[0] = [0.34, 0.33, 0.33]
    assert label_issues(np.repeat([0, 1, 2], 10), vague)[0][1] == 0
    assert all(other == 0 for _, other, _ in label_issues(np.repeat([0, 1, 2], 10), vague))


def test_the_threshold_accepts_what_it_says():
    rng = np.random.default_rng(0)
    share = [(rng.exponential(size=500) <= threshold(rng.exponential(size=160))).mean() for _ in range(400)]
    assert 0.945 < np.mean(share) < 0.96
    assert threshold(np.arange(10.0)) == 9


def test_a_threshold_is_in_the_numbers_and_notes_or_a_note_says_that_there_is_none():
    features, labels = clouds(photos=60)
    judged = trust(compare(features, labels, heads=["ridge"]), features[0], labels)
    found = judged.answering(None, 0.8)
    assert found.answer_above == judged.coverage.threshold_for(0.8)
    assert found.numbers["coverage"]["chosen"] == judged.coverage.at(found.answer_above)
    assert found.notes[-1].startswith("Answered only above ")
    assert "chosen" not in judged.numbers["coverage"]
    assert judged.answering(0.7, None).numbers["coverage"]["chosen"]["above"] == 0.7
    assert judged.answering(None, None) is judged
    none = judged.answering(None, 1.0)
    assert none.answer_above is None
    assert none.notes[-1] == "No threshold makes 100% of the answers right; all are answered."


@pytest.mark.parametrize("multilabel", [False, True])
def test_strangers_are_unknown_and_most_photos_are_not(multilabel):
    features, labels = clouds(photos=120)
    features = features[:, :, 2:]
    given = multilabel_indicators(labels, 3) if multilabel else labels
    found = compare(features, given, heads=["ridge"])
    judged = trust(found, features[0], given, ids=[f"p{i}" for i in range(120)], classes=list("abc"))
    head = fit_chosen(found, features, given)
    unknown = judged.unknown
    assert unknown.accepted == pytest.approx(0.95, abs=0.02)
    assert (judged.distances <= unknown.threshold).mean() == unknown.accepted
    far = -features[0]
    said = unknown.distance(far, head.logits(far)) > unknown.threshold
    assert said.mean() > 0.5
    json.dumps(judged.numbers, allow_nan=False)
    assert judged.numbers["unknown"]["method"] in ("neighbours", "mahalanobis", "energy")
    assert set(judged.numbers["unknown"]["evidence"]) == (
        set() if multilabel else {"neighbours", "mahalanobis", "energy"}
    )
    assert judged.notes


def test_the_evidence_points_to_the_distance_that_works():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 4
    # Classes are directions; how long a row is says nothing, and there is much of it: cosine is right.
    rows = (5 * np.eye(4, 30)[labels] + 0.3 * rng.standard_normal((120, 30))) * rng.uniform(0.2, 5, (120, 1))
    found = class_against_class(
        rows.astype(np.float32), labels, None, kind=NearestMean, setting={}, seed=0, k=5
    )
    assert found["neighbours"][0] > 0.95
    assert found["neighbours"][0] > found["mahalanobis"][0]
    assert choose(found) == "neighbours"
    two = class_against_class(
        rows[labels < 2].astype(np.float32),
        labels[labels < 2],
        None,
        kind=NearestMean,
        setting={},
        seed=0,
        k=5,
    )
    assert set(two) == {"neighbours", "mahalanobis"}


def test_a_distance_must_be_better_by_more_than_its_error():
    draws = np.random.default_rng(0).normal(0, 0.02, (2, 200))
    flat = np.array([0.7, *(0.7 + draws[0])])
    for lead, taken in ((0.01, "neighbours"), (0.1, "mahalanobis"), (-0.2, "neighbours")):
        areas = {"neighbours": flat, "mahalanobis": np.array([0.7 + lead, *(0.7 + lead + draws[1])])}
        assert choose(areas) == taken
    assert choose({}) == "neighbours"
    # a draw without any photo of a class has no area; it must not switch the guard off
    lead = {"neighbours": flat, "mahalanobis": np.array([0.71, *(0.71 + draws[1])])}
    lead["mahalanobis"][3] = np.nan
    assert choose(lead) == "neighbours"


def test_photos_of_no_group_are_each_alone():
    features, labels = clouds(photos=60, classes=2)
    found = [
        class_against_class(features[0], labels, groups, kind=NearestMean, setting={}, seed=0, k=5)
        for groups in (None, np.arange(60))
    ]
    for name in ("neighbours", "mahalanobis"):
        assert (found[0][name] == found[1][name]).all()


def test_the_whitened_distance_is_mahalanobis():
    from scipy.spatial.distance import mahalanobis as reference

    from topgraft.trust.unknown import SHRINKAGE, mahalanobis

    features, labels = clouds(width=8)
    x = features[0][:, 2:].astype(np.float64)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    means = np.stack([z[labels == c].mean(axis=0) for c in range(3)])
    inside = z - means[labels]
    covariance = (1 - SHRINKAGE) * inside.T @ inside / len(z) + SHRINKAGE * (inside**2).mean() * np.eye(6)
    precision = np.linalg.inv(covariance)
    expected = [min(reference(row, mean, precision) ** 2 for mean in means) for row in z]
    found = measure(mahalanobis(x, labels), x, np.empty((0, 0)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("photos", [12, 90])  # fewer rows than features, and more
def test_mahalanobis_distances_need_no_whitening(photos):
    from topgraft.trust.unknown import mahalanobis, mahalanobis_distances

    rng = np.random.default_rng(0)
    x, asked, labels = rng.normal(size=(photos, 40)), rng.normal(size=(7, 40)), np.arange(photos) % 3
    x[:, 0] = 1.0  # a feature that says nothing
    expected = measure(mahalanobis(x, labels), asked, np.empty((0, 0)))
    np.testing.assert_allclose(mahalanobis_distances(x, labels, asked), expected, rtol=1e-5)


def test_a_small_class_is_judged_by_its_own_photos():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [60, 4])
    rows = (6 * np.eye(2, 40)[labels] + rng.standard_normal((64, 40))).astype(np.float32)
    how = neighbours(rows, labels)
    assert how.count == 4
    fresh = (6 * np.eye(2, 40)[np.ones(20, int)] + rng.standard_normal((20, 40))).astype(np.float32)
    nothing = np.empty((0, 0))
    limit = threshold(measure(how, rows, nothing))
    five = NearestDistance(how.rows, 5)  # the fifth is of the other class
    assert measure(how, fresh, nothing).mean() < measure(five, fresh, nothing).mean() - 0.03
    assert limit < 1
    assert neighbours(rows).count == neighbours(rows, np.eye(2, dtype=int)[labels]).count == 5


def test_small_classes_are_remembered_whole():
    from topgraft.trust.unknown import REMEMBERED

    labels = np.repeat([0, 1, 2], [3 * REMEMBERED, REMEMBERED, 7])
    rows = np.zeros((len(labels), 3), np.float32)
    rows[np.arange(len(labels)), labels] = 1
    kept = neighbours(rows, labels).rows.argmax(axis=1)
    assert np.bincount(kept).tolist() == [(REMEMBERED - 7) // 2, (REMEMBERED - 7) // 2, 7]


def test_of_many_photos_some_of_every_class_choose_the_distance(monkeypatch):
    features, labels = clouds(photos=90, classes=3)
    found = compare(features, labels, heads=["ridge"])
    monkeypatch.setattr("topgraft.trust.unknown.ASKED", 30)
    judged = trust(found, features[0], labels)
    some = evenly(labels, 30)
    assert np.bincount(labels[some]).tolist() == [10, 10, 10]
    asked = class_against_class(
        features[0][some],
        labels[some],
        None,
        kind=head_class("ridge"),
        setting=found.chosen.setting,
        seed=0,
        k=len(found.folds[0]),
    )
    assert judged.numbers["unknown"]["evidence"] == {name: areas[0] for name, areas in asked.items()}
    assert judged.distances.shape == (90,)  # the threshold is of all


def test_classes_that_are_mostly_unknown_are_named():
    features, labels = clouds(photos=60, classes=2)
    labels = np.where(np.arange(60) == 59, 2, labels)
    features[:, 59] = -20 * np.abs(features[:, 59])
    judged = trust(compare(features, labels, heads=["ridge"]), features[0], labels, classes=list("abc"))
    assert judged.notes[-1].startswith("Many photos of some classes are called unknown: c (1 of 1).")


def test_out_of_fold_distances_are_of_photos_not_fitted_on():
    features, labels = clouds(photos=40)
    found = compare(features, labels, heads=["mean"])
    _, distances = learn_unknown(
        features[0],
        labels,
        None,
        found.folds[0],
        logits=found.logits[0],
        temperature=1.0,
        head="mean",
        setting={},
    )
    assert (distances > 1e-6).all()


@pytest.mark.shared
@pytest.mark.parametrize("side", [pytest.param(None, marks=pytest.mark.nightly), 144])
def test_caltech_is_unknown_to_sushi_and_sandwiches(shared, tmp_path, side):
    """Nine in ten at least; also where all pictures have as few pixels: it is not blur that is seen."""
    from topgraft import Dataset, embed

    known, strange = tmp_path / "known", tmp_path / "strange" / "other"
    for path in sorted((shared / "data" / "sushi_sandwich").glob("*/*.jpg")):
        image = Image.open(path).convert("RGB")
        if side:
            scale = side / min(image.size)
            image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
        (known / path.parent.name).mkdir(parents=True, exist_ok=True)
        image.save(known / path.parent.name / path.name, quality=85 if side else 95)
    strange.mkdir(parents=True)
    with tarfile.open(shared / "data" / "caltech101_144px.tar") as tar:
        members = sorted(
            (member for member in tar if member.name.endswith(".jpg")), key=lambda member: member.name
        )
        for member in members[::60]:
            (strange / member.name.strip("./").replace("/", "_")).write_bytes(tar.extractfile(member).read())
    store = embed(Dataset.from_folder(known), tmp_path / "known.zarr")
    others = Dataset.from_pairs(
        [str(path) for path in sorted(strange.iterdir())], ["other"] * len(members[::60])
    )
    far = embed(others, tmp_path / "far.zarr").features(0)
    found = compare(store, store.labels, store.groups, heads=["logistic"], depths="last")
    unknown = trust(found, store.features(0), store.labels, store.groups).unknown
    logits = fit_chosen(found, store, store.labels).logits(far)
    rejected = (unknown.distance(far, logits) > unknown.threshold).mean()
    assert unknown.accepted == pytest.approx(0.95, abs=0.01)
    assert rejected >= 0.9


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("classes", [2, 3])
def test_a_class_in_one_group_is_not_measured_and_none_of_its_photos_is_a_label_issue(classes):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 10)
    x = (4 * np.eye(8)[labels] + rng.normal(size=(len(labels), 8))).astype(np.float32)
    groups = np.where(labels == 1, 10, np.arange(len(labels)))
    found = compare(x, labels, groups, heads=["ridge", "mean"], folds=3)
    judged = trust(found, x, labels, groups, classes=["rice", "fish", "soup"][:classes])
    assert not [one for one in judged.numbers["label_issues"] if one["label"] == "fish"]
    assert [note for note in judged.notes if note.startswith("All 10 photos of fish are in one group")]


def test_a_small_lead_does_not_take_neighbours_away():
    draws = np.random.default_rng(0).normal(0, 0.001, (2, 200))
    near = np.array([0.7, *(0.7 + draws[0])])
    for lead, taken in ((0.01, "neighbours"), (0.04, "neighbours"), (0.06, "energy")):
        assert (
            choose({"neighbours": near, "energy": np.array([0.7 + lead, *(0.7 + lead + draws[1])])}) == taken
        )


def test_a_new_run_says_that_it_calls_other_photos_unknown(caplog):
    caplog.set_level("INFO", logger="topgraft")
    for before in ("", "neighbours"):
        say_of_unknown(before, "neighbours")
    assert not caplog.messages
    say_of_unknown("neighbours", "energy")
    assert caplog.messages[0].startswith("Photos are called unknown by energy now; it was neighbours before.")
