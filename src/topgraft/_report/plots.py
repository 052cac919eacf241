"""The report's plots, drawn from the run's numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from topgraft._report import curves
from topgraft._report.facts import Facts
from topgraft._report.numbers import Numbers
from topgraft._report.svg import SERIES, Plot, legend, percent
from topgraft.metrics import ranking as rank
from topgraft.types import Probabilities

UNIT = (0.0, 1.0)


@dataclass(frozen=True)
class Figure:
    """A plot with its title, and what to see in it."""

    title: str
    plot: Plot
    note: Markup | str = ""
    key: Markup | str = ""


def ranking(facts: Facts, metrics: Numbers, split: str, key: str) -> list[Figure]:
    """Plot ROC and precision over recall, of the few classes that tell the most."""
    carried, (_, probabilities) = facts.carried(split), facts.probabilities(split)
    if not len(carried):
        return []
    shown = _telling(carried, probabilities)
    names = [facts.classes[i] for i in shown]
    few = len(shown) < probabilities.shape[1]
    about = f" of the {len(shown)} classes with the smallest area" if few and len(shown) > 1 else ""
    if len(shown) == 1:
        about = f" of {names[0]}"
    roc = Plot(f"ROC curve{about}", UNIT, UNIT, "false alarms", "found", x_ticks=percent, y_ticks=percent)
    roc.line([(0, 0), (1, 1)], "ideal")
    recall = Plot(
        f"Precision and recall{about}", UNIT, UNIT, "found (recall)", "right when named (precision)",
        x_ticks=percent, y_ticks=percent,
    )  # fmt: skip
    for place, i in enumerate(shown):
        positive, score = carried[:, i], probabilities[:, i]
        roc.line(list(zip(*(axis.tolist() for axis in curves.roc(positive, score)), strict=True)), place)
        recall.line(_stairs(*curves.precision_recall(positive, score)), place)
    names_key = legend(names) if len(names) > 1 else ""
    area, average = (
        Markup("{}, mean of all classes: {}.").format(name, metrics.estimate(path))
        if metrics.has(path)
        else ""
        for name, path in (
            ("Area under the curve", f"/{key}/roc_auc"),
            ("Average precision", f"/{key}/average_precision"),
        )
    )
    return [
        Figure(f"ROC curve{about}", roc, area, names_key),
        Figure(f"Precision and recall{about}", recall, average, names_key),
    ]


def _telling(carried: NDArray[np.bool_], probabilities: Probabilities) -> list[int]:
    """One class of two that exclude each other; all of a few; else those with the smallest area."""
    C = probabilities.shape[1]
    once = np.ones((1, len(carried)))
    areas = [float(rank(carried[:, i], probabilities[:, i], once)[0][0]) for i in range(C)]
    known = [i for i in range(C) if not np.isnan(areas[i])]
    if C == 2 and (carried.sum(axis=1) == 1).all():
        return known[-1:]
    return sorted(sorted(known, key=lambda i: areas[i])[: SERIES - 1])


def _stairs(recall: curves.Curve, precision: curves.Curve) -> list[tuple[float, float]]:
    points, before = [], 0.0
    for x, y in zip(recall.tolist(), precision.tolist(), strict=True):
        points += [(before, y), (x, y)]
        before = x
    return points


def more_photos(metrics: Numbers) -> Figure | None:
    """Plot accuracy over the number of photos learned from, and where it would go."""
    if not metrics.has("/curve"):
        return None
    found = metrics.get("/curve")
    sizes, fitted = found["sizes"], found["fitted"]
    lows = [point["accuracy"]["low"] for point in fitted] + [size["accuracy"]["value"] for size in sizes]
    title = "Accuracy over photos"
    plot = Plot(
        title,
        (0.0, float(fitted[-1]["photos"])),
        (max(0.0, min(lows) - 0.02), 1.0),
        "photos learned from",
        "accuracy",
        y_ticks=percent,
        whole_x=True,
    )
    for part, style in (("value", 0), ("low", "ideal"), ("high", "ideal")):
        plot.line([(point["photos"], point["accuracy"][part]) for point in fitted], style)
    for size in sizes:
        value = size["accuracy"]["value"]
        plot.dot(size["photos"], value, 3.5, f"{size['photos']:.0f} photos: {value:.1%}")
    note = Markup(
        "Dots: a ridge regression on parts of the photos. Line: what follows for the head in use, up to four"
        " times the photos there are; dashed: its 95 % interval. Twice the photos would bring {} points."
    ).format(metrics.inline("/curve/gain/twice", "gained"))
    return Figure(title, plot, note)


TITLES = {"loss": "Loss", "accuracy": "Accuracy", "rate": "Learning rate"}


def learning(facts: Facts) -> list[Figure]:
    """Plot what was recorded while network heads or the last blocks were trained."""
    figures = []
    for kind in dict.fromkeys(curve.get("kind", "loss") for curve in facts.curves):
        series = [curve for curve in facts.curves if curve.get("kind", "loss") == kind and len(curve["x"])][
            :SERIES
        ]
        if not series:
            continue
        xs = [x for curve in series for x in curve["x"]]
        ys = [y for curve in series for y in curve["y"]]
        floor = 0.0 if kind != "accuracy" else max(0.0, min(ys) - 0.05)
        ceiling = 1.0 if kind == "accuracy" else (max(ys) * 1.05 or 1.0)
        title = TITLES.get(kind, kind.capitalize())
        plot = Plot(
            title,
            (min(xs), max(xs)),
            (floor, ceiling),
            "epoch",
            title.lower(),
            y_ticks=percent if kind == "accuracy" else _short,
            whole_x=max(xs) - min(xs) >= 1,
        )
        for place, curve in enumerate(series):
            plot.line(list(zip(curve["x"], curve["y"], strict=True)), place)
        figures.append(Figure(title, plot, "", legend([curve["name"] for curve in series])))
    return figures


def _short(value: float) -> str:
    if value and abs(value) < 0.01:
        return f"{value:.0e}".replace("e-0", "e−")
    return f"{value:.3g}"
