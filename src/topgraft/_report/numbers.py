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

Style = Literal["percent", "whole", "share", "signed", "point", "count", "fixed", "seconds"]


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


def written(value: float | None, style: Style) -> str:
    """Write a number for people: as many digits as it is worth.

    Args:
        value: None is unknown, a dash.
        style: `percent` of 1, `whole` the same without decimals, `share` without its unit, `signed` to three
            digits with its sign, `point` to one, `count` whole, `fixed` to three digits, `seconds`.
    """
    if value is None:
        return "–"
    return "–" if value is None else FORMATS[style](value)


def _fixed(value: float) -> str:
    return f"{value:.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"


FORMATS: dict[Style, Callable[[float], str]] = {
    "percent": lambda value: f"{100 * value:.1f} %",
    "whole": lambda value: f"{100 * value:.0f} %",
    "share": lambda value: f"{100 * value:.1f}",
    "signed": lambda value: f"{value:+.3f}".replace("-", "−"),
    "point": lambda value: f"{value:+.1f}".replace("-", "−"),
    "count": lambda value: f"{value:,.0f}".replace(",", "\u202f"),
    "fixed": _fixed,
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

    def __call__(self, path: str, style: Style = "fixed") -> Markup:
        """Write the number at a pointer."""
        value = resolve(self.facts, path)
        where = Markup(' data-run="{}"').format(self.run) if self.run is not None else ""
        return Markup('<data value="{}" data-{}="{}"{}>{}</data>').format(
            json.dumps(value), self.source, path, where, written(value, style)
        )

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
        low = self(f"{path}/low", "share" if style == "percent" else style)
        return Markup("{} {} {}").format(low, between, self(f"{path}/high", style))

    def estimate(self, path: str, style: Style = "fixed") -> Markup:
        """Write the estimate at a pointer: its value, and its interval beside it."""
        if not self.has(path):
            return Markup('<span class="none">–</span>')
        return Markup('{} <span class="interval">{}</span>').format(
            self(f"{path}/value", style), self.interval(path, style)
        )

    def get(self, path: str) -> Any:
        """Return the bare value, for plots."""
        return resolve(self.facts, path)

    def has(self, path: str) -> bool:
        """Tell whether there is something at a pointer."""
        return has(self.facts, path)
