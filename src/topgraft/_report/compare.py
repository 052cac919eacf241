"""Several runs side by side: their numbers, and their differences on the photos they share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from markupsafe import Markup

from topgraft._report.facts import Facts
from topgraft._report.mistakes import KEYS
from topgraft._report.numbers import Numbers, written
from topgraft._report.svg import whisker
from topgraft.metrics import Estimate
from topgraft.selection.ensemble import paired, paired_loss


@dataclass(frozen=True)
class Column:
    """One run of the page: its name, its numbers, and where its headline numbers are."""

    name: str
    facts: Facts
    numbers: Numbers
    key: str


@dataclass(frozen=True)
class Gap:
    """How far a run is from the first one, on the photos both answered for.

    Attributes:
        name: of the run.
        split: whose photos.
        photos: how many.
        accuracy: its accuracy minus the first run's.
        loss: its log loss minus the first run's.
        drawn: the interval of the accuracy.
    """

    name: str
    split: str
    photos: int
    accuracy: Estimate
    loss: Estimate
    drawn: Markup

    def show(self, measure: Literal["accuracy", "loss"]) -> Markup:
        """Write a difference with its interval: accuracy in points of a hundred."""
        one: Estimate = getattr(self, measure)
        parts = [
            Markup('<data value="{}" data-gap="{}/{}/{}/{}">{}</data>').format(
                json.dumps(value),
                self.split,
                self.name,
                measure,
                part,
                written(100 * value, "point") if measure == "accuracy" else written(value, "signed"),
            )
            for part, value in one.as_dict().items()
        ]
        return Markup('{} <span class="interval">{} to {}</span>').format(*parts)

    @property
    def verdict(self) -> str:
        """Say in words what the intervals allow."""
        words = [
            _verdict(self.accuracy.low, self.accuracy.high, "more accurate", "less accurate"),
            _verdict(-self.loss.high, -self.loss.low, "lower log loss", "higher log loss"),
        ]
        known = [word for word in words if word]
        return ", ".join(known) if known else "cannot be told apart from the first"


def _verdict(low: float, high: float, better: str, worse: str) -> str:
    return better if low > 0 else worse if high < 0 else ""


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
        if other.facts.classes == first.facts.classes and not first.facts.multilabel | other.facts.multilabel:
            ours, theirs = _rows(first.facts, split), _rows(other.facts, split)
            shared = sorted(ours.keys() & theirs.keys())
            if shared:
                labels = np.array([ours[photo][0] for photo in shared], np.int64)
                mine, zero = (
                    # The table has six digits: what it says is 0 is at most half of the last.
                    np.clip([rows[photo][1] for photo in shared], 5e-7, 1.0)
                    for rows in (theirs, ours)
                )
                both = paired(labels, mine, zero), paired_loss(labels, mine, zero)
                found.append((other.name, len(shared), *both))
    half_width = max((max(abs(gap.low), abs(gap.high)) for _, _, gap, _ in found), default=1.0) or 1.0
    return [
        Gap(
            name,
            split,
            n,
            gap,
            loss,
            whisker(gap.value, gap.low, gap.high, (-half_width, half_width), zero=True),
        )
        for name, n, gap, loss in found
    ]


def _rows(facts: Facts, split: str) -> dict[str, tuple[int, Any]]:
    """Find label and probabilities by the photo's content (by its id in runs that do not know it)."""
    labels, probabilities = facts.probabilities(split)
    rows = facts.of(split)
    return {
        row.digest or row.id: (int(label), line)
        for row, label, line in zip(rows, labels, probabilities, strict=True)
    }


def settings(shown: list[Column]) -> list[tuple[str, list[str]]]:
    """List what the runs chose, one line a choice."""

    def line(name: str, values: list[Any]) -> tuple[str, list[str]]:
        return name, [str(value) for value in values]

    metrics = [column.facts.metrics for column in shown]
    return [
        line("Backbone", [facts["backbone"]["name"] for facts in metrics]),
        line(
            "Head", [f"{facts['head']['name']} {facts['head']['setting'] or ''}".strip() for facts in metrics]
        ),
        line("Policies", [len(facts["policies"]) for facts in metrics]),
        line("Precision", [facts["backbone"]["precision"] for facts in metrics]),
        line("Seed", [facts["seed"] for facts in metrics]),
    ]
