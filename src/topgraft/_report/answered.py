"""How many photos are answered above a threshold, and how many of them rightly."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from topgraft._report.numbers import Numbers, pointer
from topgraft._report.plots import Figure
from topgraft._report.svg import Plot, percent

AT = "/trust/coverage"
SAID = 0.9
"""The threshold of which a sentence speaks, unless the run has one of its own."""
LOWEST = 0.5
"""The scale begins here where all of the curve lies above: half right is poor for whoever answers less."""


@dataclass(frozen=True)
class Answered:
    """Confidence against coverage.

    Attributes:
        figure: the curve.
        rows: pointers to the thresholds of the table that differ, lowest first.
        said: one sentence about one of them.
    """

    figure: Figure
    rows: list[str]
    said: Markup


def answered(metrics: Numbers) -> Answered | None:
    """Draw the risk-coverage curve; None where it was not measured."""
    if not metrics.has(AT):
        return None
    curve, table = metrics.get(f"{AT}/curve"), metrics.get(f"{AT}/table")
    floor = LOWEST if min(point["right"] for point in curve) >= LOWEST else 0.0
    plot = Plot(
        "Share right over share answered",
        (0.0, 1.0),
        (floor, 1.0),
        "photos answered, the surest first",
        "of them right",
        "; ".join(
            f"above {row['above']:.0%}, {row['answered']['value']:.0%} answered,"
            f" {row['right']['value']:.0%} right"
            for row in table
            if row["right"]
        ),
        x_ticks=percent,
        y_ticks=percent,
    )
    plot.line([(point["answered"], point["right"]) for point in curve], 0)
    kept = _differing(table)
    for i in kept:
        row = table[i]
        if row["right"]:
            share, right = row["answered"]["value"], row["right"]
            plot.reach(share, max(right["low"], floor), right["high"])
            plot.dot(share, right["value"], 4.5, f"above {row['above']:.0%}: {share:.0%} answered")
    note = Markup(
        "Dots are the thresholds listed below, with their 95 % intervals."
        " Mean share wrong over the whole curve: {}."
    )
    figure = Figure(
        "What if it may say “not sure”?", plot, note.format(metrics.inline(f"{AT}/area", "percent"))
    )
    said = next((i for i in kept if table[i]["above"] == SAID), kept[-1])
    return Answered(
        figure,
        [pointer("trust", "coverage", "table", i) for i in kept],
        _sentence(metrics, f"{AT}/chosen" if metrics.has(f"{AT}/chosen") else f"{AT}/table/{said}"),
    )


def _differing(table: list[dict[str, object]]) -> list[int]:
    """Leave out thresholds that no answer lies between: they say what the next one says."""
    return [
        i for i, row in enumerate(table) if i + 1 == len(table) or row["answered"] != table[i + 1]["answered"]
    ]


def _sentence(metrics: Numbers, at: str) -> Markup:
    share, above = metrics.value(f"{at}/answered", "percent"), metrics(f"{at}/above", "whole")
    if not metrics.has(f"{at}/right"):
        return Markup("Answered only above {}, no photo would be.").format(above)
    right = metrics.inline(f"{at}/right", "percent")
    return Markup("Answered only above {}: {} of photos answered, {} of them right.").format(
        above, share, right
    )
