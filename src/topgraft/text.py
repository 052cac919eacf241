"""How numbers, times and names are written for a person to read."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""How a cell begins that a spreadsheet may take for a formula; with the marks of text before it."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
TIME = re.compile(r"(\d+\.?\d*|\.\d+)\s*(s|m|min|h|d)?")
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls, line ends, halves of characters, and marks that turn the direction of writing around."""

NO = frozenset({"", "0", "false", "no", "off"})
"""What an environment variable says for no."""


def one_line(text: str) -> str:
    """Return text that takes one line and can be printed: what is no character of a line becomes its code."""
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def safe_cell(text: str) -> str:
    """Return the text of a CSV cell so that no spreadsheet runs it (OWASP, "CSV injection").

    An apostrophe in front makes it text.
    """
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def bare_cell(text: str) -> str:
    """Return what `safe_cell` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def first_mistake(error: ValidationError) -> str:
    """Return the first thing that pydantic found wrong, behind its place."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def shortened(text: str, most: int = 80) -> str:
    """Return text with its middle left out where it is longer than that."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2) :]}"


def seconds(text: str) -> float:
    """Read a length of time: 60s, 5m or 5min, 2h, 1d; seconds where there is no unit.

    Raises:
        ValueError: for anything else.
    """
    found = TIME.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"expected a length of time such as 60s, 5min or 2h, got {text!r}")
    return float(found[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}[found[2] or "s"]


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


def flat(facts: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Return nested plain data as one table: each value by the keys that lead to it; lists stay whole."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in facts.items():
        below = flat(value) if isinstance(value, Mapping) else {(): value}
        found |= {(key, *keys): leaf for keys, leaf in below.items()}
    return found


def pasted(*words: str) -> str:
    """Return a command line in the quotes of this system's shell, so that it works where it is pasted."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
