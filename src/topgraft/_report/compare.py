"""Several runs side by side: their numbers, and their differences on the photos they share."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from topgraft._report.facts import Facts
from topgraft._report.mistakes import KEYS
from topgraft._report.numbers import FINE, Numbers, Style, written
from topgraft._report.svg import whisker
from topgraft.metrics import Estimate
from topgraft.selection.ensemble import paired, paired_loss
from topgraft.types import Probabilities


@dataclass(frozen=True)
class Column:
    """One run of the page.

    Attributes:
        name: of its folder, or its path.
        facts: of it.
        numbers: the same, to be written.
        key: where its headline numbers are.
    """

    name: str
    facts: Facts
    numbers: Numbers
    key: str

    def link(self, place: Path) -> str:
        """Return the address of its own report, as seen from the page at `place`; "" where there is none."""
        page = self.facts.run.path / "report.html"
        if not page.is_file():
            return ""
        try:
            return quote(Path(os.path.relpath(page, place.parent)).as_posix())
        except ValueError:  # on another drive of Windows
            return page.absolute().as_uri()


@dataclass(frozen=True)
class Gap:
    """How far a run is from the first one, on the photos both answered for.

    Attributes:
        name: of the run.
        split: whose photos.
        photos: how many.
        same: whether both know the same classes; else photos of those that both know are compared.
        besides: classes that it alone knows.
        accuracy: its accuracy minus the first run's.
        loss: its log loss minus the first run's.
        drawn: the interval of the accuracy.
    """

    name: str
    split: str
    photos: int
    same: bool
    besides: list[str]
    accuracy: Estimate
    loss: Estimate
    drawn: Markup

    def show(self, measure: Literal["accuracy", "loss"]) -> Markup:
        """Write a difference with its interval: accuracy in points of a hundred."""
        return Markup('{} <span class="interval">{} to {}</span>').format(*self._parts(measure))

    def _parts(self, measure: Literal["accuracy", "loss"]) -> list[Markup]:
        """Write value, low and high."""
        gap: Estimate = getattr(self, measure)
        scale: int
        style: Style
        scale, style = (100, "point") if measure == "accuracy" else (1, "signed")
        return [
            Markup('<data value="{}" data-gap="{}/{}/{}/{}">{}</data>').format(
                json.dumps(value),
                self.split,
                self.name,
                measure,
                part,
                written(scale * value, style, fine=gap.high - gap.low < FINE),
            )
            for part, value in gap.as_dict().items()
        ]

    def sentence(self, first: str, title: str) -> Markup:
        """Say how the run compares with the first one, and how far that is known."""
        said = _verdict(self.accuracy.low, self.accuracy.high, "names more", "names fewer")
        photos = Markup("on the {} photos both answered for ({}{})").format(
            self._count(), title.lower(), "" if self.same else "; those of classes that both know"
        )
        points = Markup("{} points ({} to {})").format(*self._parts("accuracy"))
        ending = Markup("")
        if self.besides:
            more = (
                f"{self.besides[0]} and {len(self.besides) - 1} more" if self.besides[1:] else self.besides[0]
            )
            ending = Markup(" <b>{}</b> knows {} besides.").format(self.name, more)
        if said:
            return Markup("<b>{}</b> {} photos right than <b>{}</b>: {} {}.{}").format(
                self.name, said, first, points, photos, ending
            )
        loss = _verdict(-self.loss.high, -self.loss.low, "better", "worse")
        but = Markup(", but its probabilities are {}: log loss {} ({} to {})").format(
            loss, *self._parts("loss")
        )
        return Markup(
            "<b>{0}</b> cannot be told from <b>{1}</b> by how many photos it names right: {2} {3}{4}.{5}"
        ).format(self.name, first, points, photos, but if loss else "", ending)

    def _count(self) -> Markup:
        return Markup('<data value="{0}" data-gap="{1}/{2}/photos">{0}</data>').format(
            self.photos, self.split, self.name
        )

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


def verdicts(sides: dict[str, tuple[list[Column], list[Gap]]], titles: dict[str, str]) -> list[Markup]:
    """Say of every other run how it compares with the first, on the side that has the most photos for it."""
    said: dict[str, tuple[int, Markup]] = {}
    for split, (shown, found) in sides.items():
        for gap in found:
            if gap.photos > said.get(gap.name, (0, Markup("")))[0]:
                said[gap.name] = gap.photos, gap.sentence(shown[0].name, titles[split])
    return [sentence for _, sentence in said.values()]


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
    """Compare every other run with the first, photo by photo, on photos of the classes that both know.

    Photos that the two were given other labels of are left out: none of both is known to be right.
    """
    first, *others = shown
    found = []
    for other in others:
        if first.facts.multilabel or other.facts.multilabel:
            continue
        both = [name for name in first.facts.classes if name in other.facts.classes]
        ours, theirs = _rows(first.facts, split, both), _rows(other.facts, split, both)
        shared = sorted(photo for photo in ours.keys() & theirs.keys() if ours[photo][0] == theirs[photo][0])
        if shared:
            labels = np.array([ours[photo][0] for photo in shared], np.int64)
            mine, zero = (_together([rows[photo][1] for photo in shared]) for rows in (theirs, ours))
            _, groups = np.unique([ours[photo][2] for photo in shared], return_inverse=True)
            same = len(both) == len(first.facts.classes) == len(other.facts.classes)
            besides = [name for name in other.facts.classes if name not in both]
            gap = paired(labels, mine, zero, groups=groups)
            loss = paired_loss(labels, mine, zero, groups=groups)
            found.append((other.name, len(shared), same, besides, gap, loss))
    half_width = max((max(abs(gap.low), abs(gap.high)) for *_, gap, _ in found), default=1.0) or 1.0
    return [
        Gap(
            name,
            split,
            n,
            same,
            besides,
            gap,
            loss,
            whisker(gap.value, gap.low, gap.high, (-half_width, half_width), zero=True),
        )
        for name, n, same, besides, gap, loss in found
    ]


def _rows(facts: Facts, split: str, known: list[str]) -> dict[str, tuple[int, Any, str]]:
    """Find label, probabilities and group by the photo's content (by its id in runs that do not know it).

    Args:
        facts: of a run.
        split: whose photos.
        known: the classes that count: labels are places in it, photos of others are left out, and of other
            classes' probabilities the largest stands behind those of these.
    """
    labels, probabilities = facts.probabilities(split)
    places = [facts.classes.index(name) for name in known]
    others = [place for place in range(len(facts.classes)) if place not in places]
    found = {}
    for row, label, line in zip(facts.of(split), labels, probabilities, strict=True):
        if label in places:
            most = [line[others].max()] if others else [0.0]
            found[row.digest or row.id] = places.index(label), [*line[places], *most], row.group or row.id
    return found


def _together(lines: list[Any]) -> Probabilities:
    """Return lines of probabilities as one table; it has six digits: 0 is at most half of the last."""
    return np.clip(np.array(lines, np.float64), 5e-7, 1.0)


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
