"""Confidence against coverage: thresholds keep what they promise, and the curve is what it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topgraft.metrics import OUT_OF_FOLD, wilson
from topgraft.trust.coverage import coverage, in_words

ANSWERS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def of(answers):
    sure, right = zip(*answers, strict=True)
    return coverage(np.array(sure), np.array(right, np.float64))


@given(ANSWERS, st.floats(0.01, 1))
def test_a_threshold_for_a_share_keeps_it_and_is_the_lowest(answers, share):
    found = of(answers)
    threshold = found.threshold_for(share)
    sure, right = (np.array(column) for column in zip(*answers, strict=True))

    def kept(above):
        return min(right[sure >= above].mean(), sure[sure >= above].mean())

    answered = 0
    if threshold is not None:
        assert kept(threshold) >= share - 1e-9
        answered = (sure >= threshold).sum()
    assert not [level for level in sure if kept(level) > share + 1e-9 and (sure >= level).sum() > answered]


def test_few_that_are_all_right_are_no_proof_of_99_in_100():
    sure = np.array([0.999, 0.995, 0.97, 0.96, 0.6])
    found = coverage(sure, np.array([1.0, 1, 1, 1, 0]))
    assert found.threshold_for(0.99) == pytest.approx(
        (0.97 + 0.995) / 2
    )  # all four are right, and 0.981 sure
    assert found.threshold_for(0.98) == pytest.approx((0.96 + 0.6) / 2)
    assert coverage(np.full(40, 0.97), np.ones(40)).threshold_for(0.99) is None


@given(ANSWERS)
def test_the_curve_ends_at_the_accuracy_and_the_area_lies_between_none_and_all_wrong(answers):
    found = of(answers)
    facts = found.as_dict()
    assert facts["curve"][-1]["answered"] == 1
    assert facts["curve"][-1]["right"] == pytest.approx(np.mean([right for _, right in answers]))
    assert 0 <= facts["area"]["low"] <= facts["area"]["value"] <= facts["area"]["high"] <= 1


def test_the_area_of_known_answers():
    # 1 of 1, 1 of 2, 1 of 3 right: wrong shares 0, 1/2, 2/3
    found = coverage(np.array([0.9, 0.8, 0.7]), np.array([1.0, 0.0, 0.0]))
    assert found.area.value == pytest.approx((0 + 1 / 2 + 2 / 3) / 3)
    assert found.at(0.85)["answered"]["value"] == pytest.approx(1 / 3)
    assert in_words(found.at(0.95)) == "Answered only above 95%: no photo is answered."
    assert in_words(found.at(0.85)).startswith(
        "Answered only above 85%: 33% of photos answered, 100% of them"
    )


def test_photos_held_out_are_worth_more_than_answers_out_of_fold():
    sure, right = np.linspace(1, 0.5, 40), np.ones(40)
    held = coverage(sure, right, out_of_fold=False).at(0.75)
    assert held["answered"] == wilson(20, 40).as_dict()
    assert held["right"] == wilson(20, 20).as_dict()
    assert coverage(sure, right).area == coverage(sure, right, out_of_fold=False).area  # none is wrong
    right[30:] = 0
    alone, spread = (coverage(sure, right, out_of_fold=folded).area for folded in (False, True))
    assert spread.value == alone.value
    for end in ("low", "high"):
        wider = (getattr(spread, end) - spread.value) / (getattr(alone, end) - alone.value)
        assert wider == pytest.approx(OUT_OF_FOLD**-0.5)
    folded = coverage(sure, np.ones(40)).at(0.75)
    assert folded["answered"] == wilson(OUT_OF_FOLD * 20, OUT_OF_FOLD * 40).as_dict()


def test_the_area_s_interval_holds_the_truth():
    dice, held = np.random.default_rng(0), 0
    for _ in range(100):
        sure = dice.random(150)
        held_area = coverage(sure, (dice.random(150) < sure).astype(float), seed=1).area
        # The truth of answers as right as they are sure, uniformly: the mean wrong share over coverages.
        held += held_area.low <= 0.25 <= held_area.high
    assert held >= 88


def test_photos_of_a_group_count_as_one():
    sure, right = np.repeat([0.9, 0.8, 0.7, 0.6], 10), np.repeat([1.0, 1.0, 1.0, 0.0], 10)
    alone = coverage(sure, right).at(0.5)["right"]
    grouped = coverage(sure, right, np.repeat(np.arange(4), 10)).at(0.5)["right"]
    assert grouped["value"] == alone["value"]
    assert grouped["high"] - grouped["low"] > 2 * (alone["high"] - alone["low"])
