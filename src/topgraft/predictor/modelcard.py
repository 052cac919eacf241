"""The model card: what a predictor's folder says about itself to people (Mitchell et al. 2019, Model Cards).

A predictor travels without its run; this page goes with it: from which photos it was made, how good it is and
on what that was measured, where it should not be trusted, and under which terms its backbone came.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from topgraft.run import Run
from topgraft.selection.leaning import lean_in_words

FEW = 100
"""Fewer test photos than this are called few."""
WEAK = 0.8
"""A class recognised less often than this is named among the limits."""


def write_model_card(run: Run | str | Path) -> Path:
    """Write `model/README.md` of a run.

    Args:
        run: a finished run, or its folder.

    Returns:
        The card's path.

    Raises:
        DataError: where the folder is no run.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    return run.write("model/README.md", model_card(run))


def model_card(run: Run) -> str:
    """Return in Markdown what the model is, from the run's own files."""
    metrics, card = run.metrics.as_dict(), run.read("model/card.json")
    key = "test" if metrics.get("test") else "cross_validation"
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("topgraft", "templates"),
        autoescape=False,  # noqa: S701  Markdown, and the names are escaped by the filter below
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"name": _name, "share": _share, "fixed": _fixed}
    return environment.get_template("model.md").render(
        m=metrics,
        scores=metrics[key],
        held_out=key == "test",
        backbone=card.get("backbone") or {},
        versions=run.read("versions.json"),
        leans=lean_in_words(metrics["head"].get("depths") or []),
        limits=[
            *_limits(metrics, metrics[key], held_out=key == "test"),
            *filter(None, [run.metrics.why_believed]),
        ],
    )


def _name(text: str) -> str:
    """Escape a class name so that Markdown and HTML leave it as it is."""
    plain = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]<>#|~!&" else letter for letter in plain)


def _share(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "–"
    value, low, high = (100 * estimate[part] for part in ("value", "low", "high"))
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def _fixed(estimate: dict[str, float]) -> str:
    value, low, high = (estimate[part] for part in ("value", "low", "high"))
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def _limits(metrics: dict[str, Any], scores: dict[str, Any], *, held_out: bool) -> list[str]:
    """Return the sentences that say where the numbers end."""
    limits = [
        "It knows these classes only; whatever is on a photo, it names one of them, or calls it unknown.",
        "The numbers hold for photos of the same kind: other cameras, light or backgrounds can do worse.",
    ]
    if not held_out:
        limits.append("No photos were held out: the numbers are from cross-validation.")
    if scores["n"] < FEW:
        limits.append(
            f"It was measured on {scores['n']} photos only; the intervals are wide for that reason."
        )
    weak = [
        f"{_name(name)} ({100 * of['recall']['value']:.0f} %)"
        for name, of in scores.get("per_class", {}).items()
        if of["recall"]["value"] < WEAK
    ]
    if weak:
        limits.append(f"Classes it often misses, with the share it finds: {', '.join(weak)}.")
    tiny = [_name(name) for name, of in metrics["counts"]["per_class"].items() if of["train"] < 10]
    if tiny:
        limits.append(f"Fewer than 10 training photos: {', '.join(tiny)}.")
    return limits
