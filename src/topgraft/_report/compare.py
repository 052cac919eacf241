"""Several runs side by side: their numbers, and their differences on the photos they share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from topgraft._report.facts import Facts
from topgraft._report.mistakes import KEYS
from topgraft._report.numbers import Numbers, written
from topgraft._report.svg import whisker
from topgraft.ensemble import paired
from topgraft.metrics import Estimate


@dataclass(frozen=True)
class Column:
    """One run of the page: its name, its numbers, and where its headline numbers are."""

    name: str
    facts: Facts
    numbers: Numbers
    key: str


@dataclass(frozen=True)
class Gap:
    """A run's accuracy minus the first run's, on the photos both answered for."""

    name: str
    split: str
    photos: int
    estimate: Estimate
    drawn: Markup

    def show(self) -> Markup:
        """Write the difference in points of a hundred with its interval."""
        parts = [
            Markup('<data value="{}" data-gap="{}/{}/{}">{}</data>').format(
                json.dumps(value), self.split, self.name, part, written(100 * value, "point")
            )
            for part, value in self.estimate.as_dict().items()
        ]
        return Markup('{} <span class="interval">{} to {}</span>').format(*parts)

    @property
    def verdict(self) -> str:
        """Say in words what the interval allows."""
        if self.estimate.low > 0:
            return "better than the first"
        if self.estimate.high < 0:
            return "worse than the first"
        return "cannot be told apart from the first"


def splits_of(every: list[Facts]) -> list[str]:
    """List what all runs were measured on, the test first: few photos there may hide what more show."""
    return [split for split in KEYS if all(split in facts.splits for facts in every)] or ["cv"]


def columns(every: list[Facts], split: str) -> list[Column]:
    """Name the runs by their folders, or by their paths where two folders have the same name."""
    names = [facts.run.path.name for facts in every]
    if len(set(names)) < len(names):
        names = [str(facts.run.path) for facts in every]
    return [
        Column(name, facts, Numbers(facts.metrics, run=i), KEYS[split])
        for i, (name, facts) in enumerate(zip(names, every, strict=True))
    ]


def gaps(shown: list[Column], split: str) -> list[Gap]:
    """Compare every other run with the first, photo by photo; runs of other classes are left out."""
    first, *others = shown
    found = []
    for other in others:
        if other.facts.classes == first.facts.classes and not first.facts.several | other.facts.several:
            ours, theirs = _rows(first.facts, split), _rows(other.facts, split)
            shared = sorted(ours.keys() & theirs.keys())
            if shared:
                labels = np.array([ours[one][0] for one in shared], np.int64)
                one = np.array([theirs[photo][1] for photo in shared])
                found.append(
                    (other.name, len(shared), paired(labels, one, np.array([ours[p][1] for p in shared])))
                )
    reach = max((max(abs(gap.low), abs(gap.high)) for _, _, gap in found), default=1.0) or 1.0
    return [
        Gap(name, split, photos, gap, whisker(gap.value, gap.low, gap.high, (-reach, reach), zero=True))
        for name, photos, gap in found
    ]


def _rows(facts: Facts, split: str) -> dict[str, tuple[int, Any]]:
    """Find label and probabilities by the photo's content (by its id in runs that do not know it)."""
    labels, probabilities = facts.probabilities(split)
    rows = facts.of(split)
    return {
        facts.table[row.index].get("digest") or row.id: (int(label), line)
        for row, label, line in zip(rows, labels, probabilities, strict=True)
    }


def settings(shown: list[Column]) -> list[tuple[str, list[str]]]:
    """List what the runs chose, one line a choice."""

    def line(name: str, values: list[Any]) -> tuple[str, list[str]]:
        return name, [str(value) for value in values]

    metrics = [column.facts.metrics for column in shown]
    return [
        line("Backbone", [one["backbone"]["name"] for one in metrics]),
        line("Head", [f"{one['head']['name']} {one['head']['setting'] or ''}".strip() for one in metrics]),
        line("Policies", [len(one["policies"]) for one in metrics]),
        line("Precision", [one["backbone"]["precision"] for one in metrics]),
        line("Seed", [one["seed"] for one in metrics]),
    ]
