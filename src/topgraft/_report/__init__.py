"""The report: one HTML file that opens anywhere, and from which every number can be traced.

It needs no network and no script, and is made from the run's folder alone; photos are read once more from
where the run found them, and those that are gone are said and left out.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from topgraft import files
from topgraft._report import (
    answered,
    believed,
    classes,
    compare,
    depths,
    disagree,
    looked,
    mistakes,
    plots,
    policies,
    scale,
    verdict,
)
from topgraft._report.facts import TITLES, Facts
from topgraft._report.judged import Judged
from topgraft._report.numbers import Numbers, Style, pointer
from topgraft._report.photos import LARGE_PX, Book, budget
from topgraft._report.svg import whisker
from topgraft.errors import DataError, TopgraftError, UsageError
from topgraft.files import is_file
from topgraft.run import MARK, Run
from topgraft.run.evaluation import Evaluation
from topgraft.run.forms import FORMS
from topgraft.run.predictions import NAME
from topgraft.settings import Settings

warn = logging.getLogger(__name__).warning

PHOTO = "data:image/webp"
"""What a page with photos holds."""
RUNS_OWN = ("metrics.json", NAME, *FORMS)
"""Files of a run that no other page may replace."""
BESIDE = ("to_view_0", "to_the_rest")
FIRST = ("/accuracy", "/balanced_accuracy", "/macro_f1", "/top_k/3", "/log_loss")
"""Measures that are shown; the others are folded away."""
ALIKE = 0.25
"""Scores that differ by less than this share of an interval say the same."""
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
    run: Run | Evaluation | str | Path | Sequence[Run | str | Path],
    *,
    photos: str | Path | None = None,
    out: str | Path | None = None,
    settings: Settings | None = None,
) -> Path:
    """Write a run's report, `report.html` in its folder; that of an evaluation; or runs side by side.

    Args:
        run: a finished run or its folder; several are compared in one page, `compare.html`. An evaluation
            gets the same page about its photos, its numbers beside it under the page's name (.json, .csv).
        photos: where the run's photos are: a folder, URL or table. None goes by the run's word, which is not
            enough for another machine, or for photos outside the folder that it names.
        out: where the page goes; None is the folder of the run, of the first of several; of an evaluation
            `evaluation.html` here.
        settings: cores.

    Returns:
        The page's path.

    Raises:
        DataError: where a folder is no run, or one of its files is damaged.
        UsageError: as `place_of`, and for no run at all.
    """
    if isinstance(run, Evaluation):
        place = place_of(out)
        return _write(page(Judged.write(run, place, settings=settings or Settings.load())), place)
    if isinstance(run, Run | str | Path):
        opened = _open(run)
        facts = Facts(opened, photos, settings or Settings.load())
        place = opened.path / "report.html" if out is None else Path(out)
        return _write(_no_poorer(page(facts), place), place)
    every = [Facts(_open(given), photos, settings or Settings.load()) for given in run]
    if not every:
        raise UsageError("expected at least one run to report on, got none.")
    place = every[0].run.path / "compare.html" if out is None else Path(out)
    return _write(comparison(every, place), place)


def place_of(out: str | Path | None) -> Path:
    """Return where the page of an evaluation goes, with its numbers (.json, .csv) under its name beside it.

    Raises:
        UsageError: where page and numbers would get into each other's way, or replace those of a run.
    """
    place = Path("evaluation.html" if out is None else out)
    if place.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{place}: the page of an evaluation must end in .html. Try {place.stem}.html.")
    for own in RUNS_OWN:
        if place.stem == Path(own).stem and is_file(place.with_name(own)) and is_file(place.with_name(MARK)):
            raise UsageError(
                f"{place}: its numbers would replace {own} of the run there. Give the page another name."
            )
    return place


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


def comparison(every: list[Facts], place: Path) -> str:
    """Make the page that puts runs side by side, to lie at `place`."""
    shown = {split: compare.columns(every, split) for split in compare.splits_of(every)}
    sides = {split: (columns, compare.gaps(columns, split)) for split, columns in shown.items()}
    first = next(iter(shown.values()))
    disputed, more = disagree.disputes(first)
    book = Book(every[0].origin, budget(0), every[0].settings.threads)
    book.take([dispute.id for dispute in disputed], LARGE_PX)
    context = {
        "version": metadata.version("topgraft"),
        "policy": _policy(),
        "verdicts": compare.verdicts(sides, TITLES),
        "links": [(column.name, column.link(place)) for column in first],
        "disputes": disputed,
        "disputes_left_out": more,
        "book": book,
        "sides": [
            {
                "split": split,
                "title": TITLES[split],
                "columns": columns,
                "measures": [
                    measure
                    for measure in MEASURES
                    if any(column.numbers.has(f"/{column.key}{measure[0]}") for column in columns)
                ],
                "gaps": gaps,
            }
            for split, (columns, gaps) in sides.items()
        ],
        "settings": compare.settings(first),
    }
    return _environment().get_template("compare.html").render(context)


def page(facts: Facts) -> str:
    """Make the page of one run."""
    metrics, health = Numbers(facts.metrics), facts.health
    key = verdict.headline(facts)
    tables = mistakes.matrices(facts, metrics)
    found = [*mistakes.galleries(facts, metrics), *facts.more_galleries()]
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
        "titles": facts.titles,
        "measures": _measures(facts, metrics),
        "notes": facts.notes,
        "eyebrow": facts.eyebrow,
        "named": facts.named,
        "pointer": pointer,
        "sentences": verdict.verdict(facts, metrics),
        "scale": scale.scale(facts, metrics, key),
        "wide": scale.wide(metrics, key),
        "chance": scale.may_be_chance(facts, metrics, key),
        "matrices": tables,
        "several": facts.multilabel,
        "most_classes": mistakes.MOST_CLASSES,
        "narrow_classes": mistakes.NARROW_CLASSES,
        "galleries": found,
        "shots": shots,
        "numbers": {name: f"photo-{i}" for i, name in enumerate(shots)},
        "lines": classes.classes(facts, metrics),
        "lines_open": classes.OPEN,
        "lines_of": classes.splits(facts),
        "believed": believed.believed(metrics, facts.each),
        "answered": answered.answered(metrics),
        "card": Numbers(facts.card, "card"),
        "ranking": plots.ranking(facts, metrics, facts.splits[0], key),
        "ranks": _ranks(metrics),
        "ranks_columns": _ranks_columns(metrics),
        "depths": depths.depths(metrics),
        "learning": plots.learning(facts),
        "more": plots.more_photos(metrics),
        "looked": looks,
        "worth": _worth(metrics),
        "brought": policies.brought(metrics),
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
        "command": facts.command,
        "config": facts.config_text,
        "provenance": _provenance(facts),
        "book": book,
    }
    for line in _missing_photos(facts, book):
        warn(line)
    context["contents"] = _contents(context)
    return _environment().get_template("report.html").render(context)


@cache
def _environment() -> jinja2.Environment:
    """Return what renders pages: one, for compiling their templates takes longer than filling them in."""
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
    trust = context["believed"] or context["answered"] or context["m"].has("/trust/unknown/threshold")
    every = [
        ("result", "Result", True),
        ("mistakes", "Mistakes", context["matrices"]),
        ("photos", "Photos worth a look", context["galleries"]),
        ("classes", "Class by class", context["lines"]),
        ("trust", "Can it be trusted?", trust),
        ("looked", "Where it looked", context["looked"]),
        ("numbers", "Numbers", True),
        ("heads", "Heads", context["metrics"].get("leaderboard")),
        ("more", "Would more photos help?", context["more"]),
        ("learning", "Learning curves", context["learning"]),
        ("policies", "Policies", context["metrics"].get("policies") or context["brought"]),
        ("health", "Data health", context["health"]),
        ("cost", "What it cost", context["cost"]),
        ("repeat", "How to repeat it", True),
    ]
    return [(anchor, name) for anchor, name, there in every if there]


def _measures(facts: Facts, metrics: Numbers) -> dict[str, list[tuple[str, str, Style, str]]]:
    """Part the measures: `first` are those that say something of their own, `rest` the others."""
    parts: dict[str, list[tuple[str, str, Style, str]]] = {"first": [], "rest": []}
    keys = [mistakes.KEYS[split] for split in facts.splits]
    for path, name, style, says in MEASURES:
        told = "yes and no for each class" if facts.multilabel and path == "/accuracy" else says
        if any(metrics.has(f"/{key}{path}") for key in keys):
            own = path in FIRST and not all(_says_the_same(metrics, key, path) for key in keys)
            parts["first" if own else "rest"].append((path, name, style, told))
    return parts


def _says_the_same(metrics: Numbers, key: str, path: str) -> bool:
    """Tell whether a score is no other than the accuracy, as that of classes of one size is."""
    if path not in ("/balanced_accuracy", "/macro_f1") or not metrics.has(f"/{key}{path}"):
        return False
    accuracy = metrics.get(f"/{key}/accuracy")
    apart = abs(metrics.get(f"/{key}{path}/value") - accuracy["value"])
    return bool(apart < ALIKE * (accuracy["high"] - accuracy["low"]))


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


def _ranks_columns(metrics: Numbers) -> list[tuple[str, str]]:
    """List the scores that the leaderboard shows beside accuracy: pointer and name, where they say more."""
    rows = range(len(metrics.facts.get("leaderboard") or []))
    return [
        (path, name)
        for path, name in (("/balanced_accuracy", "Balanced"), ("/macro_f1", "Macro F1"))
        if not all(_says_the_same(metrics, f"leaderboard/{place}", path) for place in rows)
    ]


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


def _looks(facts: Facts, book: Book) -> tuple[list[looked.Looked], list[str]]:
    """Draw the activation maps; an old or damaged predictor costs them and a note, not the report."""
    try:
        found = looked.looked(facts, book)
    except TopgraftError as error:
        return [], [f"The predictor cannot be asked where it looked: {error}"]
    first = [f"Where it looked is shown of {facts.run.path.name} alone, the first of the runs."]
    return found, first if found and facts.several else []


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
    if not book.full:
        return []
    return [
        f"A sample of the photos is shown, so that this page stays small; {len(book.full)} found no room."
    ]


def _cost(facts: Facts) -> list[tuple[str, str, float]]:
    """List the stages: name, pointer to the seconds, share of the longest."""
    stages = {name: float(spent) for name, spent in facts.timings.items() if isinstance(spent, int | float)}
    longest = max(stages.values(), default=0.0) or 1.0
    return [(name, pointer(name), spent / longest) for name, spent in stages.items()]


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
