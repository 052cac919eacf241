"""Where it errs: the confusion matrix whose cells open their photos, and the galleries worth a look."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

from markupsafe import Markup

from topgraft._report.facts import Facts, short
from topgraft._report.gallery import Gallery, Shot
from topgraft._report.numbers import Numbers, pointer, written
from topgraft._report.photos import LARGE_PX, SMALL_PX, Book, spread
from topgraft.run.predictions import Predicted

KEYS = {"test": "test", "cv": "cross_validation"}
MOST_CLASSES = 20
"""More classes than this do not fit a table of cells; their mistakes are listed by class."""
NARROW_CLASSES = 5
"""More than this do not fit it on a telephone."""
MOST_PAIRS = 120
CELL_MOST, CELL_LEAST, CELLS_TOGETHER = 24, 4, 360
"""Photos of one cell, and about how many all cells share."""
GALLERY = 18
SURE, UNSURE = 0.9, 0.6
"""From where on an answer is called sure, and below which it hesitated."""


@dataclass(frozen=True)
class Cell:
    """One cell of a confusion matrix.

    Attributes:
        anchor: of its photos.
        label, predicted: class indices.
        number: the count, traceable; empty where it is 0.
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
    """The confusion matrix of one split, all cells by rows.

    Attributes:
        split: whose photos.
        photos: how many, traceable.
        cells: by label, then by answer.
    """

    split: str
    photos: Markup
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

    @property
    def rarer(self) -> int:
        """How many kinds of mistakes are not among them."""
        return sum(cell.label != cell.predicted for cell in self.filled) - len(self.pairs)

    @property
    def by_class(self) -> list[list[Cell]]:
        """The most frequent mistakes of each class, the class that is mistaken most often first."""
        lines: dict[int, list[Cell]] = defaultdict(list)
        for cell in self.pairs:
            lines[cell.label].append(cell)
        return sorted(lines.values(), key=lambda line: -sum(cell.heat for cell in line))

    @property
    def opened(self) -> list[Cell]:
        """The cells whose photos can be opened."""
        return [
            cell for cell in (self.filled if len(self.cells) <= MOST_CLASSES else self.pairs) if cell.shots
        ]


def predicted_at(row: Predicted) -> Markup:
    """Write a row's probability; it names its line in predictions.csv."""
    return _chance(row, "probability", row.probability)


def _chance(row: Predicted, column: str, probability: float) -> Markup:
    return Markup('<data value="{}" data-prediction="{}/{}">{}</data>').format(
        f"{probability:.6f}", row.index, column, written(probability, "whole")
    )


def shot(facts: Facts, row: Predicted) -> Shot:
    """Say what a photo is, what it was taken for, what came next, and which photo it is."""
    label = ", ".join(facts.classes[i] for i in row.labels)
    predicted = facts.classes[row.predicted]
    at = predicted_at(row)
    if row.right:
        answer = Markup('<span class="was">{}</span> {}').format(label, at)
        said = f"{row.id}: {label}, recognised at {100 * row.probability:.0f} %"
    else:
        answer = Markup('<span class="was">{}</span> <span class="wrong">→ {}</span> {}').format(
            label, predicted, at
        )
        said = f"{row.id}: {label} taken for {predicted} at {100 * row.probability:.0f} %"
    return Shot(row.id, answer + _next(facts, row) + _which(facts, row.id, row.split), said)


def _next(facts: Facts, row: Predicted) -> Markup:
    """Name the runner-up; nothing where there is none to speak of."""
    order = row.probabilities.argsort()[::-1]
    second = next((int(i) for i in order if i != row.predicted), None)
    if second is None or row.probabilities[second] < 0.005:
        return Markup("")
    at = _chance(row, f"p_{facts.classes[second]}", float(row.probabilities[second]))
    return Markup('<span class="less">then {} {}</span>').format(facts.classes[second], at)


