"""Schedules against the formulas of their papers and torch's own, where torch has one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topgraft.errors import UnknownNameError, UsageError
from topgraft.schedules import NAMES, Schedule

share = st.floats(0, 1, allow_nan=False)


@given(
    st.sampled_from(NAMES),
    st.floats(0, 0.9),
    share,
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.integers(1, 300),
)
def test_every_step_lies_between_nothing_and_the_peak(name, warmup, floor, period, gamma, steps):
    schedule = Schedule(name=name, warmup=warmup, floor=floor, period=period, gamma=gamma)
    factors = schedule.factors(steps)
    assert len(factors) == steps
    assert all(0 <= factor <= 1 + 1e-12 for factor in factors)
    assert schedule.factor(steps + 50, steps) == factors[-1]


@given(st.sampled_from(NAMES), st.sampled_from([0.0, 0.05, 0.5]), st.sampled_from([0.0, 0.25]))
def test_what_is_printed_reads_back(name, warmup, floor):
    schedule = Schedule(name=name, warmup=warmup, floor=floor, gamma=0.5)
    assert Schedule.parse(str(schedule)) == schedule


def test_cosine_falls_from_the_peak_to_the_floor():
    factors = Schedule(name="cosine", floor=0.1).factors(100)
    assert factors[0] == 1
    assert factors[50] == pytest.approx(0.55)
    assert 0.1 < factors[-1] < 0.101
    assert factors == sorted(factors, reverse=True)


def test_step_drops_by_gamma_every_period():
    factors = Schedule(name="step", period=0.25, gamma=0.5).factors(8)
    assert factors == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]


def test_warmup_rises_in_a_straight_line_before_the_schedule_begins():
    factors = Schedule(name="constant", warmup=0.4).factors(10)
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1])


def smith(step, half, scale):
    """The formula as it stands in section 3.3 of the paper."""
    cycle = math.floor(1 + step / (2 * half))
    x = abs(step / half - 2 * cycle + 1)
    return max(0, 1 - x) * scale(cycle, step)


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("triangular", lambda cycle, step: 1),
        ("triangular2", lambda cycle, step: 1 / 2 ** (cycle - 1)),
        ("exp_range", lambda cycle, step: 0.99**step),
    ],
)
def test_cyclic_schedules_are_smiths(name, scale):
    schedule = Schedule(name=name, floor=0.2, period=0.25, gamma=0.99)
    expected = [0.2 + 0.8 * smith(step, 10, scale) for step in range(80)]
    assert schedule.factors(80) == pytest.approx(expected)


@pytest.mark.timm
@pytest.mark.parametrize("name", ["triangular", "triangular2", "exp_range"])
def test_cyclic_schedules_agree_with_torch(name):
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.CyclicLR(
        optimizer, base_lr=0.1, max_lr=1.0, step_size_up=5, mode=name, gamma=0.97, cycle_momentum=False
    )
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    ours = Schedule(name=name, floor=0.1, period=0.25, gamma=0.97).factors(40)
    assert ours == pytest.approx(rates, abs=1e-6)


def test_a_wrong_schedule_says_what_is_wrong():
    with pytest.raises(UnknownNameError, match="cosine"):
        Schedule.parse("cosin")
    with pytest.raises(UnknownNameError, match="warmup"):
        Schedule.parse("cosine:warm=0.1")
    with pytest.raises(UsageError, match="must be a number, got 'much'"):
        Schedule.parse("cosine:warmup=much")
    with pytest.raises(UsageError, match=r"period must lie in \(0, 1\]"):
        Schedule(name="step", period=0)
    with pytest.raises(UsageError, match="at least 1 step"):
        Schedule().factor(0, 0)
