"""Can its confidence be believed? The reliability diagram in few bins, and what it says in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from topgraft._report.numbers import Numbers, written
from topgraft._report.plots import UNIT, Figure
from topgraft._report.svg import Plot, percent
from topgraft.metrics import Estimate, wilson

LEAST, MOST = 50, 5
"""Photos in a bin at least, and bins at most: more of fewer would show noise."""


@dataclass(frozen=True)
class Bin:
    """Answers about as sure as each other.

    Attributes:
        first, last: of the bins in metrics.json that were put together, counted from 0.
        count: how many answers.
        confidence: how sure they were on average.
        right: the share of them that was right.
    """

    first: int
    last: int
    count: int
    confidence: float
    right: Estimate

    @property
    def word(self) -> str:
        """Say which way they are off, beyond chance; empty where they may be taken at their word."""
        if self.right.high < self.confidence:
            return "too sure of itself"
        return "too modest" if self.right.low > self.confidence else ""

    def number(self, what: str, value: float) -> Markup:
        """Write a number of the bin; it names the bins of metrics.json that it is the mean of."""
        return Markup('<data value="{}" data-reliability="{}-{}/{}">{}</data>').format(
            value, self.first, self.last, what, written(value, "whole")
        )


def merged(given: list[dict[str, Any]], each: float = 1.0) -> list[Bin]:
    """Put neighbouring bins together until each holds enough answers; none where there are too few at all.

    Args:
        given: the bins of metrics.json.
        each: how many photos held out an answer is worth.
    """
    total = sum(entry["count"] for entry in given)
    enough = max(LEAST, total / MOST)
    found: list[list[int]] = []
    counted = enough
    for i, entry in enumerate(given):
        if counted >= enough:
            found.append([])
            counted = 0
        found[-1].append(i)
        counted += entry["count"]
    if len(found) > 1 and counted < enough:  # what is left over at the end
        rest = found.pop()
        found[-1] += rest
    return [_bin(given, group, each) for group in found] if total >= LEAST else []


def _bin(given: list[dict[str, Any]], group: list[int], each: float) -> Bin:
    parts = [given[i] for i in group if given[i]["count"]]
    count = sum(part["count"] for part in parts)
    right = sum(part["count"] * part["accuracy"] for part in parts)
    confidence = sum(part["count"] * part["confidence"] for part in parts) / count
    return Bin(group[0], group[-1], count, confidence, wilson(right * each, count * each))


def believed(metrics: Numbers, each: float) -> Figure | None:
    """Plot how often answers of a given confidence are right; None where there are too few to tell.

    Args:
        metrics: of the run, or of an evaluation.
        each: how many photos held out an answer is worth.
    """
    bins = merged(metrics.get("/trust/reliability"), each) if metrics.has("/trust/reliability") else []
    if not bins:
        return None
    plot = Plot(
        "Reliability diagram",
        UNIT,
        UNIT,
        "how sure it was",
        "share right",
        "; ".join(
            f"at {entry.confidence:.0%} confidence {entry.right.value:.0%} were right" for entry in bins
        ),
        x_ticks=percent,
        y_ticks=percent,
    )
    plot.line([(0, 0), (1, 1)], "ideal")
    for entry in bins:
        plot.reach(entry.confidence, entry.right.low, entry.right.high)
        note = f"{entry.count} answers: {entry.confidence:.0%} sure, {entry.right.value:.0%} right"
        plot.dot(entry.confidence, entry.right.value, 5, note)
    return Figure("Can its confidence be believed?", plot, _in_words(metrics, bins))


def _in_words(metrics: Numbers, bins: list[Bin]) -> Markup:
    off = [entry for entry in bins if entry.word]
    said = [
        Markup("Answers that were {} sure on average were right {} of the time: {}.").format(
            entry.number("confidence", entry.confidence), entry.number("right", entry.right.value), entry.word
        )
        for entry in off
    ] or [Markup("As far as these photos can tell, it is as often right as it says.")]
    said.append(
        Markup(
            "On the dashed line it is right as often as it is sure; above it is too modest, below too sure of"
            " itself. Bars are 95 % intervals. Mean distance from the line: {} (expected calibration error)."
        ).format(metrics.inline("/trust/ece", "percent"))
    )
    return Markup(" ").join(said)
