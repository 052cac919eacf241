"""How fast a piece of work goes on this machine."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

BYTEWISE = {"avx512_vnni", "avx_vnni", "avxvnniint8", "amx_int8", "asimddp", "i8mm"}
"""How Linux names the instructions that add products of 8-bit numbers at once, on Intel, AMD and Arm."""


CPUINFO = Path("/proc/cpuinfo")
"""Where Linux lists what its processors can do."""


@functools.cache
def instructions(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """Return what the processor can do, as Linux names it; nothing where no one says."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        word for line in lines if line.startswith(("flags", "Features")) for word in line.split()
    )


def adds_bytes(cpuinfo: Path = CPUINFO) -> bool | None:
    """Tell whether the processor adds products of 8-bit numbers at once (VNNI); None where no one says."""
    flags = instructions(cpuinfo)
    return bool(flags & BYTEWISE) if flags else None


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
