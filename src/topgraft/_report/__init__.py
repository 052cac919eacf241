"""The report: one HTML file that opens anywhere, and from which every number can be traced.

It needs no network and no script, and is made from the run's folder alone; photos are read once more from
where the run found them, and those that are gone are said and left out.
"""

from __future__ import annotations

import logging
import shlex
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from topgraft import files
from topgraft._report import compare, looked, mistakes, plots, policies, verdict
from topgraft._report.facts import Facts
from topgraft._report.numbers import Numbers, Style, pointer
from topgraft._report.photos import Book, budget
from topgraft._report.svg import whisker
from topgraft.errors import DataError, TopgraftError, UsageError
from topgraft.files import is_file
from topgraft.run import Run
from topgraft.run.origin import noted
from topgraft.settings import Settings

warn = logging.getLogger(__name__).warning

PHOTO = "data:image/webp"
"""What a page with photos holds."""
BESIDE = ("to_view_0", "to_the_rest")
TITLES = {"test": "Held-out test", "cv": "Cross-validation"}
MEASURES: list[tuple[str, str, Style, str]] = [
    ("/accuracy", "Accuracy", "percent", "photos named right"),
    ("/balanced_accuracy", "Balanced accuracy", "percent", "the same, every class counting alike"),
    ("/macro_f1", "Macro F1", "percent", "precision and recall in one, every class alike"),
    ("/top_k/3", "Top 3", "percent", "the right class is among its first three"),
    ("/top_k/5", "Top 5", "percent", "the right class is among its first five"),
    ("/log_loss", "Log loss", "fixed", "how much its probabilities can be relied on; 0 is perfect"),
    ("/roc_auc", "ROC AUC", "fixed", "ranks a photo of a class above others; 0.5 is chance"),
    ("/average_precision", "Average precision", "fixed", "area under precision and recall"),
    ("/mcc", "MCC", "fixed", "correlation of answer and truth; 0 is chance, 1 perfect"),
]


def report(
    run: Run | str | Path | Sequence[Run | str | Path],
    *,
    photos: str | Path | None = None,
    out: str | Path | None = None,
    settings: Settings | None = None,
) -> Path:
    """Write a run's report, `report.html` in its folder; or put several runs side by side.

    Args:
        run: a finished run or its folder; several are compared in one page, `compare.html`.
        photos: where the run's photos are: a folder, URL or table. None goes by the run's word, which is not
            enough for another machine, or for photos outside the folder that it names.
        out: where the page goes; None is the folder of the run, of the first of several.
        settings: cores.

    Returns:
        The page's path.

    Raises:
        DataError: where a folder is no run, or one of its files is damaged.
    """
    if isinstance(run, Run | str | Path):
        opened = _open(run)
        facts = Facts(opened, photos, settings or Settings.load())
        place = opened.path / "report.html" if out is None else Path(out)
        return _write(_no_poorer(page(facts), place), place)
    every = [Facts(_open(given)) for given in run]
    if not every:
        raise UsageError("expected at least one run to report on, got none.")
    place = every[0].run.path / "compare.html" if out is None else Path(out)
    return _write(comparison(every), place)


