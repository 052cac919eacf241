"""Numbers as HTML that can be traced: every one carries where it comes from and its exact value.

`<data value="0.90625" data-metric="/test/accuracy/value">90.6 %</data>`: a reader sees what can be read, a
program finds the very number of `metrics.json` (or another file of the run) at a JSON pointer (RFC 6901).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

Style = Literal["percent", "whole", "share", "signed", "point", "count", "fixed", "seconds", "gained"]


def pointer(*parts: str | int) -> str:
    """Join keys and indices to a JSON pointer."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def resolve(facts: Any, path: str) -> Any:
    """Follow a JSON pointer.

    Raises:
        KeyError, IndexError: where it leads nowhere.
    """
    for part in path.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        facts = facts[int(key)] if isinstance(facts, list) else facts[key]
    return facts


def has(facts: Any, path: str) -> bool:
    """Tell whether a JSON pointer leads to something that is not null."""
    try:
        return resolve(facts, path) is not None
    except (KeyError, IndexError, TypeError):
        return False


FINE = 0.02
"""An interval at least this wide (2 points of a hundred) takes a number's last digit: it says nothing."""


def written(value: float | None, style: Style, *, fine: bool = True) -> str:
    """Write a number for people: as many digits as it is worth.

    Args:
        value: None is unknown, a dash.
        style: `percent` of 1, `whole` the same without decimals, `share` without its unit, `signed` to three
            digits with its sign, `point` to one, `count` whole, `fixed` to three digits, `seconds`,
            `gained` hundredths with their sign, as points.
        fine: False leaves the last digit out.
    """
    return "–" if value is None else FORMATS[style](value, fine)


def _whole(value: float, _fine: bool = False) -> str:
    """Write whole percents; what is not all or nothing is not rounded to it."""
    if 0.995 <= value < 1:
        return "> 99 %"
    return "< 1 %" if 0 < value < 0.005 else f"{round(100 * value)} %"


def _fixed(value: float, fine: bool) -> str:
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.3f}" if fine or 0 < abs(value) < 0.01 else f"{value:.2f}"


def _with_sign(value: float, digits: int) -> str:
    """Write a number with its sign; 0 has none."""
    return f"{value:+.{digits}f}".replace("-", "−") if round(value, digits) else f"{0:.{digits}f}"


def _seconds(value: float, _fine: bool) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"


FORMATS: dict[Style, Callable[[float, bool], str]] = {
    "percent": lambda value, fine: f"{100 * value:.1f} %" if fine else _whole(value),
    "whole": _whole,
    "share": lambda value, fine: f"{100 * value:.{1 if fine else 0}f}",
    "signed": lambda value, fine: _with_sign(value, 3 if fine else 2),
    "point": lambda value, fine: _with_sign(value, 1 if fine else 0),
    "count": lambda value, _fine: f"{value:,.0f}".replace(",", "\u202f"),
    "fixed": _fixed,
    "gained": lambda value, _fine: _with_sign(100 * value, 1),
    "seconds": _seconds,
}


@dataclass(frozen=True)
class Numbers:
    """Writes the numbers of one file of the run.

    Attributes:
        facts: the file's content.
        source: which file: `metric`, `health` or `timing`; becomes the attribute's name.
        run: which run, where a page shows several.
    """

    facts: Any
    source: str = "metric"
    run: int | None = None

    def __call__(self, path: str, style: Style = "fixed", *, fine: bool = True) -> Markup:
        """Write the number at a pointer."""
        value = resolve(self.facts, path)
        where = Markup(' data-run="{}"').format(self.run) if self.run is not None else ""
        return Markup('<data value="{}" data-{}="{}"{}>{}</data>').format(
            json.dumps(value), self.source, path, where, written(value, style, fine=fine)
        )

    def fine(self, path: str) -> bool:
        """Tell whether the estimate at a pointer is known to its last digit."""
        if not self.has(f"{path}/low"):
            return True
        return bool(self.get(f"{path}/high") - self.get(f"{path}/low") < FINE)

    def value(self, path: str, style: Style = "fixed") -> Markup:
        """Write the value of the estimate at a pointer, in the digits that its interval leaves it."""
        return self(f"{path}/value", style, fine=self.fine(path))

    def sum(self, paths: list[str], style: Style = "count") -> Markup:
        """Write the sum of several whole numbers; it names all of them."""
        value = sum(resolve(self.facts, path) for path in paths)
        return Markup('<data value="{}" data-{}-sum="{}">{}</data>').format(
            json.dumps(value), self.source, " ".join(paths), written(value, style)
        )

    def interval(self, path: str, style: Style = "fixed", between: str = "to") -> Markup:
        """Write `low to high` of the estimate at a pointer; nothing where it has no interval."""
        if not self.has(f"{path}/low"):
            return Markup("")
        fine, bare = self.fine(path), "share" if style == "percent" else style
        low = self(f"{path}/low", bare, fine=fine)
        high = self(f"{path}/high", bare, fine=fine)
        between = between if between == "–" else f" {between} "
        return Markup("{}{}{}{}").format(low, between, high, " %" if style == "percent" else "")

    def inline(self, path: str, style: Style = "fixed") -> Markup:
        """Write the estimate at a pointer for running text: its interval in brackets behind it."""
        return Markup("{} ({})").format(self.value(path, style), self.interval(path, style))

    def estimate(self, path: str, style: Style = "fixed") -> Markup:
        """Write the estimate at a pointer: its value, and its interval beside it."""
        if not self.has(path) or self._unmeasured(path):
            return Markup('<span class="none">–</span>')
        return Markup('{} <span class="interval">{}</span>').format(
            self.value(path, style), self.interval(path, style)
        )

    def _unmeasured(self, path: str) -> bool:
        """Tell whether no photo says anything about a share: its interval is all there is."""
        return (self.get(f"{path}/low"), self.get(f"{path}/high")) == (0.0, 1.0)

    def get(self, path: str) -> Any:
        """Return the bare value, for plots."""
        return resolve(self.facts, path)

    def has(self, path: str) -> bool:
        """Tell whether there is something at a pointer."""
        return has(self.facts, path)
