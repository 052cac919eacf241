"""The schedule against its formula and torch's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topgraft.errors import UsageError
from topgraft.schedules import cosine


@given(st.floats(0, 0.9), st.integers(1, 300))
def test_every_step_lies_between_nothing_and_the_peak(warmup, steps):
    shares = [cosine(step, steps, warmup) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares)
    assert cosine(steps + 50, steps, warmup) == shares[-1]


def test_cosine_falls_from_the_peak_to_nothing():
    shares = [cosine(step, 100) for step in range(100)]
    assert shares[0] == 1
    assert shares[50] == pytest.approx(0.5)
    assert 0 < shares[-1] < 0.001
    assert shares == sorted(shares, reverse=True)


def test_warmup_rises_in_a_straight_line_before_the_cosine_begins():
    assert [cosine(step, 10, 0.4) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])


@pytest.mark.timm
def test_the_cosine_agrees_with_torch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert [cosine(step, 40) for step in range(40)] == pytest.approx(rates, abs=1e-6)


def test_a_wrong_schedule_says_what_is_wrong():
    with pytest.raises(UsageError, match="at least 1 step"):
        cosine(0, 0)
    with pytest.raises(UsageError, match=r"warmup must lie in \[0, 1\)"):
        cosine(0, 10, 1.0)