def _which(facts: Facts, name: str, split: str) -> Markup:
    """Name the file, and the split where there are several."""
    side = f", {facts.titles[split].lower()}" if len(facts.splits) > 1 else ""
    return Markup('<span class="less"><code>{}</code>{}</span>').format(short(name), side)


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
                    metrics(pointer(KEYS[split], "confusion", i, j), "count") if count else Markup(""),
                    count,
                    count / total if total else 0.0,
                    [shot(facts, rows[name]) for name in chosen],
                )
            )
        cells.append(line)
    return Confusion(split, metrics(f"/{KEYS[split]}/n", "count"), cells)


def galleries(facts: Facts, metrics: Numbers) -> list[Gallery]:
    """Collect the photos worth a look; a gallery without any is left out, and no photo is shown twice."""
    found = [
        _wrong(facts),
        _label_issues(facts, metrics),
        _gallery(
            facts,
            "unknown",
            "Unlike anything it learned",
            "Photos it would call unknown: further from the training photos than its threshold allows.",
            _strange(facts),
        ),
        _gallery(
            facts,
            "least-certain",
            "Least certain",
            "The photos it hesitated over most, right or wrong. More photos like these teach it the most.",
            sorted(
                (row for row in facts.rows if row.probability < UNSURE),
                key=lambda row: (row.probability, row.id),
            )[: GALLERY - 6],
        ),
    ]
    return _once([gallery for gallery in found if gallery.shots])


def _wrong(facts: Facts) -> Gallery:
    """Show the mistakes it was sure of; where it was sure of none, those it was least unsure of."""
    rows = sorted((row for row in facts.rows if not row.right), key=lambda row: (-row.probability, row.id))
    sure = [row for row in rows if row.probability >= SURE]
    if sure:
        why = "Wrong, and sure of it. Look here first for wrong labels, or for what the photos do not teach."
        return _gallery(facts, "confident-mistakes", "Sure and wrong", why, sure)
    why = "It was sure of none of its mistakes. These are the ones it was least unsure of."
    return _gallery(facts, "confident-mistakes", "Mistakes, all of them unsure", why, rows)


def _strange(facts: Facts) -> list[Predicted]:
    threshold = ((facts.metrics.get("trust") or {}).get("unknown") or {}).get("threshold")
    if threshold is None:
        return []
    far = [row for row in facts.rows if row.distance is not None and row.distance > threshold]
    return sorted(far, key=lambda row: (-(row.distance or 0.0), row.id))


def _once(found: list[Gallery]) -> list[Gallery]:
    """Leave each photo in the first gallery that shows it; the others point to it."""
    shown: set[str] = set()
    kept = []
    for gallery in found:
        also = tuple(photo for photo in gallery.shots if photo.id in shown)
        shown |= {photo.id for photo in gallery.shots}
        kept.append(
            replace(gallery, shots=[photo for photo in gallery.shots if photo not in also], also=also)
        )
    return kept


def _gallery(facts: Facts, anchor: str, title: str, why: str, rows: list[Predicted]) -> Gallery:
    distinct = list({row.id: row for row in rows}.values())
    kept = distinct[:GALLERY]
    return Gallery(anchor, title, why, [shot(facts, row) for row in kept], len(distinct) - len(kept))


def _label_issues(facts: Facts, metrics: Numbers) -> Gallery:
    issues = (facts.metrics.get("trust") or {}).get("label_issues", [])
    shots = []
    for i, issue in enumerate(issues[:GALLERY]):
        at = metrics(pointer("trust", "label_issues", i, "probability"), "whole")
        caption = Markup('labelled <span class="was">{}</span>, looks like {} {}').format(
            issue["label"], issue["suggested"], at
        ) + _which(facts, issue["id"], "cv")
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
        book.take([photo.id for photo in gallery.shots], LARGE_PX)
    for right in (False, True):
        for table in tables:
            for cell in table.opened:
                if (cell.label == cell.predicted) is right:
                    book.take([photo.id for photo in cell.shots], SMALL_PX)


def everything(found: list[Gallery], tables: list[Confusion]) -> dict[str, Shot]:
    """Every photo on the page with what is said of it first: what the enlarged view shows."""
    shots = [photo for gallery in found for photo in gallery.shots]
    shots += [photo for table in tables for cell in table.opened for photo in cell.shots]
    unique: dict[str, Shot] = {}
    for photo in shots:
        unique.setdefault(photo.id, photo)
    return unique
