"""How numbers, times and names are written for a person to read."""

from __future__ import annotations

import re

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls, line ends, halves of characters, and marks that turn the direction of writing around."""


def one_line(text: str) -> str:
    """Return text that takes one line and can be printed: what is no character of a line becomes its code."""
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def counted(n: int, what: str) -> str:
    """Write a number of things: 1 photo, 1,000 photos."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def duration(seconds: float) -> str:
    """Write a time in seconds, minutes or hours, whichever reads best."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
