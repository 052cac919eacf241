"""The comparison: honest on noise, fair between heads, and the same every time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from topgraft.backbones.depths import Depth, Depths
from topgraft.errors import DataError, MissingExtraError, UnknownNameError, UsageError
from topgraft.heads import HEADS, to_probabilities
from topgraft.heads._base import HeadEntry, head_class
from topgraft.metrics import losses
from topgraft.selection.calibrate import calibrate, cross_calibrate
from topgraft.selection.candidates import Bench, Candidate, _nearest, difference, prior_log_loss
from topgraft.selection.candidates import score as judged
from topgraft.selection.compare import Choice, class_weights, compare, fit_chosen
from topgraft.selection.nested import nested
from topgraft.selection.rule import best_of, choose
from topgraft.selection.source import columns_of, stack
from topgraft.settings import Settings
from topgraft.splits import folds
from topgraft.testing.heads import clouds, clouds_of_every_depth, multilabel_indicators
from topgraft.trust.trust import trust

QUICK = ["mean", "ridge", "knn"]
rows_of = Bench.rows
LINEAR = {name for name, entry in HEADS.items() if not entry.requires}


def noise(seed, photos=80, views=2, width=60):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((views, photos, width)).astype(np.float32), rng.permutation(
        np.arange(photos) % 2
    )


def chosen_row(found):
    (row,) = [row for row in found.rows if row["chosen"]]
    return row


def test_shuffled_labels_give_chance():
    rows = [chosen_row(compare(*noise(seed), heads=QUICK, folds=5, seed=seed)) for seed in range(20)]
    covered = sum(row["accuracy"]["low"] <= 0.5 <= row["accuracy"]["high"] for row in rows)
    assert covered >= 17
    assert 0.42 < np.mean([row["accuracy"]["value"] for row in rows]) < 0.58
    # nor does anybody claim to know: a log loss much below that of a coin would be invented
    assert min(row["log_loss"]["high"] for row in rows) > 0.66


def test_near_duplicates_do_not_help():
    features, labels = noise(3, photos=40, width=400)
    twice, groups = np.repeat(np.arange(40), 2), np.repeat(np.arange(40), 2)
    apart = compare(features[:, twice], labels[twice], heads=["logistic"])
    together = compare(features[:, twice], labels[twice], groups, heads=["logistic"])
    best = [max(row["accuracy"]["value"] for row in found.rows) for found in (apart, together)]
    assert best[0] > 0.8  # a copy tells the answer
    assert best[1] < 0.72
    for fit, score in together.folds[0]:
        assert not set(groups[fit]) & set(groups[score])


def test_every_photo_is_scored_once_a_repeat_by_a_head_that_did_not_see_it():
    features, labels = clouds()
    found = compare(features, labels, heads=["ridge"], repeats=2)
    assert found.oof.shape == found.logits.shape == (2, 60, 3)
    assert len(found.folds) == 2
    for repeat, dealt in enumerate(found.folds):
        for fit, score in dealt:
            alone = found.chosen.make().fit(features[:, fit], labels[fit], classes=3)
            np.testing.assert_allclose(
                alone.logits(features[0, score]), found.logits[repeat, score], atol=1e-4
            )
    assert (found.oof != found.oof[0]).any()


def test_the_table_is_the_same_every_time():
    features, labels = clouds(photos=36)
    asked = {"heads": "linear", "folds": 4, "repeats": 2}
    first, second = (compare(features, labels, **asked, seed=4) for _ in range(2))
    assert json.dumps(first.rows, allow_nan=False) == json.dumps(second.rows)
    assert first.oof.tobytes() == second.oof.tobytes()
    assert compare(features, labels, **asked, seed=5).rows != first.rows


def test_the_table_is_sorted_and_its_best_row_has_no_difference():
    features, labels = clouds(width=20)
    found = compare(features, labels, heads="linear")
    values = [row["log_loss"]["value"] for row in found.rows]
    assert values == sorted(values)
    assert found.rows[0]["difference"] == {"value": 0, "low": 0, "high": 0}
    assert len(found.rows) >= 24
    for row in found.rows[1:]:
        assert row["difference"]["low"] <= row["difference"]["value"] <= row["difference"]["high"]
        gap = row["log_loss"]["value"] - values[0]
        assert row["difference"]["value"] == pytest.approx(gap, abs=0.01)


def test_the_table_is_made_when_it_is_asked_for_and_once(monkeypatch):
    made = []
    monkeypatch.setattr(Bench, "rows", lambda self, own: made.append(len(own)) or rows_of(self, own))
    found = compare(*noise(1), heads=QUICK)
    assert not made
    assert len(found.rows) == made[0]
    assert found.rows is found.rows
    assert len(made) == 1


def test_the_simplest_within_one_standard_error_is_chosen():
    features, labels = clouds(photos=90, width=12, seed=2)
    found = compare(features, labels, heads="linear", repeats=2, rule="one-standard-error")
    best = found.rows[0]
    assert head_class(found.chosen.head).simplicity <= head_class(best["head"]).simplicity
    # the chosen one is no clear loser: its interval holds no difference at all
    assert chosen_row(found)["difference"]["low"] <= 0


def test_the_mean_of_the_best_linear_heads_is_chosen_and_its_answers_are_theirs():
    features, labels = clouds(photos=90, width=12, seed=2)
    found = compare(features, labels, heads="linear")
    assert found.chosen.head == "average"
    assert chosen_row(found)["setting"].startswith("ridge strength=")
    members = {
        name: min(
            (row for row in found.rows if row["head"] == name), key=lambda row: row["log_loss"]["value"]
        )
        for name in ("ridge", "lda", "logistic")
    }
    for row in members.values():
        assert f"{row['head']} {row['setting']}" in chosen_row(found)["setting"]
    for fit, held in found.folds[0]:
        alone = found.chosen.make().fit(features[:, fit], labels[fit], classes=3)
        np.testing.assert_allclose(alone.logits(features[0, held]), found.logits[0, held], atol=1e-3)
    lowest = compare(features, labels, heads="linear", rule="lowest")
    assert lowest.rows[0]["chosen"]
    assert "average" not in {row["head"] for row in lowest.rows}
    with pytest.raises(UnknownNameError, match="lowest"):
        compare(features, labels, heads="linear", rule="lowst")


def guesses(labels, dealt, seed, settings=12):
    """Settings of a head that knows nothing, each with luck of its own."""
    draws = np.random.default_rng(seed).standard_normal((settings, len(dealt), len(labels), 2))
    return [judged("ridge", {"strength": i + 1.0}, (1, i), own, labels, dealt) for i, own in enumerate(draws)]


def test_answers_of_a_choice_made_on_other_folds_do_not_flatter():
    right = {"plain": [], "nested": []}
    for seed in range(8):
        labels = np.random.default_rng(seed).permutation(np.arange(60) % 2)
        dealt = [folds(labels, None, 10, seed)]
        able = guesses(labels, dealt, seed)
        winner = choose(able, labels, dealt, rule="lowest", classes=2)
        told = nested(able, winner, labels, dealt, rule="lowest", classes=2)
        right["nested"].append((told[0].argmax(axis=1) == labels).mean())
        right["plain"].append((winner.logits[0].argmax(axis=1) == labels).mean())
    assert np.mean(right["plain"]) > 0.54  # the best of twelve coins
    assert 0.4 < np.mean(right["nested"]) < 0.53


@pytest.mark.parametrize("rule", ["mean", "lowest", "one-standard-error"])
def test_a_folds_own_labels_have_no_say_in_what_answers_it(rule):
    labels = np.random.default_rng(1).permutation(np.arange(40) % 2)
    dealt = [folds(labels, None, 5, repeat) for repeat in range(2)]
    able = guesses(labels, dealt, 1, 6)
    able += [
        replace(one, head="lda", setting={"shrinkage": 0.5}, order=(2, one.order[1]))
        for one in guesses(labels, dealt, 2, 6)
    ]
    told = nested(able, able[0], labels, dealt, rule=rule, classes=2)
    assert told.shape == (2, 40, 2)
    np.testing.assert_allclose(told.sum(axis=2), 1)
    held, other = dealt[1][2][1], labels.copy()
    other[held] = 1 - other[held]
    swapped = []
    for one in able:  # what they lost on the fold, and nothing else
        lost, by_fold, hits = one.losses.copy(), one.loss_by_fold.copy(), one.right_by_fold.copy()
        lost[1, held], by_fold[7], hits[7] = 9 - lost[1, held], 9 - by_fold[7], 1 - hits[7]
        swapped.append(replace(one, losses=lost, loss_by_fold=by_fold, right_by_fold=hits))
    again = nested(swapped, swapped[0], other, dealt, rule=rule, classes=2)
    assert (again[1, held] == told[1, held]).all()
    assert (again[1] != told[1]).any()


def test_two_folds_are_answered_by_the_winner():
    features, labels = clouds(photos=24, width=8)
    found = compare(features, labels, heads=["ridge", "lda"], folds=2)
    np.testing.assert_array_equal(found.oof[0], cross_calibrate(found.logits[0], labels, found.folds[0]))


def test_few_photos_are_dealt_into_more_folds():
    features, labels = clouds(photos=60, width=4)
    assert len(compare(features, labels, heads=["mean"]).folds[0]) == 10
    many = np.tile(features, (1, 9, 1))
    assert len(compare(many, np.tile(labels, 9), heads=["mean"]).folds[0]) == 5
    assert len(compare(features, labels, heads=["mean"], folds=4).folds[0]) == 4


@pytest.fixture(scope="module")
def many():
    """More photos than are compared at every setting on every fold."""
    rng = np.random.default_rng(4)
    labels = np.arange(600) % 3
    middles = 0.5 * rng.standard_normal((3, 30))
    return (middles[labels] + rng.standard_normal((600, 30)))[None].astype(np.float32), labels


def counted(monkeypatch, name):
    """Return a list that hears how many folds and settings of a head are asked for, each time."""
    asked, sweep = [], head_class(name).sweep.__func__

    def heard(cls, features, labels, folds, settings, **rest):
        asked.append((len(folds), len(settings)))
        return sweep(cls, features, labels, folds, settings, **rest)

    monkeypatch.setattr(head_class(name), "sweep", classmethod(heard))
    return asked


@pytest.fixture
def fitted(monkeypatch):
    """What was asked of logistic regression."""
    return counted(monkeypatch, "logistic")


def test_of_many_photos_settings_that_are_clearly_worse_on_two_folds_go_no_further(many, fitted, monkeypatch):
    short = compare(*many, heads=["logistic"])
    whole = len(head_class("logistic").grid())
    (first, (later, left)) = fitted
    assert first == (2, whole)
    assert later == 3
    assert len(short.rows) == left < whole
    monkeypatch.setattr("topgraft.selection.candidates.GLANCE", 5)
    full = compare(*many, heads=["logistic"])
    assert fitted[2:] == [(5, whole)]
    assert str(short.chosen) == str(full.chosen)
    dropped = {row["setting"] for row in full.rows} - {row["setting"] for row in short.rows}
    lost = [row["difference"]["low"] for row in full.rows if row["setting"] in dropped]
    assert min(lost) > 0  # on all folds they are worse, too
    np.testing.assert_allclose(short.logits, full.logits, atol=0.01)


def test_few_groups_are_few_photos_and_a_rule_that_asks_for_the_simplest_sees_all(many, fitted):
    whole = len(head_class("logistic").grid())
    compare(*many, np.arange(600) // 2, heads=["logistic"])
    compare(*many, heads=["logistic"], rule="one-standard-error")
    assert fitted == [(5, whole), (5, whole)]


def test_repeats_and_several_labels_are_dealt_as_always(many, fitted):
    features, labels = many
    found = compare(features, labels, heads=["logistic"], repeats=2)
    assert found.logits.shape == (2, 600, 3)
    assert [folds for folds, _ in fitted] == [2, 8]
    alone = compare(features, labels, heads=["logistic"], seed=1)
    np.testing.assert_allclose(found.logits[1], alone.logits[0], atol=0.02)
    several = compare(features, multilabel_indicators(labels, 3), heads=["logistic"])
    assert several.logits.shape == (1, 600, 3)
    assert len(several.rows) < len(head_class("logistic").grid())


def test_of_many_photos_depths_that_are_clearly_worse_for_one_head_are_not_asked_of_the_next(many, fitted):
    labels, rng = many[1], np.random.default_rng(5)
    columns = Depths(30, (Depth(name="early", channels=15),))
    rows = rng.standard_normal((1, 600, columns.width)).astype(np.float32)
    rows[0, :, 30:] += 0.25 * rng.standard_normal((3, 30))[labels]  # the blocks alone know anything
    found = compare(rows, labels, heads=["ridge", "lda", "logistic"], columns=columns)
    assert fitted[0] == (2, len(head_class("logistic").grid()))
    asked = [row["setting"] for row in found.rows if row["head"] == "logistic"]
    assert all("depths=equal" in setting for setting in asked)
    other = compare(rows, labels, heads=["logistic", "lda", "ridge"], columns=columns)
    assert {row["setting"] for row in other.rows if row["head"] == "ridge"} >= {
        row["setting"] for row in found.rows if row["head"] == "ridge"
    }  # what logistic regression cannot read was not found worse by it


@pytest.mark.parametrize(
    ("names", "to", "nearest"),
    [
        (["last", "equal"], "mostly-blocks", ["equal"]),
        (["last", "equal"], "mostly-last", ["last", "equal"]),
        (["last", "mostly-last", "equal"], "mostly-last", ["mostly-last"]),
    ],
)
def test_nearest_depths(names, to, nearest):
    assert _nearest(names, to) == nearest


def test_a_head_of_one_setting_is_looked_at_once(many, monkeypatch):
    asked = counted(monkeypatch, "mean")
    compare(*many, heads=["mean"])
    assert asked == [(5, 1)]


def test_one_linear_head_alone_needs_no_mean_and_named_it_brings_its_members():
    features, labels = clouds(photos=45)
    assert compare(features, labels, heads=["ridge", "knn"]).chosen.head == "ridge"
    assert {row["head"] for row in compare(features, labels, heads="average").rows} == {
        "average",
        "ridge",
        "lda",
        "logistic",
    }


def candidate(head, right, loss, order=0, depths="last"):
    labels = np.zeros(len(right), np.int64)
    by_fold = [np.array(each).reshape(5, -1).mean(axis=1) for each in (loss, right)]
    return Candidate(
        head,
        {"depths": depths},
        (order, 0),
        np.zeros((1, len(labels), 2)),
        np.array([loss]),
        float(np.mean(loss)),
        *by_fold,
    )


@pytest.mark.parametrize(("gain", "taken"), [(0.2, "equal"), (0.005, "last"), (-0.1, "last")])
def test_blocks_are_read_where_they_are_better_by_more_than_a_standard_error(gain, taken):
    noise = 0.1 * np.random.default_rng(0).standard_normal(50)
    last = candidate("ridge", np.ones(50), np.full(50, 0.6))
    deep = candidate("ridge", np.ones(50), 0.6 - gain + noise - noise.mean(), depths="equal")
    assert best_of([last, deep]).depths == taken
    assert best_of([deep]).depths == "equal"


@pytest.mark.parametrize(
    ("right", "loss", "taken"),
    [(0.9, 0.3, "knn"), (0.9, 0.9, "average"), (0.5, 0.3, "average"), (0.7, 0.6, "average")],
    ids=["both better", "loss worse", "accuracy worse", "no difference"],
)
def test_another_head_wins_only_where_it_is_better_on_both(right, loss, taken):
    rng = np.random.default_rng(0)
    noise = 0.02 * rng.standard_normal((2, 50))
    dealt = [folds(np.arange(50) % 2, None, 5, 0)]
    mean = candidate("average", np.full(50, 0.7), np.full(50, 0.6))
    other = candidate("knn", right + noise[0], loss + noise[1])
    assert choose([mean, other], np.arange(50) % 2, dealt, rule="mean", classes=2).head == taken
    assert choose([mean, other], np.arange(50) % 2, dealt, rule="lowest", classes=2) is min(
        (mean, other), key=lambda one: one.loss
    )


def test_where_nearly_nothing_is_lost_another_head_must_be_better_on_both_as_anywhere():
    """It was taken for its log loss alone, and lost 7 % of it on photos nobody saw (median of 56 draws)."""
    rng = np.random.default_rng(0)
    labels, right = np.arange(50) % 2, np.ones(50)
    mean = candidate("average", right, 0.10 + 0.01 * rng.standard_normal(50))
    other = candidate("knn", right, 0.06 + 0.01 * rng.standard_normal(50))
    dealt = [folds(labels, None, 5, 0)]
    assert choose([mean, other], labels, dealt, rule="mean", classes=2) is mean


def test_a_mean_that_knows_less_than_nothing_leaves_its_place_to_who_knows_something():
    labels = np.arange(50) % 2
    mean = candidate("average", np.full(50, 0.5), np.full(50, 0.9))
    other = candidate("knn", np.full(50, 0.6), np.full(50, 0.6))
    dealt = [folds(labels, None, 5, 0)]
    assert choose([mean, other], labels, dealt, rule="mean", classes=2) is other


def test_many_classes_of_few_photos_do_not_make_it_choose_who_is_never_right():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(120), 3)
    centres = rng.standard_normal((120, 64))
    features = (0.6 * centres[labels] + rng.standard_normal((360, 64)))[None].astype(np.float32)
    found = compare(features, labels, heads="linear", folds=3)
    best = max(row["accuracy"]["value"] for row in found.rows)
    assert chosen_row(found)["accuracy"]["value"] > 0.9 * best > 0.1


def test_depths_are_chosen_by_cross_validation_and_only_where_they_help():
    rows, labels, columns = clouds_of_every_depth(photos=90, last_knows=0.1)
    auto, last, every = (
        compare(rows, labels, heads="linear", folds=5, columns=columns, depths=depths)
        for depths in ("auto", "last", "all")
    )
    losses_of = [chosen_row(found)["log_loss"]["value"] for found in (auto, last, every)]
    assert losses_of[0] < 0.8 * losses_of[1]
    head = fit_chosen(auto, rows, labels)
    assert head.width == columns.width
    assert fit_chosen(last, rows, labels).width == columns.last
    assert all("depths" not in row["setting"] for row in last.rows)
    assert all(
        "depths=" in row["setting"] for row in every.rows if row["head"] in ("ridge", "lda", "logistic")
    )
    assert {row["head"] for row in auto.rows} == LINEAR
    useless = rows.copy()
    useless[..., columns.last :] = np.random.default_rng(0).standard_normal(
        useless[..., columns.last :].shape
    )
    useless[..., : columns.last] += 0.6 * np.random.default_rng(1).standard_normal((3, columns.last))[labels]
    found = compare(useless, labels, heads=["ridge"], columns=columns)
    assert found.chosen.setting.get("depths", "last") in ("last", "mostly-last")


def test_a_source_with_blocks_is_read_at_every_depth():
    rows, labels, columns = clouds_of_every_depth(photos=45)

    class Source:
        path, views, depths = "here.zarr", range(2), columns

        def features(self, view=0):
            return rows[view, :, : columns.last].astype(np.float16)

        def blocks(self, view=0):
            return rows[view, :, columns.last :]

    class Old(Source):
        depths = Depths(columns.last)

    assert (
        stack(Source(), np.array([3, 1]), columns_of(Source())) == stack(Source(), None, columns)[:, [3, 1]]
    ).all()
    assert stack(Source()).shape[2] == columns.last
    found = compare(Source(), labels, heads=["ridge"])
    assert found.columns == columns
    assert fit_chosen(found, Source(), labels).width in (columns.last, columns.width)
    assert compare(Old(), labels, heads=["ridge"]).columns is None
    with pytest.raises(UsageError, match=r"here.zarr: --depths all expected block features"):
        compare(Old(), labels, heads=["ridge"], depths="all")
    with pytest.raises(UnknownNameError, match="auto"):
        compare(Source(), labels, heads=["ridge"], depths="some")


def test_the_difference_is_nadeau_and_bengios():
    dealt = [folds(np.arange(40) % 2, None, 5, seed) for seed in range(2)]
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(10), rng.random(10)
    found, error = difference(ours, theirs, dealt)
    assert error == pytest.approx(np.sqrt((1 / 10 + 8 / 32) * (ours - theirs).var(ddof=1)))
    assert found.high - found.value == pytest.approx(2.2621571627 * error)  # t of 9 degrees of freedom


def test_uneven_classes_are_weighted_and_it_is_said():
    labels = np.array([0] * 90 + [1] * 10)
    weight, said = class_weights(labels, 2)
    assert weight[-1] == pytest.approx(3 * weight[0])  # the square root of 9
    assert weight.mean() == pytest.approx(1)
    assert "9.0 times" in said
    assert "3.0 times" in said
    assert class_weights(np.array([0] * 14 + [1] * 10), 2) == (None, "")
    assert class_weights(labels, 2, "off") == (None, "")
    assert class_weights(np.array([0] * 11 + [1] * 10), 2, "on")[0] is not None
    with pytest.raises(UsageError, match="auto, on or off"):
        class_weights(labels, 2, "yes")
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((1, 100, 10)) + 0.5 * labels[:, None]).astype(np.float32)
    on, off = (compare(features, labels, heads=["logistic"], class_weight=mode) for mode in ("auto", "off"))
    assert on.notes[0].startswith("The largest class has 9.0 times")
    assert off.notes == []
    assert on.sample_weight == pytest.approx(weight)
    assert off.sample_weight is None
    assert (on.logits != off.logits).any()


def test_weights_help_the_rare_class_and_leave_probabilities_honest():
    """Against no weights: as low a log loss, shares as they are, and no fewer of the rare class found."""
    gaps, shares, balance = [], [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        labels = np.repeat([0, 1, 2], [80, 80, 8])
        centres = rng.standard_normal((3, 60)) * 0.3
        features = (centres[labels] + rng.standard_normal((168, 60)))[None].astype(np.float32)
        weighed, plain = (
            compare(features, labels, heads="linear", folds=5, class_weight=mode, seed=seed)
            for mode in ("auto", "off")
        )
        gaps.append([losses(labels, found.oof[0]).mean() for found in (weighed, plain)])
        shares.append(weighed.oof[0, :, 2].mean())
        balance.append(
            [
                np.mean([(found.oof[0].argmax(axis=1)[labels == c] == c).mean() for c in range(3)])
                for found in (weighed, plain)
            ]
        )
    weighed, plain = np.mean(gaps, axis=0)
    assert weighed < plain + 0.01, (weighed, plain)
    assert np.mean(shares) == pytest.approx(8 / 168, abs=0.03)
    found, without = np.mean(balance, axis=0)
    assert found > without - 0.01, (found, without)


def test_several_labels_per_photo():
    features, labels = clouds()
    table = multilabel_indicators(labels, 3)
    found = compare(features, table, heads="linear", folds=5)
    takes = {name for name in LINEAR if head_class(name).takes_multilabel}
    assert {"ridge", "logistic", "knn"} <= takes
    assert {row["head"] for row in found.rows} == takes | {"average"}
    for name in LINEAR - takes:
        assert f"Left out {name}: it takes one label per photo." in found.notes
    assert ((found.oof[0] > 0.5) == table).mean() > 0.8
    head = fit_chosen(found, features, table)
    assert head.multilabel
    assert ((head.probabilities(features[0]) > 0.5) == table).mean() > 0.8


@pytest.fixture
def _heads_in_order():
    """Put the registry back as it was: monkeypatch would put what it took out at the end."""
    before = dict(HEADS)
    yield
    HEADS.clear()
    HEADS.update(before)


@pytest.mark.usefixtures("_heads_in_order")
def test_all_leaves_out_what_is_not_installed_and_a_name_does_not():
    HEADS["far"] = HeadEntry("topgraft.heads._far", "Far", "timm", "no_such_module")
    for name, entry in list(HEADS.items()):
        if entry.requires == "torch":
            del HEADS[name]
    features, labels = clouds(photos=30)
    assert "far" not in {row["head"] for row in compare(features, labels, heads="all").rows}
    with pytest.raises(MissingExtraError, match=r"pip install 'topgraft\[timm\]'"):
        compare(features, labels, heads=["far"])
    with pytest.raises(UnknownNameError, match="ridge"):
        compare(features, labels, heads=["rigde"])


def test_labels_and_options_are_checked():
    features, labels = clouds(photos=30)
    with pytest.raises(DataError, match="one for each of 30 photos, got 29"):
        compare(features, labels[1:], heads="linear")
    with pytest.raises(UsageError, match="repeats"):
        compare(features, labels, heads="linear", repeats=0)
    with pytest.raises(DataError, match="at least 2 photos that are not near-duplicates, got 1"):
        compare(features, labels, np.zeros(30, int), heads="linear", folds=5)


def test_features_that_are_not_numbers_are_refused():
    features, labels = clouds(photos=30)
    features[1, 5, 3] = np.nan
    features[0, 7, 3] = np.inf
    with pytest.raises(DataError, match=r"finite numbers, got others for 2 photos \(first: photo 5"):
        compare(features, labels, heads="linear")


def test_a_class_of_two_photos_can_be_compared():
    features, labels = clouds(photos=32, classes=2)
    labels = np.where(np.arange(32) < 2, 2, labels)
    found = compare(features, labels, heads="linear")
    assert np.isfinite(found.oof).all()
    assert all(np.isfinite(row["log_loss"]["value"]) for row in found.rows)


@pytest.mark.parametrize("sizes", [(1, 1), (2, 1), (1, 1, 1), (3, 3)])
def test_the_smallest_data_are_compared_on_fewer_folds_and_it_is_said(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    features = np.random.default_rng(0).standard_normal((1, len(labels), 40)).astype(np.float32)
    found = compare(features, labels, heads="linear", folds=5)
    assert len(found.folds[0]) == min(5, len(labels))
    said = f"5 folds were asked for, but {len(labels)} photos that differ allow only {len(labels)}."
    assert (said in found.notes) == (len(labels) < 5)
    assert np.isfinite(found.oof).all()
    assert np.isfinite(fit_chosen(found, features, labels).logits(features[0])).all()


@pytest.mark.parametrize("sizes", [(12, 12, 2), (20, 20), (10, 5)])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in (1, 2, 3))])
def test_few_photos_are_no_excuse_for_a_head_that_knows_nothing(sizes, seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = 0.3 * rng.standard_normal((len(sizes), 300))
    features = (centres[labels] + rng.standard_normal((len(labels), 300)))[None].astype(np.float32)
    found = compare(features, labels, heads="linear", seed=seed)
    best, chosen = found.rows[0]["log_loss"]["value"], chosen_row(found)["log_loss"]["value"]
    nothing = prior_log_loss(labels, len(sizes))
    assert best < nothing
    assert chosen <= nothing


def test_knowing_nothing_costs_the_entropy_of_the_shares():
    labels = np.array([0, 0, 0, 1])
    shares = np.tile([0.75, 0.25], (4, 1))
    assert prior_log_loss(labels, 2) == pytest.approx(losses(labels, shares).mean())
    table = np.eye(2, dtype=int)[labels]
    assert prior_log_loss(table, 2) == pytest.approx(losses(table, shares).mean())


def test_the_refit_does_not_depend_on_the_cores(monkeypatch):
    features, labels = clouds(width=300)
    weights = []
    for threads in (1, 4):
        monkeypatch.setenv("TOPGRAFT_THREADS", str(threads))
        with threadpool_limits(threads, user_api="blas"):
            found = compare(features, labels, heads=["logistic"])
            weights.append(fit_chosen(found, features, labels).state()["weight"].tobytes())
    assert weights[0] == weights[1]


def test_the_cores_are_those_of_the_settings(monkeypatch):
    asked = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers):
            asked.append(workers)
            super().__init__(workers)

    monkeypatch.setattr("topgraft.heads._parallel.ThreadPoolExecutor", Pool)
    monkeypatch.setenv("TOPGRAFT_THREADS", "3")
    features, labels = clouds(width=20)
    settings = Settings.load(threads=1)
    found = compare(features, labels, heads=["ridge", "knn"], settings=settings)
    fit_chosen(found, features, labels, settings=settings)
    trust(found, features[0], labels, settings=settings)
    assert set(asked) == {1}
    compare(features, labels, heads=["ridge"])
    assert set(asked) == {1, 3}


def test_a_few_wrong_answers_do_not_make_it_say_nothing():
    labels = np.arange(10) % 2
    logits = 3.0 * np.eye(2)[1 - labels]  # all wrong
    temperature = calibrate(logits, labels)
    assert 1.5 < temperature < 30
    # the scale of the logits means nothing: what comes out is the same
    for scale in (1e-4, 1e4):
        assert calibrate(scale * logits, labels) == pytest.approx(scale * temperature, rel=1e-2)
    assert calibrate(np.zeros((10, 2)), labels) > 0


def test_a_source_of_views_is_read_as_an_array():
    features, labels = clouds(photos=30)

    class Source:
        views = range(3)

        def features(self, view=0):
            return features[view].astype(np.float16)

    assert (stack(Source()) == features.astype(np.float16)).all()
    assert (stack(Source(), np.array([3, 1])) == features.astype(np.float16)[:, [3, 1]]).all()
    found = compare(Source(), labels, heads=["mean"])
    assert str(found.chosen) == "mean"
    assert str(Choice("ridge", {"strength": 0.1})) == "ridge strength=0.1"


def test_calibration_lowers_the_log_loss_of_photos_it_has_not_seen():
    rng = np.random.default_rng(0)
    for factor in (0.2, 5.0):
        logits = rng.standard_normal((400, 3)) * 1.5
        labels = (rng.random(400)[:, None] > to_probabilities(logits).cumsum(axis=1)).sum(axis=1)
        temperature = calibrate(factor * logits[:200], labels[:200])
        assert temperature == pytest.approx(factor, rel=0.3)
        before = losses(labels[200:], to_probabilities(factor * logits[200:])).mean()
        after = losses(labels[200:], to_probabilities(factor * logits[200:], temperature=temperature)).mean()
        assert after < before


def test_a_few_photos_all_right_do_not_make_it_infinitely_sure():
    labels = np.arange(32) % 2
    logits = 10.0 * np.eye(2)[labels]
    sure = to_probabilities(logits, temperature=calibrate(logits, labels)).max()
    assert 0.9 < sure < 0.97


def test_a_folds_temperature_comes_from_the_others():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    logits = rng.standard_normal((60, 3)) + 2 * np.eye(3)[labels]
    dealt = folds(labels, None, 5, 0)
    held = dealt[0][1]
    wild = logits.copy()
    wild[held] *= 5
    plain, odd = (cross_calibrate(given, labels, dealt) for given in (logits, wild))
    ratio = np.log(odd[held, 0] / odd[held, 1]) / np.log(plain[held, 0] / plain[held, 1])
    np.testing.assert_allclose(ratio[np.isfinite(ratio)], 5, rtol=1e-6)
