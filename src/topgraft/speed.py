"""How fast a piece of work goes on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable


def per_second(work: Callable[[], int], least_s: float = 0.25) -> float:
    """Return how many things a second are done, from trying.

    Args:
        work: does some, and returns how many. The first call is not measured: it prepares.
        least_s: how long to try at least, in seconds.
    """
    work()
    begun, done = time.perf_counter(), 0
    while not done or time.perf_counter() - begun < least_s:
        done += work()
    return done / (time.perf_counter() - begun)
