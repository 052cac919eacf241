"""When a fine-tuning is stopped, and what it says of the time that is left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topgraft._finetune.left import Left
from topgraft._finetune.result import no_gain_in_sight


def test_no_gain_is_in_sight_where_the_best_that_may_come_is_none() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.3, 200)
    noise -= noise.mean()
    alone = np.arange(200)
    assert not no_gain_in_sight(noise[:80] - 0.2, alone[:80], 200)
    assert no_gain_in_sight(noise[:80] + 0.2, alone[:80], 200)
    # no difference at all: early on the rest may bring one, late it cannot any more
    few, many = noise[:40] - noise[:40].mean(), noise[:160] - noise[:160].mean()
    assert not no_gain_in_sight(few, alone[:40], 200)
    assert no_gain_in_sight(many, alone[:160], 200)


def test_a_real_gain_is_hardly_ever_given_up() -> None:
    rng, stopped = np.random.default_rng(1), 0
    for _ in range(400):
        gaps = rng.normal(-0.05, 0.2, 160)  # 3.2 standard errors at the end: found 9 times in 10
        stopped += any(no_gain_in_sight(gaps[:seen], np.arange(seen), 160) for seen in (64, 96, 128))
    assert stopped / 400 < 0.12


def test_copies_of_photos_are_no_more_evidence() -> None:
    noise = np.random.default_rng(2).normal(0, 0.3, 60)
    agree, alone, copies = 0, np.arange(60), np.repeat(np.arange(60), 2)
    shifts = np.linspace(-0.3, 0.3, 13)
    for shift in shifts:
        gaps = noise + shift
        agree += no_gain_in_sight(gaps, alone, 150) == no_gain_in_sight(np.repeat(gaps, 2), copies, 300)
    assert agree >= len(shifts) - 1  # the spread of copies is a shade smaller


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40))
def test_all_photos_scored_is_the_end_and_no_stop(gaps: list[float]) -> None:
    assert not no_gain_in_sight(np.array(gaps), np.arange(len(gaps)), len(gaps))


def test_one_bar_goes_over_all_trainings() -> None:
    told: list[tuple[str, int, int]] = []
    left = Left(4, 10, lambda what, done, total: told.append((what, done, total)), seconds=100.0)
    assert left.at_most() == 100.0
    for stop in (10, 3, 7, 1):  # each may stop early
        for epoch in range(1, stop + 1):
            left.epoch(epoch)
        left.training()
    assert {what for what, _, _ in told} == {"fine-tuning"}
    assert {total for _, _, total in told} == {40}
    done = [done for _, done, _ in told]
    assert done == sorted(done)
    assert done[-1] == 40
    assert left.at_most() == 0
    assert left.at_most() == pytest.approx(0)
