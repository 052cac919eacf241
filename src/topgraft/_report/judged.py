"""The page of an evaluation: a run's page, about other photos than its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from topgraft import files
from topgraft._report.facts import Facts
from topgraft._report.gallery import Gallery, Shot
from topgraft._report.mistakes import GALLERY, predicted_at
from topgraft.metrics import OUT_OF_FOLD
from topgraft.run import Run
from topgraft.run.evaluation import Evaluation
from topgraft.run.origin import Origin
from topgraft.run.predictions import STRANGER, Predicted, read_predictions, write_predictions
from topgraft.run.results import rounded
from topgraft.text import pasted


@dataclass(frozen=True)
class Judged(Facts):
    """What the page of an evaluation reads: the numbers and the table beside it, and the photos.

    Attributes:
        evaluation: what was measured.
        page: where the page goes; its numbers lie beside it, under its name.
    """

    evaluation: Evaluation | None = None
    page: Path | None = None

    @classmethod
    def write(cls, evaluation: Evaluation, page: Path, **settings: Any) -> Judged:
        """Write the numbers (.json) and the answers (.csv) beside a page, to be read again."""
        facts = cls(evaluation.shown.runs[0], evaluation=evaluation, page=page, **settings)
        folder = Run(page.parent)
        folder.write_json(facts.named["metrics"], rounded(evaluation.as_metrics()))
        write_predictions(
            folder,
            evaluation.classes,
            evaluation.shown.answers,
            name=facts.named["predictions"],
            labelled=evaluation.shown.classes,
        )
        return facts

    @property
    def _found(self) -> tuple[Evaluation, Path]:
        if self.evaluation is None or self.page is None:
            raise TypeError("made by Judged.write")
        return self.evaluation, self.page

    @property
    def named(self) -> dict[str, str]:
        """The files that the numbers are in."""
        _, page = self._found
        return {"metrics": f"{page.stem}.json", "predictions": f"{page.stem}.csv"}

    @property
    def own(self) -> bool:
        """Whether it is about the run's own photos."""
        return False

    @property
    def eyebrow(self) -> str:
        """What stands above the title."""
        names = ", ".join(run.path.name for run in self._found[0].shown.runs)
        return f"Topgraft evaluation of {names}"

    @property
    def titles(self) -> dict[str, str]:
        """What was measured, in words."""
        return {"test": "These photos", "cv": "Cross-validation of the run"}

    @property
    def said(self) -> list[Markup]:
        """Sentences that stand beside the verdict: whether these photos are harder, and what TTA did."""
        evaluation, _ = self._found
        places = [evaluation.notes.index(note) for note in evaluation.shown.notes]
        return [
            Markup('<span data-note="/notes/{}">{}</span>').format(place, evaluation.notes[place])
            for place in places
        ]

    @property
    def several(self) -> bool:
        """Whether the answers are the mean of several runs'."""
        return len(self._found[0].shown.runs) > 1

    @cached_property
    def card(self) -> dict[str, Any]:
        """The predictor's card.json; a mean of several has none."""
        return {} if self.several else super().card

    @property
    def notes(self) -> list[tuple[int, str]]:
        """All but `said`, each with its place among all of them."""
        return [(i, note) for i, note in super().notes if note not in self._found[0].shown.notes]

    @property
    def command(self) -> str:
        """How to repeat it, in a command that works wherever on this machine it is pasted."""
        evaluation, page = self._found
        shown = evaluation.shown
        place = files.local(shown.place)
        runs = [os.path.abspath(run.path) for run in shown.runs]  # noqa: PTH100  no link is followed
        photos = os.path.abspath(place) if Path(place).exists() else place  # noqa: PTH100
        tta = ["--tta", str(evaluation.tta["views"])] if evaluation.tta else []
        return pasted("topgraft", "evaluate", *runs, photos, "-o", os.path.abspath(page), *tta)  # noqa: PTH100

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The numbers beside the page."""
        return Run(self._found[1].parent).read(self.named["metrics"])

    @cached_property
    def splits(self) -> list[str]:
        """These photos, and beside them what the run said of its own."""
        return ["test", *(["cv"] if self.metrics["cross_validation"] else [])]

    @cached_property
    def health(self) -> dict[str, Any]:
        """Nothing: the photos were not checked for training."""
        return {}

    @cached_property
    def timings(self) -> dict[str, Any]:
        """Nothing: nothing was trained."""
        return {}

    @cached_property
    def curves(self) -> list[dict[str, Any]]:
        """Nothing, likewise."""
        return []

    @property
    def each(self) -> float:
        """How many photos held out an answer is worth: none of these was learned from."""
        return super().each / OUT_OF_FOLD

    @cached_property
    def config_text(self) -> str:
        """Nothing: the command is the whole of it."""
        return ""

    @cached_property
    def _table(self) -> list[Predicted]:
        return read_predictions(Run(self._found[1].parent), self.classes, self.named["predictions"])

    @cached_property
    def rows(self) -> list[Predicted]:
        """The photos of classes that the run knows."""
        return [row for row in self._table if row.split != STRANGER]

    @cached_property
    def strangers(self) -> list[Predicted]:
        """The photos of classes that it does not know."""
        return [row for row in self._table if row.split == STRANGER]

    @cached_property
    def origin(self) -> Origin:
        """Where the photos are read from: the user named it."""
        return self._found[0].shown.origin

    def more_galleries(self) -> list[Gallery]:
        """Show photos of classes it does not know and took for one it knows, the surest first."""
        unknown = self.metrics["trust"]["unknown"]
        missed = [
            row
            for row in sorted(self.strangers, key=lambda row: (-row.probability, row.id))
            if unknown is None or row.distance is None or row.distance <= unknown["threshold"]
        ]
        shots = [
            Shot(
                row.id,
                Markup('<span class="was">{}</span> <span class="wrong">→ {}</span> {}').format(
                    row.named, self.classes[row.predicted], predicted_at(row)
                ),
                f"{row.id}: {row.named}, a class it does not know, taken for {self.classes[row.predicted]}",
            )
            for row in missed[:GALLERY]
        ]
        gallery = Gallery(
            "strangers",
            f"Of classes it does not know{', and not called unknown' if unknown else ''}",
            "Nothing it learned is on these photos, yet it named a class. They are in no number above.",
            shots,
            len(missed) - len(shots),
        )
        return [gallery] if shots else []
