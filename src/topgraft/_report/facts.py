"""What a report is made of: the files of one run, read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from topgraft.run import Run
from topgraft.run.origin import Origin, origin
from topgraft.types import Labels, Probabilities


@dataclass(frozen=True)
class Row:
    """One line of predictions.csv.

    Attributes:
        index: which line.
        id: the photo.
        split: `cv` or `test`.
        labels: class indices; several where a photo carries several labels.
        predicted: class index.
        probability: of the predicted class.
        distance: how unlike the training photos it is; None where the run does not say.
    """

    index: int
    id: str
    split: str
    labels: tuple[int, ...]
    predicted: int
    probability: float
    distance: float | None

    @property
    def label(self) -> int:
        """The label, or the first of several."""
        return self.labels[0]

    @property
    def right(self) -> bool:
        """Whether the prediction is the label, or one of several."""
        return self.predicted in self.labels


@dataclass(frozen=True)
class Facts:
    """Everything the report reads, all of it from the run's folder but the photos.

    Attributes:
        run: the run.
        photos: the folder, URL or table where the user says that the photos are; None goes by the run's word.
    """

    run: Run
    photos: str | Path | None = None

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json."""
        return self.run.metrics

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
    def curves(self) -> list[dict[str, Any]]:
        """The series of curves.json; none where nothing was trained step by step."""
        return list(self.run.read("curves.json").get("series", []))

    @cached_property
    def config_text(self) -> str:
        """config.toml as it is written."""
        path = self.run.path / "config.toml"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @cached_property
    def classes(self) -> list[str]:
        """Class names."""
        return list(self.metrics["classes"])

    @cached_property
    def splits(self) -> list[str]:
        """What was measured, the most telling first: `test` where photos were held out, then `cv`."""
        known = [("test", "test"), ("cv", "cross_validation")]
        return [split for split, key in known if self.metrics.get(key)]

    @cached_property
    def multilabel(self) -> bool:
        """Whether photos may carry several labels: then there is no confusion matrix."""
        return any(len(row.labels) > 1 for row in self.rows)

    @cached_property
    def predictions(self) -> list[dict[str, str]]:
        """predictions.csv."""
        return self.run.read_table("predictions.csv")

    @cached_property
    def rows(self) -> list[Row]:
        """predictions.csv, typed."""
        index = {name: i for i, name in enumerate(self.classes)}
        return [
            Row(
                i,
                line["id"],
                line["split"],
                (index[line["label"]],)
                if line["label"] in index
                else tuple(index[name] for name in line["label"].split(";")),
                index[line["predicted"]],
                float(line["probability"]),
                float(line["distance"]) if line.get("distance") else None,
            )
            for i, line in enumerate(self.predictions)
        ]

    def of(self, split: str) -> list[Row]:
        """The rows of one split."""
        return [row for row in self.rows if row.split == split]

    def probabilities(self, split: str) -> tuple[Labels, Probabilities]:
        """Labels (N,) and probabilities (N, C) of one split."""
        rows = self.of(split)
        columns = [f"p_{name}" for name in self.classes]
        table = [[float(self.predictions[row.index][name]) for name in columns] for row in rows]
        return np.array([row.label for row in rows], np.int64), np.array(table).reshape(
            len(rows), len(columns)
        )

    @cached_property
    def origin(self) -> Origin:
        """Where the photos are read from."""
        return origin(self.run, self.photos)


def short(name: str) -> str:
    """The last part of an id: what fits under a thumbnail."""
    return PurePosixPath(name).name
