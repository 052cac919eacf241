"""Class by class, the weakest first."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from topgraft._report.facts import Facts
from topgraft._report.mistakes import KEYS
from topgraft._report.numbers import Numbers, pointer
from topgraft._report.svg import whisker

OPEN = 12
"""How many classes are shown; the others are folded away."""


@dataclass(frozen=True)
class Line:
    """One class.

    Attributes:
        name: of it.
        at: pointers to its numbers, one a split.
        drawn: how much of it is found in the first of `splits`, with its interval.
        weak: whether that is less than of all photos together, beyond chance.
    """

    name: str
    at: dict[str, str]
    drawn: Markup
    weak: bool


def splits(facts: Facts) -> list[str]:
    """List what was measured by class, the one with the most photos first: classes are small enough."""
    known = [split for split in facts.splits if facts.metrics[KEYS[split]].get("per_class")]
    return sorted(known, key=lambda split: -int(facts.metrics[KEYS[split]]["n"]))


def classes(facts: Facts, metrics: Numbers) -> list[Line]:
    """List the classes by how much of each is found; none where that was not measured."""
    measured = splits(facts)
    if not measured:
        return []
    first = KEYS[measured[0]]
    whole = metrics.get(f"/{first}/accuracy/value")
    found = []
    for name in facts.classes:
        recall = metrics.get(pointer(first, "per_class", name, "recall"))
        line = Line(
            name,
            {split: pointer(KEYS[split], "per_class", name) for split in measured},
            whisker(recall["value"], recall["low"], recall["high"], (0.0, 1.0)),
            recall["high"] < whole,
        )
        none = (recall["low"], recall["high"]) == (0.0, 1.0)  # of this class there was no photo
        found.append((none, recall["value"], recall["low"], line))
    return [line for *_, line in sorted(found, key=lambda entry: entry[:3])]
