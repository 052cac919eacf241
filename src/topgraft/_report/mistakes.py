"""Where it errs: the confusion matrix whose cells open their photos, and the galleries worth a look."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath

from markupsafe import Markup

from topgraft._report.facts import Facts, short
from topgraft._report.numbers import Numbers, pointer, written
from topgraft._report.photos import LARGE_PX, SMALL_PX, Book, spread
from topgraft.run.predictions import Predicted

KEYS = {"test": "test", "cv": "cross_validation"}
MOST_CLASSES = 20
"""More classes than this do not fit a table of cells; their most frequent confusions are listed."""
MOST_PAIRS = 40
CELL_MOST, CELL_LEAST, CELLS_TOGETHER = 24, 4, 360
"""Photos of one cell, and about how many all cells share."""
GALLERY = 18


@dataclass(frozen=True)
class Shot:
    """One photo as it is shown: its id, what stands under it, and what a screen reader says."""

    id: str
    caption: Markup
    alt: str


@dataclass(frozen=True)
class Cell:
    """One cell of a confusion matrix.

    Attributes:
        anchor: of its photos.
        label, predicted: class indices.
        number: the count, traceable.
        count: the same, bare.
        heat: 0 to 1, its share of the row.
        shots: photos of it; not all where there are many.
    """

    anchor: str
    label: int
    predicted: int
    number: Markup
    count: int
    heat: float
    shots: list[Shot]


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of one split: all cells by rows, and those that hold photos."""

    split: str
    cells: list[list[Cell]]

    @property
    def filled(self) -> list[Cell]:
        """Cells with photos behind them, mistakes first, the most frequent first."""
        every = [cell for row in self.cells for cell in row if cell.count]
        return sorted(every, key=lambda cell: (cell.label == cell.predicted, -cell.count))

    @property
    def pairs(self) -> list[Cell]:
        """The most frequent mistakes."""
        return [cell for cell in self.filled if cell.label != cell.predicted][:MOST_PAIRS]


@dataclass(frozen=True)
class Gallery:
    """Photos with something in common, and a sentence why they are worth a look."""

    anchor: str
    title: str
    why: str
    shots: list[Shot]
    left_out: int = 0


def predicted_at(row: Predicted) -> Markup:
    """Write a row's probability; it names its line in predictions.csv."""
    return Markup('<data value="{}" data-prediction="{}/probability">{}</data>').format(
        f"{row.probability:.6f}", row.index, written(row.probability, "whole")
    )


def shot(facts: Facts, row: Predicted) -> Shot:
    """Say what a photo is and what it was taken for."""
    label = ", ".join(facts.classes[i] for i in row.labels)
    predicted = facts.classes[row.predicted]
    at = predicted_at(row)
    if row.right:
        caption = Markup('<span class="was">{}</span> {}').format(label, at)
        said = f"{row.id}: {label}, recognised at {100 * row.probability:.0f} %"
    else:
        caption = Markup('<span class="was">{}</span> <span class="wrong">→ {}</span> {}').format(
            label, predicted, at
        )
        said = f"{row.id}: {label} taken for {predicted} at {100 * row.probability:.0f} %"
    return Shot(row.id, caption, said)


def matrices(facts: Facts, metrics: Numbers) -> list[Confusion]:
    """Make the confusion matrix of every split that was measured."""
    return [
        _matrix(facts, metrics, split) for split in facts.splits if metrics.has(f"/{KEYS[split]}/confusion")
    ]


