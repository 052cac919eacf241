"""Splits keep their promises for any layout of labels and groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from topgraft.errors import DataError, UsageError
from topgraft.splits import folds, holdout


@st.composite
def layouts(draw: st.DrawFn):
    n = draw(st.integers(2, 60))
    classes = draw(st.integers(1, 5))
    labels = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
    groups = np.array(draw(st.lists(st.integers(0, draw(st.integers(0, n))), min_size=n, max_size=n)))
    if draw(st.booleans()):
        labels = labels[:, None] == np.arange(classes)
        labels[: n // 3] |= np.array(draw(st.lists(st.booleans(), min_size=classes, max_size=classes)))
        labels = labels.astype(np.int64)
    return labels, groups


@given(layouts(), st.integers(2, 8), st.integers(0, 99))
@settings(max_examples=300, deadline=None)
def test_no_group_is_on_both_sides_of_any_fold(layout, k, seed):
    labels, groups = layout
    count = len(np.unique(groups))
    if k > count:
        with pytest.raises(DataError, match="Try --folds"):
            folds(labels, groups, k, seed)
        return
    found = folds(labels, groups, k, seed)
    scored = np.concatenate([score for _, score in found])
    assert sorted(scored.tolist()) == list(range(len(labels)))
    for fit, score in found:
        assert len(score)
        assert len(fit) + len(score) == len(labels)
        assert not set(fit.tolist()) & set(score.tolist())
        assert not set(groups[fit].tolist()) & set(groups[score].tolist())


@given(layouts(), st.floats(0.01, 0.9), st.integers(0, 99))
@settings(max_examples=300, deadline=None)
def test_a_holdout_shares_no_group_and_leaves_every_class_something_to_train_on(layout, test, seed):
    labels, groups = layout
    try:
        train, held = holdout(labels, groups, test, seed)
    except DataError:  # one group holds everybody, or all of a class
        event("refused")
        return
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert len(train)
    assert len(held)
    assert not set(groups[train].tolist()) & set(groups[held].tolist())
    table = labels if labels.ndim == 2 else labels[:, None] == np.unique(labels)
    assert (table[train].any(axis=0) == table.any(axis=0)).all()


@given(st.lists(st.integers(10, 40), min_size=2, max_size=4), st.integers(2, 5), st.integers(0, 99))
def test_single_photos_are_stratified_to_within_one(sizes, k, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    for _, score in folds(labels, None, k, seed):
        counts = np.bincount(labels[score], minlength=len(sizes))
        assert (np.abs(counts - np.array(sizes) / k) < 1).all()
    _, held = holdout(labels, None, 0.2, seed)
    counts = np.bincount(labels[held], minlength=len(sizes))
    assert (np.abs(counts - np.array(sizes) / 5) < 1).all()


def test_the_seed_decides_and_nothing_else():
    labels = np.arange(100) % 3
    first, again, other = (folds(labels, None, 5, seed)[0][1] for seed in (0, 0, 1))
    assert (first == again).all()
    assert len(np.setdiff1d(first, other))


def test_where_all_is_one_group_nothing_can_be_held_out():
    with pytest.raises(DataError, match=r"Give more photos, fewer groups, or --test 0"):
        holdout(np.arange(10) % 2, np.zeros(10, int), 0.2)


@pytest.mark.parametrize("test", [-0.1, 1.0, 2.0])
def test_a_share_outside_its_range_is_refused(test):
    with pytest.raises(UsageError, match=r"Try --test 0\.2"):
        holdout(np.arange(10) % 2, None, test)


def test_no_holdout_leaves_everybody_in_train():
    train, held = holdout(np.arange(10) % 2, None, 0)
    assert len(train) == 10
    assert not len(held)


def test_one_fold_is_refused():
    with pytest.raises(UsageError, match="--folds 5"):
        folds(np.arange(10) % 2, None, 1)


@given(layouts(), st.integers(0, 99), st.randoms())
@settings(max_examples=100, deadline=None)
def test_with_keys_the_order_of_photos_does_not_matter(layout, seed, random):
    labels, groups = layout
    names = [f"photo {i}" for i in range(len(labels))]
    order = np.array(random.sample(range(len(labels)), len(labels)))
    try:
        held = holdout(labels, groups, 0.3, seed, keys=names)[1]
    except DataError:
        event("refused")
        return
    other = holdout(labels[order], groups[order], 0.3, seed, keys=[names[i] for i in order])[1]
    assert set(held.tolist()) == set(order[other].tolist())


@given(st.lists(st.integers(8, 30), min_size=2, max_size=4), st.integers(0, 99), st.data())
def test_with_keys_a_photo_less_moves_one_a_class_at_most(sizes, seed, data):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    names = np.array([f"photo {i}" for i in range(len(labels))])
    gone = data.draw(st.integers(0, len(labels) - 1))
    kept = np.arange(len(labels)) != gone
    before = set(names[holdout(labels, None, 0.2, seed, keys=names.tolist())[1]])
    after = set(names[kept][holdout(labels[kept], None, 0.2, seed, keys=names[kept].tolist())[1]])
    assert len((before ^ after) - {names[gone]}) <= len(sizes)


def test_many_classes_of_two_photos_leave_a_test_side():
    train, held = holdout(np.arange(20) // 2, None, 0.2)
    assert len(held) == 4
    assert len(set((np.arange(20) // 2)[train])) == 10
