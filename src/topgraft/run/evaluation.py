"""How good runs are on some photos: what `evaluate` finds and a page shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

from topgraft import notebook
from topgraft.metrics import Estimate
from topgraft.photos.sample import Refused
from topgraft.run.origin import Origin
from topgraft.run.results import Answers
from topgraft.run.run import Run

HEADLINES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "log_loss": "log loss",
    "roc_auc": "ROC AUC",
}


@dataclass(frozen=True)
class Result:
    """The scores of one run, or of an ensemble of them.

    Attributes:
        name: the run's folder, or `mean` or `weighted`.
        scores: as in metrics.json.
        weight: a run's share in the weighted ensemble.
        against: an ensemble's accuracy minus each member's, by the member's name.
    """

    name: str
    scores: dict[str, Any]
    weight: float | None = None
    against: dict[str, Estimate] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        facts: dict[str, Any] = {"name": self.name}
        if self.weight is not None:
            facts["weight"] = self.weight
        if self.against is not None:
            facts["against"] = {name: estimate.as_dict() for name, estimate in self.against.items()}
        return facts | {"scores": self.scores}


@dataclass(frozen=True)
class Shown:
    """What a page of an evaluation is made of, beside its numbers: the run, or the mean of several.

    Attributes:
        runs: those measured; the first one's predictor says where it looked.
        answers: those that are scored under `test`, those for photos of other classes under `stranger`.
        classes: the names that the photos' labels are indices into.
        origin: where the photos are read.
        place: the photos as the user named them.
        notes: those that stand beside the verdict.
    """

    runs: tuple[Run, ...]
    answers: dict[str, Answers]
    classes: tuple[str, ...]
    origin: Origin
    place: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """How good runs are on some photos. Print it, take `as_dict()`, or give it to `topgraft.report`.

    Attributes:
        classes: names.
        members: one result a run.
        ensembles: the plain and the weighted mean; none for one run.
        strangers: photos of classes the runs do not know, by class; in no score. One with several such labels
            counts for each.
        strange: how many photos those are.
        flagged: how many of them every run calls unknown.
        refused: photos that could not be read; in no score.
        notes: what should be known, in sentences.
        trust: calibration, coverage and labels that look wrong, on these photos, as in metrics.json; of
            several runs those of their mean, which has no temperature and no unknown answer of its own.
        harder: how these photos compare with those it was trained on; None where that cannot be told.
        tta: what test-time augmentation changed, by measure; None without.
        shown: what a page is made of.
    """

    classes: tuple[str, ...]
    members: tuple[Result, ...]
    ensembles: tuple[Result, ...]
    strangers: dict[str, int]
    strange: int
    flagged: int
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]
    trust: dict[str, Any]
    harder: dict[str, Any] | None
    tta: dict[str, Any] | None
    shown: Shown = field(repr=False)

    @property
    def results(self) -> tuple[Result, ...]:
        """Members and ensembles."""
        return self.members + self.ensembles

    @property
    def headline(self) -> Result:
        """The result that a page is about: the run, or the plain mean of several."""
        return (*self.ensembles, *self.members)[0]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: numbers only, so that equal evaluations are equal bytes."""
        return {
            "schema": 1,
            "classes": list(self.classes),
            "members": [result.as_dict() for result in self.members],
            "ensembles": [result.as_dict() for result in self.ensembles],
            "strangers": {
                "classes": self.strangers,
                "photos": self.strange,
                "flagged": self.flagged,
            },
            "refused": [{"id": file.id, "reason": file.reason} for file in self.refused],
            "trust": self.trust,
            "harder": self.harder,
            "tta": self.tta,
            "notes": list(self.notes),
        }

    def as_metrics(self) -> dict[str, Any]:
        """Return the numbers of the headline in the form of metrics.json, for a page."""
        first, result = self.shown.runs[0].metrics, self.headline
        names = dict.fromkeys(run.metrics.backbone.name for run in self.shown.runs)
        head: dict[str, Any] = {"name": f"{result.name} of {len(self.members)} runs", "depths": []}
        usual = None
        if not self.ensembles:
            head = first.head.as_dict()
            usual = first.cross_validation.as_dict()
            usual = {name: usual[name] for name in usual if name not in ("confusion", "per_class")}
        return {
            "schema": 1,
            "classes": list(self.classes),
            "counts": {
                "photos": result.scores["n"],
                "strangers": self.strange,
                "refused": len(self.refused),
            },
            "backbone": first.backbone.as_dict() if len(names) == 1 else {"name": ", ".join(names)},
            "policies": [],
            "head": {"setting": "", **head},
            "test": result.scores,
            "cross_validation": usual,
            "leaderboard": [],
            "trust": self.trust,
            "harder": self.harder,
            "tta": self.tta,
            "worth": None,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        width = max(len(result.name) for result in self.results)
        lines = [f"{result.name:{width}}  {_headline(result.scores)}" for result in self.results]
        return "\n".join([*lines, *self.notes])

    def __repr__(self) -> str:
        first = self.results[0].scores
        return f"Evaluation(accuracy {Estimate(**first['accuracy'])}, {first['n']:,} photos)"

    def _repr_html_(self) -> str:
        """Show the headline numbers and the notes, in a notebook."""
        shown = [(row["name"], row["n"], *(_said(row, key) for key in HEADLINES)) for row in self._rows()]
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return notebook.table("Evaluation", ("", "photos", *HEADLINES.values()), shown) + notes

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: a run or ensemble a row, each score with its `_low` and `_high`.

        Raises:
            MissingPandasError: where pandas is not installed.
        """
        return notebook.frame(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        """Return the scores flat, one row a result."""
        return [
            {"name": result.name, "n": result.scores["n"]}
            | {
                key if part == "value" else f"{key}_{part}": number
                for key in HEADLINES
                for part, number in (result.scores.get(key) or {}).items()
            }
            for result in self.results
        ]


def _said(row: dict[str, Any], key: str) -> str:
    return str(Estimate(row[key], row[f"{key}_low"], row[f"{key}_high"])) if key in row else "–"


def _headline(scores: dict[str, Any]) -> str:
    parts = [
        f"{said} {Estimate(**scores[key])}" if scores[key] else f"{said} –"
        for key, said in HEADLINES.items()
        if key in scores
    ]
    return f"{'  '.join(parts)}  ({scores['n']} photos)"
