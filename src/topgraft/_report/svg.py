"""Small plots as inline SVG: few marks, labelled axes, readable at the width of a phone.

Colours are classes (`s0`, `s1`, …) that the page's style sheet fills in for light and dark; every series also
has a dash pattern of its own, so that no plot depends on telling colours apart. That is why they are written
by hand: a plotting library draws its own colours and fonts into a picture, where no style sheet reaches
them, and the core would have to bring it along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

Points = Sequence[tuple[float, float]]
SERIES = 6
"""How many series have a colour and dash of their own."""


def plain(value: float) -> str:
    """Write a tick: no needless digits."""
    return f"{value:.6g}".replace("-", "−")


def percent(value: float) -> str:
    """Write a tick of a share."""
    return f"{100 * value:.6g} %"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Choose round values between two ends (Heckbert 1990, nice numbers)."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / about
    power = 10.0 ** _floor_log10(raw)
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = int(-(-(low - 1e-9 * span) // step))
    last = int((high + 1e-9 * span) // step)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _floor_log10(value: float) -> int:
    return int(f"{value:e}".split("e")[1])


@dataclass
class Plot:
    """A plot with two straight axes.

    Attributes:
        title: said to screen readers, with `summary`.
        x, y: (low, high) of the axes.
        x_label, y_label: with their units.
        width, height: px; the text is 11 px at this size.
    """

    title: str
    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    summary: str = ""
    width: int = 300
    height: int = 236
    x_ticks: Callable[[float], str] = plain
    y_ticks: Callable[[float], str] = plain
    whole_x: bool = False
    marks: list[Markup] = field(default_factory=list)
    left: int = 60
    right: int = 18
    top: int = 12
    bottom: int = 42

    def px(self, value: float) -> float:
        """Place a value of x."""
        low, high = self.x
        return round(
            self.left + (value - low) / ((high - low) or 1) * (self.width - self.left - self.right), 1
        )

    def py(self, value: float) -> float:
        """Place a value of y."""
        low, high = self.y
        return round(
            self.height
            - self.bottom
            - (value - low) / ((high - low) or 1) * (self.height - self.top - self.bottom),
            1,
        )

    def line(self, points: Points, series: int | str = 0) -> None:
        """Join points; `series` is a number or the name of a style."""
        name = f"s{series % SERIES}" if isinstance(series, int) else series
        path = " ".join(f"{self.px(x)},{self.py(y)}" for x, y in thin(points))
        self.marks.append(Markup('<polyline class="line {}" points="{}"/>').format(name, path))

    def reach(self, x: float, low: float, high: float) -> None:
        """Draw an interval of y at a value of x."""
        self.marks.append(
            Markup('<line class="span" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
                self.px(x), self.py(low), self.py(high)
            )
        )

    def dot(self, x: float, y: float, radius: float, note: str, style: str = "s0") -> None:
        """Put a dot with a note that shows under the pointer."""
        self.marks.append(
            Markup('<circle class="dot {}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
                style, self.px(x), self.py(y), round(radius, 1), note
            )
        )

    def __html__(self) -> str:
        """Write the plot."""
        parts = [self._axes(), *self.marks]
        label = self.title if not self.summary else f"{self.title}. {self.summary}"
        return str(
            Markup(
                '<svg class="plot" viewBox="0 0 {} {}" style="--w:{}px" role="img" aria-label="{}">{}</svg>'
            ).format(self.width, self.height, self.width, label, Markup("").join(parts))
        )

    def _axes(self) -> Markup:
        marks, floor, edge = [], self.height - self.bottom, self.width - self.right
        across, down = (
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'),
            Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>'),
        )
        for value in ticks(*self.y):
            at = self.py(value)
            marks.append(across.format(self.left, edge, at, at))
            marks.append(down.format(self.left - 7, at + 4, "end", self.y_ticks(value)))
        for value in ticks(*self.x):
            if self.whole_x and value != int(value):
                continue
            at = self.px(value)
            marks.append(across.format(at, at, floor, floor + 4))
            marks.append(down.format(at, floor + 17, "middle", self.x_ticks(value)))
        marks.append(
            Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                self.left, edge, floor, floor
            )
        )
        centre = (self.top + floor) / 2
        marks.append(down.format((self.left + edge) / 2, self.height - 6, "middle", self.x_label))
        marks.append(
            Markup('<text transform="rotate(-90 12 {})" x="12" y="{}" text-anchor="middle">{}</text>').format(
                centre, centre, self.y_label
            )
        )
        return Markup("").join(marks)


def whisker(
    value: float, low: float, high: float, span: tuple[float, float], *, zero: bool = False
) -> Markup:
    """Draw a value with its interval on a scale: for table rows. Decoration: the numbers stand beside it."""

    def place(number: float) -> float:
        share = (number - span[0]) / ((span[1] - span[0]) or 1)
        return round(4 + 112 * min(max(share, 0.0), 1.0), 1)

    origin = (
        Markup('<line class="origin" x1="{0}" x2="{0}" y1="0" y2="14"/>').format(place(0)) if zero else ""
    )
    return Markup(
        '<svg class="whisker" viewBox="0 0 120 14" aria-hidden="true">'
        '<line class="rail" x1="4" x2="116" y1="7" y2="7"/>{}'
        '<line class="reach" x1="{}" x2="{}" y1="7" y2="7"/>'
        '<circle class="at" cx="{}" cy="7" r="4"/></svg>'
    ).format(origin, place(low), place(high), place(value))


def legend(names: Sequence[str]) -> Markup:
    """List the series of a plot with their colours and dashes."""
    item = Markup(
        '<li><svg viewBox="0 0 24 8" aria-hidden="true">'
        '<line class="line s{}" x1="0" x2="24" y1="4" y2="4"/></svg>{}</li>'
    )
    rows = Markup("").join(item.format(i % SERIES, name) for i, name in enumerate(names))
    return Markup('<ul class="legend">{}</ul>').format(rows)


def thin(points: Points, most: int = 160) -> Points:
    """Keep at most so many points, ends included; a plot this small shows no more."""
    if len(points) <= most:
        return points
    step = (len(points) - 1) / (most - 1)
    return [points[round(i * step)] for i in range(most)]
