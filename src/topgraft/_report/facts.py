"""What a report is made of: the files of one run, read once."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from topgraft import files
from topgraft.errors import DataError
from topgraft.metrics import OUT_OF_FOLD
from topgraft.run import Run
from topgraft.run.origin import Origin, noted, origin
from topgraft.run.predictions import Predicted, read_predictions
from topgraft.settings import Settings
from topgraft.text import pasted
from topgraft.types import Labels, Probabilities

if TYPE_CHECKING:
    from topgraft._report.gallery import Gallery

TITLES = {"test": "Held-out test", "cv": "Cross-validation"}


@dataclass(frozen=True)
class Facts:
    """Everything the report reads, all of it from the run's folder but the photos.

    Attributes:
        run: the run.
        photos: the folder, URL or table where the user says that the photos are; None goes by the run's word.
        settings: cores.
    """

    run: Run
    photos: str | Path | None = None
    settings: Settings = field(default_factory=Settings.load)

    @property
    def named(self) -> dict[str, str]:
        """The files that the numbers are in."""
        return {"metrics": "metrics.json", "predictions": "predictions.csv"}

    @property
    def own(self) -> bool:
        """Whether it is about the run's own photos."""
        return True

    @property
    def eyebrow(self) -> str:
        """What stands above the title."""
        return "Topgraft report"

    @property
    def titles(self) -> dict[str, str]:
        """What was measured, in words."""
        return TITLES

    @property
    def said(self) -> list[Markup]:
        """Sentences that stand beside the verdict."""
        return []

    @property
    def several(self) -> bool:
        """Whether the answers are the mean of several runs'."""
        return False

    @property
    def notes(self) -> list[tuple[int, str]]:
        """The notes that do not stand beside the verdict, each with its place among all of them."""
        return list(enumerate(self.metrics["notes"]))

    @property
    def command(self) -> str:
        """How to repeat it, in a command that works wherever on this machine it is pasted."""
        folder = os.path.abspath(self.run.path)  # noqa: PTH100  no link is followed: the name stays the user's
        if not self.config_text:
            return pasted("topgraft", "report", folder)
        photos = files.local(noted(self.run)) or "PHOTOS"
        if Path(photos).exists():
            photos = os.path.abspath(photos)  # noqa: PTH100
        config = str(Path(folder) / "config.toml")
        return pasted("topgraft", "train", photos, "--config", config, "-o", f"{folder}-again")

    def more_galleries(self) -> list[Gallery]:
        """Galleries beside those of every page."""
        return []

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json."""
        return self.run.metrics.as_dict()

    @cached_property
    def health(self) -> dict[str, Any]:
        """health.json; empty where the run has none."""
        return self.run.read("health.json")

    @cached_property
    def timings(self) -> dict[str, Any]:
        """timings.json; empty where the run has none."""
        return self.run.read("timings.json")

    @cached_property
    def versions(self) -> dict[str, Any]:
        """versions.json; empty where the run has none."""
        return self.run.read("versions.json")

    @cached_property
    def card(self) -> dict[str, Any]:
        """The predictor's card.json; empty where the run has none, or a damaged one."""
        try:
            return self.run.read(f"{self.run.model.name}/card.json") if self.run.model.is_dir() else {}
        except DataError:
            return {}

    @cached_property
    def curves(self) -> list[dict[str, Any]]:
        """The series of curves.json; none where nothing was trained step by step."""
        return list(self.run.read("curves.json").get("series", []))

    @cached_property
    def config_text(self) -> str:
        """config.toml as it is written."""
        path = self.run.path / "config.toml"
        return files.text(path) if path.is_file() else ""

    @cached_property
    def classes(self) -> list[str]:
        """Class names."""
        return list(self.metrics["classes"])

    @cached_property
    def splits(self) -> list[str]:
        """What was measured, the one to believe first: `test` where photos were held out, and `cv`."""
        believed = self.run.metrics.believed.key
        known = sorted([("test", "test"), ("cv", "cross_validation")], key=lambda one: one[1] != believed)
        return [split for split, key in known if self.metrics.get(key)]

    @cached_property
    def multilabel(self) -> bool:
        """Whether photos may carry several labels, even if none does here; then nothing is confused."""
        return self.run.metrics.multilabel

    @property
    def each(self) -> float:
        """How many photos held out an answer is worth whose confidence is judged."""
        return OUT_OF_FOLD / (len(self.classes) if self.multilabel else 1)

    @cached_property
    def rows(self) -> list[Predicted]:
        """The lines of predictions.csv that were scored."""
        return [row for row in read_predictions(self.run, self.classes) if row.split in TITLES]

    def of(self, split: str) -> list[Predicted]:
        """The rows of one split."""
        return [row for row in self.rows if row.split == split]

    def probabilities(self, split: str) -> tuple[Labels, Probabilities]:
        """Labels (N,) and probabilities (N, C) of one split."""
        rows = self.of(split)
        shape = (len(rows), len(self.classes))
        return np.array([row.label for row in rows], np.int64), np.array(
            [row.probabilities for row in rows]
        ).reshape(shape)

    def carried(self, split: str) -> NDArray[np.bool_]:
        """Return which classes each photo of one split is of, (N, C): one, or several."""
        found = np.zeros((len(self.of(split)), len(self.classes)), np.bool_)
        for i, row in enumerate(self.of(split)):
            found[i, list(row.labels)] = True
        return found

    @cached_property
    def origin(self) -> Origin:
        """Where the photos are read from."""
        return origin(self.run, self.photos)


def short(name: str) -> str:
    """The last part of an id: what fits under a thumbnail."""
    return PurePosixPath(name).name
