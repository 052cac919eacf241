"""Whether views pay, on features whose worth is known."""

import numpy as np
import pytest

from topgraft.selection.compare import compare
from topgraft.selection.payoff import Step, facts, gap, in_words, scores_of, steps


@pytest.mark.parametrize(
    ("most", "expected"),
    [(0, []), (1, [1]), (4, [4]), (5, [4, 5]), (16, [4, 16]), (17, [4, 16, 17]), (100, [4, 16, 64, 100])],
)
def test_steps_grow_to_the_most_there_may_be(most, expected):
    assert list(steps(most)) == expected


def noisy(seed, views, photos=80, width=40, noise=3.0):
    """Draw views (V, N, D) of one faint signal, each with noise of its own, and labels."""
    dice = np.random.default_rng(seed)
    labels = np.arange(photos) % 2
    signal = np.outer(2 * labels - 1, dice.normal(size=width) * 0.4)
    return signal + noise * dice.normal(size=(views, photos, width)), labels


@pytest.fixture(scope="module")
def compared():
    def run(views, labels):
        return compare(views, labels, heads=["ridge", "lda"])

    return run


def test_views_that_show_the_signal_anew_pay_and_copies_do_not(compared):
    views, labels = noisy(0, 9)
    groups = np.arange(len(labels))
    alone = compared(views[:1], labels)
    anew = Step.between(8, alone, compared(views, labels), labels, groups)
    copies = Step.between(8, alone, compared(views[[0] * 9], labels), labels, groups)
    assert anew.pays
    assert anew.difference.high < 0
    assert anew.log_loss < scores_of(alone, labels)["log_loss"].value
    assert not copies.pays
    assert abs(copies.difference.value) < abs(anew.difference.value) / 4
    same, error = gap(alone, alone, labels, groups)
    assert (same.value, same.low, same.high, error) == (0, 0, 0, 0)


def test_near_duplicates_make_the_interval_wider(compared):
    views, labels = noisy(1, 5)
    before, after = compared(views[:1], labels), compared(views, labels)
    pairs = np.arange(len(labels)) // 2 // 2 * 2 + labels  # photos of one class, four in a row
    alone, error = gap(before, after, labels, np.arange(len(labels)))
    tied, more = gap(before, after, labels, pairs)
    assert alone.value == tied.value
    assert more != error


def a_step(policies, loss, by, pays):
    return {
        "policies": policies,
        "log_loss": loss,
        "accuracy": 0.8,
        "difference": {"value": by, "low": by - 0.02, "high": by + 0.02},
        "pays": pays,
    }


@pytest.mark.parametrize(
    ("taken", "kept", "said"),
    [
        (
            [a_step(4, 0.41, 0.01, False)],
            0,
            "(+0.010 [-0.010, +0.030]): they do not pay, and the photos are learned from as they are.",
        ),
        (
            [a_step(4, 0.35, -0.05, True), a_step(16, 0.36, 0.01, False)],
            4,
            "from 0.350 to 0.360 (+0.010 [-0.010, +0.030]): more than 4 do not pay, and 4 are learned from.",
        ),
        (
            [a_step(4, 0.35, -0.05, True), a_step(16, 0.30, -0.05, True)],
            16,
            "16 of each photo from 0.350 to 0.300 (-0.050 [-0.070, -0.030]): 16 are learned from.",
        ),
    ],
)
def test_it_is_said_in_words(taken, kept, said):
    text = in_words({"view_0": {"log_loss": 0.4, "accuracy": 0.8}, "steps": taken, "kept": kept})
    assert text.startswith("Augmented views brought the log loss, out of fold: 4 of each photo from 0.400 to")
    assert text.endswith(said)


def test_facts_keep_the_last_step_that_paid(compared):
    views, labels = noisy(0, 9)
    groups = np.arange(len(labels))
    alone, more = compared(views[:1], labels), compared(views[:5], labels)
    first = Step.between(4, alone, more, labels, groups)
    second = Step.between(8, more, compared(views[[0, 1, 2, 3, 4] * 2], labels), labels, groups)
    found = facts(alone, labels, [first, second])
    assert first.pays
    assert not second.pays
    assert found["kept"] == 4
    scores = scores_of(alone, labels, groups)
    assert found["view_0"] == {name: scores[name].value for name in ("log_loss", "accuracy")}
    assert scores["accuracy"].low < scores["accuracy"].value < scores["accuracy"].high
    assert [step["policies"] for step in found["steps"]] == [4, 8]