def _open(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else Run.open(run)


def _no_poorer(text: str, place: Path) -> str:
    """Return a page, but not one without photos for one that has them: they cannot be had back from it.

    Raises:
        DataError: where it would be.
    """
    if PHOTO not in text and is_file(place) and PHOTO in files.text(place):
        raise DataError(
            f"{place}: shows photos, and none can be read now, so it stays as it is. Go to where the run was"
            " trained, name the photos with --photos, or give another page with -o."
        )
    return text


def _policy() -> str:
    """Return the page's Content-Security-Policy: what it holds, its own script, and nothing from anywhere."""
    script = _environment().get_template("page.js").render()
    own = b64encode(sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{own}';"
        " base-uri 'none'; form-action 'none'"
    )


def _write(text: str, path: Path) -> Path:
    return Run(path.parent).write(path.name, text)


def comparison(every: list[Facts]) -> str:
    """Make the page that puts runs side by side."""
    sides = {split: compare.columns(every, split) for split in compare.splits_of(every)}
    context = {
        "version": metadata.version("topgraft"),
        "policy": _policy(),
        "sides": [
            {
                "split": split,
                "title": TITLES[split],
                "columns": shown,
                "measures": [
                    measure
                    for measure in MEASURES
                    if any(column.numbers.has(f"/{column.key}{measure[0]}") for column in shown)
                ],
                "gaps": compare.gaps(shown, split),
            }
            for split, shown in sides.items()
        ],
        "settings": compare.settings(next(iter(sides.values()))),
    }
    return _environment().get_template("compare.html").render(context)


def page(facts: Facts) -> str:
    """Make the page of one run."""
    metrics, health = Numbers(facts.metrics), facts.health
    key = verdict.headline(facts)
    tables, found = mistakes.matrices(facts, metrics), mistakes.galleries(facts, metrics)
    photos = int(facts.metrics.get("counts", {}).get("photos", len(facts.rows)))
    book = Book(facts.origin, budget(photos), facts.settings.threads)
    sheet = policies.sheet(facts, book)
    looks, silence = _looks(facts, book)
    mistakes.take(book, found, tables)
    shots = mistakes.everything(found, tables)
    context: dict[str, Any] = {
        "title": _title(facts.classes),
        "policy": _policy(),
        "version": metadata.version("topgraft"),
        "m": metrics,
        "h": Numbers(health, "health"),
        "t": Numbers(facts.timings, "timing"),
        "metrics": facts.metrics,
        "health": health,
        "timings": facts.timings,
        "classes": facts.classes,
        "key": key,
        "keys": mistakes.KEYS,
        "splits": facts.splits,
        "titles": TITLES,
        "measures": [
            measure
            for measure in MEASURES
            if any(metrics.has(f"/{mistakes.KEYS[s]}{measure[0]}") for s in facts.splits)
        ],
        "pointer": pointer,
        "sentences": verdict.verdict(facts, metrics),
        "scale": _scale(facts, metrics, key),
        "matrices": tables,
        "most_classes": mistakes.MOST_CLASSES,
        "galleries": found,
        "shots": shots,
        "numbers": {name: f"photo-{i}" for i, name in enumerate(shots)},
        "trust_figures": _trust(facts, metrics, key),
        "ranks": _ranks(metrics),
        "depths": _depths(metrics),
        "learning": plots.learning(facts),
        "looked": looks,
        "worth": _worth(metrics),
        "sheet": sheet,
        "warnings": len(health.get("warnings", [])),
        "has_splits": metrics.has("/test"),
        "largest": max(health.get("classes", {"": 1}).values(), default=1) or 1,
        "refused": [f"{file['id']}: {file['reason']}" for file in health.get("refused", [])],
        "odd": [
            f"{photo['id']}: {photo['width']} × {photo['height']} px" for photo in health.get("odd_sizes", [])
        ],
        "leaks": [
            ", ".join(group) if isinstance(group, list) else str(group) for group in health.get("leaks", [])
        ],
        "photo_notes": [*_missing_photos(facts, book), *_crowded(book), *silence],
        "cost": _cost(facts),
        "command": _command(facts),
        "config": facts.config_text,
        "provenance": _provenance(facts),
        "book": book,
    }
    for line in _missing_photos(facts, book):
        warn(line)
    context["contents"] = _contents(context)
    return _environment().get_template("report.html").render(context)


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("topgraft._report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _title(classes: list[str]) -> str:
    if len(classes) <= 4:
        return f"{', '.join(classes[:-1])} or {classes[-1]}?"
    return f"{', '.join(classes[:3])} and {len(classes) - 3} more classes"


def _contents(context: dict[str, Any]) -> list[tuple[str, str]]:
    """List the sections that are on the page."""
    every = [
        ("result", "Result", True),
        ("numbers", "Numbers", True),
        ("mistakes", "Mistakes", context["matrices"]),
        ("photos", "Photos worth a look", context["galleries"]),
        ("looked", "Where it looked", context["looked"]),
        ("trust", "Can it be trusted?", context["trust_figures"]),
        ("heads", "Heads", context["metrics"].get("leaderboard")),
        ("learning", "Learning curves", context["learning"]),
        ("policies", "Policies", context["metrics"].get("policies")),
        ("health", "Data health", context["health"]),
        ("cost", "What it cost", context["cost"]),
        ("repeat", "How to repeat it", True),
    ]
    return [(anchor, name) for anchor, name, there in every if there]


def _scale(facts: Facts, metrics: Numbers, key: str) -> Markup:
    """Draw the result on a scale from 0 to 100 %, beside what always naming the largest class would give."""
    low, value, high = (metrics.get(f"/{key}/accuracy/{part}") for part in ("low", "value", "high"))
    rows = facts.of(facts.splits[0])
    sizes = [sum(i in row.labels for row in rows) for i in range(len(facts.classes))]
    base = max(sizes) / max(len(rows), 1)

    def at(share: float) -> float:
        return round(14 + 372 * share, 1)

    said = (
        f"{100 * value:.1f} % right, between {100 * low:.1f} and {100 * high:.1f} %;"
        f" the largest class is {100 * base:.0f} %"
    )
    return Markup(
        '<svg viewBox="0 0 400 64" role="img" aria-label="{said}">'
        '<line class="rail" x1="14" x2="386" y1="30" y2="30"/>'
        '<line class="base" x1="{base}" x2="{base}" y1="20" y2="40"/>'
        '<text x="{base}" y="12" text-anchor="middle">largest class</text>'
        '<line class="reach" x1="{low}" x2="{high}" y1="30" y2="30"/>'
        '<circle class="at" cx="{value}" cy="30" r="8"/>'
        '<text x="14" y="60" text-anchor="middle">0</text><text x="200" y="60" text-anchor="middle">50</text>'
        '<text x="386" y="60" text-anchor="middle">100 %</text></svg>'
    ).format(said=said, base=at(base), low=at(low), high=at(high), value=at(value))


def _trust(facts: Facts, metrics: Numbers, key: str) -> list[plots.Figure]:
    split = facts.splits[0]
    first = plots.reliability(metrics)
    return ([first] if first else []) + plots.ranking(facts, metrics, split, key)


def _ranks(metrics: Numbers) -> dict[str, list[tuple[int, Markup]]]:
    """Part the leaderboard: each head's best setting and the chosen one first, the other settings apart.

    Each place comes with its accuracy drawn on one scale.
    """
    rows = metrics.facts.get("leaderboard") or []
    span = (
        min((row["accuracy"]["low"] for row in rows), default=0.0),
        max((row["accuracy"]["high"] for row in rows), default=1.0),
    )
    parts: dict[str, list[tuple[int, Markup]]] = {"first": [], "rest": []}
    seen: set[str] = set()
    for place, row in enumerate(rows):
        first = row["chosen"] or row["head"] not in seen
        seen.add(row["head"])
        at = row["accuracy"]
        drawn = whisker(at["value"], at["low"], at["high"], span)
        parts["first" if first else "rest"].append((place, drawn))
    return parts


def _depths(metrics: Numbers) -> list[tuple[str, str, float]]:
    """List the depths the head leans on, as a photo passes through them: pointer, name, length of the bar."""
    shares = metrics.facts.get("head", {}).get("depths") or []
    largest = max((part["share"] for part in shares), default=1.0) or 1.0
    listed = []
    for i, part in enumerate(shares):
        name, share = part["block"] or "last layer", max(part["share"], 0.0)
        listed.append((pointer("head", "depths", i, "share"), name, share / largest))
    return [*listed[1:], *listed[:1]]


def _worth(metrics: Numbers) -> list[tuple[str, list[tuple[str, Markup]]]]:
    """List what each part of the policies adds: its name, and twice a pointer and the interval, drawn."""
    levels = (metrics.facts.get("worth") or {}).get("levels", [])
    gaps = [[level[beside]["log_loss"] for beside in BESIDE] for level in levels]
    half_width = (
        max((abs(gap[end]) for pair in gaps for gap in pair for end in ("low", "high")), default=1.0) or 1.0
    )
    return [
        (
            level["level"],
            [
                (
                    pointer("worth", "levels", i, beside, "log_loss"),
                    whisker(gap["value"], gap["low"], gap["high"], (-half_width, half_width), zero=True),
                )
                for beside, gap in zip(BESIDE, pair, strict=True)
            ],
        )
        for i, (level, pair) in enumerate(zip(levels, gaps, strict=True))
    ]


def _looks(facts: Facts, book: Book) -> tuple[list[mistakes.Shot], list[str]]:
    """Draw the activation maps; an old or damaged predictor costs them and a note, not the report."""
    try:
        return looked.looked(facts, book), []
    except TopgraftError as error:
        return [], [f"The predictor cannot be asked where it looked: {error}"]


def _missing_photos(facts: Facts, book: Book) -> list[str]:
    """Say which photos cannot be shown, and why."""
    notes = []
    if not facts.origin.root:
        notes.append(
            f"No photos are shown here: {facts.origin.why}. `topgraft report RUN --photos PLACE` shows them."
        )
    elif book.refused:
        notes.append(
            f"{len(book.refused)} photos that the run names lie outside {facts.origin.root} and were not read"
            f" (first: {min(book.refused)}). If a table of yours lists them, name it with --photos."
        )
    if book.gone:
        first = book.gone[0]
        notes.append(f"{len(book.gone)} photos cannot be read any more where they were (first: {first}).")
    return notes


def _crowded(book: Book) -> list[str]:
    if not book.crowded:
        return []
    return [f"A sample of the photos is shown, so that this page stays small; {book.crowded} found no room."]


def _cost(facts: Facts) -> list[tuple[str, str, float, Markup]]:
    """List the stages: name, pointer to the seconds, share of the longest, images/s where that is known."""
    stages = {name: float(spent) for name, spent in facts.timings.items() if isinstance(spent, int | float)}
    longest = max(stages.values(), default=0.0) or 1.0
    return [
        (name, pointer(name), spent / longest, _pace(facts, name, spent)) for name, spent in stages.items()
    ]


def _pace(facts: Facts, stage: str, spent: float) -> Markup:
    counts = facts.metrics.get("counts", {})
    if stage != "embed" or not spent or not counts.get("views"):
        return Markup("")
    pace = counts["photos"] * counts["views"] / spent
    return Markup('<data value="{}" data-pace="{}">{:.0f}</data>').format(pace, stage, pace)


def _command(facts: Facts) -> str:
    if not facts.config_text:
        return f"topgraft report {shlex.quote(str(facts.run.path))}"
    return f"topgraft train {shlex.quote(noted(facts.run) or 'PHOTOS')} --config config.toml -o runs/again"


def _provenance(facts: Facts) -> list[tuple[str, str]]:
    backbone = facts.metrics.get("backbone", {})
    rows = [
        ("seed", facts.metrics.get("seed", "")),
        ("backbone", backbone.get("name", "")),
        ("backbone fingerprint", backbone.get("fingerprint", "")),
        ("precision", backbone.get("precision", "")),
    ]
    rows += [(name, value) for name, value in facts.versions.items() if isinstance(value, str | int | float)]
    return [(name, str(value)) for name, value in rows if value != ""]


__all__ = ["report"]
