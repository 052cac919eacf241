"""The result as a picture: where the accuracy lies on a scale from 0 to 100 %, beside what chance gives."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from topgraft._report.facts import Facts
from topgraft._report.mistakes import KEYS
from topgraft._report.numbers import Numbers

WIDE = 0.1
"""An interval at least this wide is told as loud as the number in it."""
RIGHT, LETTER = 390, 6.6
"""Where the scale ends, and about the width of a letter of the names before it."""
ROW = 20
"""Height of the line of one measurement; the width of the picture is 400."""


def chance(facts: Facts) -> float:
    """Return the share that always giving the same answer would get right, of the headline's photos.

    It is the largest class; where photos carry several labels, yes or no for each class, whichever is right
    more often.
    """
    carried = facts.carried(facts.splits[0])
    shares = carried.sum(axis=0) / max(len(carried), 1)
    return float(np.maximum(shares, 1 - shares).mean() if facts.multilabel else shares.max())


def may_be_chance(facts: Facts, metrics: Numbers, key: str) -> bool:
    """Tell whether always giving the same answer may be as good."""
    return bool(metrics.get(f"/{key}/accuracy/low") <= chance(facts))


def wide(metrics: Numbers, key: str) -> bool:
    """Tell whether the photos are so few that the interval says more than the number."""
    accuracy = metrics.get(f"/{key}/accuracy")
    return bool(accuracy["high"] - accuracy["low"] >= WIDE)


def scale(facts: Facts, metrics: Numbers, key: str) -> Markup:
    """Draw all that was measured on one scale: the headline filled, the other one hollow."""
    keys = sorted((KEYS[split] for split in facts.splits), key=lambda name: name != key)
    names = {KEYS[split]: facts.titles[split] for split in facts.splits}
    base, floor = chance(facts), 26 + ROW * len(keys)
    left = round(LETTER * max(map(len, names.values()))) + 8
    marks, said = [], []
    for i, name in enumerate(keys):
        accuracy = metrics.get(f"/{name}/accuracy")
        marks.append(
            _mark(names[name], accuracy, left, 24 + ROW * i + ROW / 2, "first" if name == key else "other")
        )
        low, value, high = (100 * accuracy[part] for part in ("low", "value", "high"))
        said.append(f"{names[name]} {value:.0f} %, between {low:.0f} and {high:.0f} %")
    same = "same answer" if facts.multilabel else "largest class"
    label = f"{'; '.join(said)}; the {same} is {100 * base:.0f} %"
    ticks = Markup("").join(
        Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
            _at(share, left), floor + 18, anchor, text
        )
        for share, anchor, text in ((0, "start", "0"), (0.5, "middle", "50"), (1, "end", "100 %"))
    )
    return Markup(
        '<svg viewBox="0 0 400 {height}" role="img" aria-label="{label}">'
        '<rect class="rail" x="{left}" y="22" width="{width}" height="{band}" rx="4"/>'
        '<line class="base" x1="{base}" x2="{base}" y1="18" y2="{under}"/>'
        '<text x="{base}" y="12" text-anchor="{anchor}">{same}</text>{marks}{ticks}</svg>'
    ).format(
        height=floor + 22,
        label=label,
        left=left,
        width=RIGHT - left,
        band=floor - 22,
        base=_at(base, left),
        under=floor + 4,
        anchor="start" if base < 0.1 else "end" if base > 0.9 else "middle",
        same=same,
        marks=Markup("").join(marks),
        ticks=ticks,
    )


def _at(share: float, left: float) -> float:
    return round(left + (RIGHT - left) * share, 1)


def _mark(name: str, accuracy: dict[str, float], left: float, y: float, style: str) -> Markup:
    """Draw one measurement, its name before it."""
    low, value, high = (_at(accuracy[part], left) for part in ("low", "value", "high"))
    return Markup(
        '<g class="{}"><line class="reach" x1="{}" x2="{}" y1="{y}" y2="{y}"/>'
        '<circle class="at" cx="{}" cy="{y}" r="6.5"/>'
        '<text x="{}" y="{}" text-anchor="end">{}</text></g>'
    ).format(style, low, high, value, left - 10, y + 4, name, y=y)
