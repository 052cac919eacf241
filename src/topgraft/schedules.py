"""The learning rate over a training, as a share of its peak.

Warm-up rises in a straight line to the peak, a cosine falls from there to nothing. The share is a function of
the step alone: the same whatever was asked before, on every machine.

Sources: cosine, Loshchilov and Hutter 2017, "SGDR" (arXiv:1608.03983), without restarts; warm-up, Goyal and
others 2017 (arXiv:1706.02677).
"""

from __future__ import annotations

import math

from topgraft.errors import UsageError


def cosine(step: int, steps: int, warmup: float = 0.0) -> float:
    """Return the learning rate of one step as a share of the peak, in (0, 1].

    Args:
        step: 0 to steps - 1; later steps keep the rate of the last one.
        steps: how many steps the whole training has, at least 1.
        warmup: share of the steps spent rising to the peak, in [0, 1).

    Raises:
        UsageError: for a number out of its range.
    """
    if steps < 1:
        raise UsageError(f"a schedule needs at least 1 step, got {steps}.")
    if not 0 <= warmup < 1:
        raise UsageError(f"warmup must lie in [0, 1), got {warmup}.")
    step, warm = min(max(step, 0), steps - 1), round(warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    return (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1))) / 2