def _matrix(facts: Facts, metrics: Numbers, split: str) -> Confusion:
    behind: dict[tuple[int, int], list[Predicted]] = defaultdict(list)
    for row in facts.of(split):
        behind[row.label, row.predicted].append(row)
    table = metrics.get(f"/{KEYS[split]}/confusion")
    room = min(max(CELLS_TOGETHER // max(len(behind), 1), CELL_LEAST), CELL_MOST)
    cells = []
    for i, counts in enumerate(table):
        total = sum(counts)
        line = []
        for j, count in enumerate(counts):
            rows = {row.id: row for row in sorted(behind[i, j], key=lambda row: -row.probability)}
            chosen = list(rows)[:room] if i != j else spread(list(rows), room // 2)
            line.append(
                Cell(
                    f"{split}-{i}-{j}",
                    i,
                    j,
                    metrics(pointer(KEYS[split], "confusion", i, j), "count"),
                    count,
                    count / total if total else 0.0,
                    [shot(facts, rows[name]) for name in chosen],
                )
            )
        cells.append(line)
    return Confusion(split, cells)


def galleries(facts: Facts, metrics: Numbers) -> list[Gallery]:
    """Collect the photos worth a look; a gallery without any is left out."""
    rows = sorted(facts.rows, key=lambda row: (-row.probability, row.id))
    wrong = [row for row in rows if not row.right]
    unsure = sorted(facts.rows, key=lambda row: (row.probability, row.id))
    threshold = (facts.metrics.get("trust") or {}).get("unknown", {}).get("threshold")
    strange = (
        sorted(
            (row for row in facts.rows if row.distance is not None and row.distance > threshold),
            key=lambda row: (-(row.distance or 0.0), row.id),
        )
        if threshold is not None
        else []
    )
    found = [
        _gallery(
            facts,
            "confident-mistakes",
            "Most confident mistakes",
            "Wrong, and sure of it. Look here first for wrong labels, or for what the photos do not teach.",
            wrong,
        ),
        _label_issues(facts, metrics),
        _gallery(
            facts,
            "unknown",
            "Unlike anything it learned",
            "Photos it would call unknown: further from the training photos than its threshold allows.",
            strange,
        ),
        _gallery(
            facts,
            "least-certain",
            "Least certain",
            "The photos it hesitated over most, right or wrong. More photos like these teach it the most.",
            unsure[: GALLERY - 6],
        ),
    ]
    return [gallery for gallery in found if gallery.shots]


def _gallery(facts: Facts, anchor: str, title: str, why: str, rows: list[Predicted]) -> Gallery:
    distinct = list({row.id: row for row in rows}.values())
    kept = distinct[:GALLERY]
    return Gallery(anchor, title, why, [shot(facts, row) for row in kept], len(distinct) - len(kept))


def _label_issues(facts: Facts, metrics: Numbers) -> Gallery:
    issues = (facts.metrics.get("trust") or {}).get("label_issues", [])
    shots = []
    for i, issue in enumerate(issues[:GALLERY]):
        at = metrics(pointer("trust", "label_issues", i, "probability"), "whole")
        caption = Markup('labelled <span class="was">{}</span>, looks like {} {}<br><code>{}</code>').format(
            issue["label"], issue["suggested"], at, PurePosixPath(issue["id"]).name
        )
        shots.append(
            Shot(
                issue["id"],
                caption,
                f"{issue['id']}: labelled {issue['label']}, looks like {issue['suggested']}",
            )
        )
    return Gallery(
        "label-issues",
        "Likely label errors",
        "In cross-validation, the photos of their kind spoke against these labels. Correct those that are "
        "wrong, then train again.",
        shots,
        max(len(issues) - GALLERY, 0),
    )


def take(book: Book, found: list[Gallery], tables: list[Confusion]) -> None:
    """Put the photos into the book, the most telling first, so that the last ones go where room is short."""
    for gallery in found:
        book.take([shot_.id for shot_ in gallery.shots], LARGE_PX)
    for table in tables:
        for cell in table.filled:
            if cell.label != cell.predicted:
                book.take([shot_.id for shot_ in cell.shots], SMALL_PX)
    for table in tables:
        for cell in table.filled:
            if cell.label == cell.predicted:
                book.take([shot_.id for shot_ in cell.shots], SMALL_PX)


def everything(found: list[Gallery], tables: list[Confusion]) -> dict[str, Shot]:
    """Every photo on the page with what is said of it first: what the enlarged view shows."""
    shots = [shot_ for gallery in found for shot_ in gallery.shots]
    shots += [shot_ for table in tables for cell in table.filled for shot_ in cell.shots]
    unique: dict[str, Shot] = {}
    for shot_ in shots:
        unique.setdefault(shot_.id, shot_)
    return unique


__all__ = [
    "Cell",
    "Confusion",
    "Gallery",
    "Shot",
    "everything",
    "galleries",
    "matrices",
    "short",
    "shot",
    "take",
]
