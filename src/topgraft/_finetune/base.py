"""The run that fine-tuning begins with: its photos, sides, folds, answers, head and backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topgraft.backbones.backbone import Backbone
from topgraft.backbones.card import Card
from topgraft.backbones.depths import Depths
from topgraft.config import BackboneChoice, Config
from topgraft.errors import BackboneError, DataError, OfflineError, UsageError
from topgraft.heads import Setting, head_class
from topgraft.heads._base import Fold
from topgraft.heads._linear import AffineHead
from topgraft.importers.load import load_backbone
from topgraft.photos.dataset import Dataset
from topgraft.policies.policy import Policy, View
from topgraft.predictor import PredictorCard
from topgraft.run import Metrics, Run
from topgraft.run.origin import read_photos
from topgraft.run.predictions import LEARNED, Predicted, read_predictions
from topgraft.run.results import Side, indicators
from topgraft.selection.compare import FEWER, FOLDS, Choice, class_weights
from topgraft.settings import Settings
from topgraft.store.table import views_of
from topgraft.types import Labels, Probabilities, Progress, silent

LEAST = 5e-7
"""What a probability that is written as 0.000000 may be."""
PLAIN = Choice("logistic", {"C": 0.01})
"""What takes the place of a head that is not linear."""


@dataclass(frozen=True)
class Photos:
    """What is trained on and asked.

    Attributes:
        data: the photos of all sides, N of them.
        labels: (N,) class indices, or a 0/1 table (N, C).
        groups: (N,) photos with one number stay together.
        weight: (N,) what each photo weighs, or None.
        classes: C names.
    """

    data: Dataset
    labels: Labels
    groups: Labels
    weight: NDArray[np.float64] | None
    classes: tuple[str, ...]

    def side(self, rows: Labels) -> Side:
        """Return some of the photos as the side of a split."""
        samples = tuple(self.data.samples[i] for i in rows)
        return Side(rows, samples, self.labels[rows], self.groups[rows])


@dataclass(frozen=True)
class Base:
    """A finished run.

    Attributes:
        run: its folder.
        metrics: its numbers.
        card: its predictor's card.
        backbone: what made its features, with PyTorch weights.
        photos: all of them, training side and test side.
        learn: indices of the training side (n,).
        test: indices of the test side; may be empty.
        fold: (n,) in which fold each photo of the training side is scored: the run's; of ten, two as one.
        answers: (n, C) its out-of-fold probabilities.
        head: the head to begin with: the run's.
    """

    run: Run
    metrics: Metrics
    card: PredictorCard
    backbone: Backbone
    photos: Photos
    learn: Labels
    test: Labels
    fold: Labels
    answers: Probabilities
    head: Choice

    @classmethod
    def of(
        cls,
        run: Run | str | Path,
        data: Dataset | None = None,
        backbone: Backbone | None = None,
        *,
        settings: Settings,
        progress: Progress = silent,
    ) -> Base:
        """Read a run and find what belongs to it.

        Raises:
            DataError: where the folder is no run, or the photos are not its photos.
            BackboneError: where the backbone is not its backbone.
        """
        run = run if isinstance(run, Run) else Run.open(run)
        metrics = run.metrics
        rows = read_predictions(run, metrics.classes)
        card = PredictorCard.read(run.model / "card.json")
        backbone = backbone or _find(run, card.backbone, settings, progress)
        wanted, got = metrics.backbone.fingerprint, backbone.card.fingerprint()
        if wanted != got:
            raise BackboneError(
                f"{run.path}: its features were made by another backbone: expected card {wanted[:12]}"
                f" ({metrics.backbone.name}), got {got[:12]} ({backbone.card.name})."
                " Give the backbone it was trained on."
            )
        if reads_blocks(card.setting) and backbone.card.depths != card.backbone.depths:
            raise BackboneError(
                f"{run.path}: its head reads {len(card.backbone.depths)} blocks of the backbone, and"
                f" {backbone.graph.parent} gives others, {len(backbone.card.depths)} of them."
                " Give the backbone it was trained on, or train again with --depths last."
            )
        data = data or read_photos(run, settings=settings, progress=progress)
        photos = _match(run, data, metrics.classes, rows)
        if any(row.split == LEARNED for row in rows):
            raise DataError(
                f"{run.path}: was fine-tuned on a single split, so it has no folds to go by."
                " Fine-tune the run it began with."
            )
        place = {sample.id: i for i, sample in enumerate(photos.data.samples)}
        cv = sorted((row for row in rows if row.split == "cv"), key=lambda row: place[row.id])
        learn = np.array([place[row.id] for row in cv], np.int64)
        mode = (run.config or Config()).heads.class_weight
        weight = np.ones(len(place))
        found, _ = class_weights(photos.labels[learn], len(photos.classes), mode)
        weight[learn] = 1 if found is None else found
        return cls(
            run=run,
            metrics=metrics,
            card=card,
            backbone=backbone,
            photos=Photos(
                photos.data, photos.labels, photos.groups, None if found is None else weight, photos.classes
            ),
            learn=learn,
            test=np.array(sorted(place[row.id] for row in rows if row.split == "test"), np.int64),
            fold=_few(np.array([row.fold for row in cv], np.int64), run.config or Config()),
            answers=np.maximum([row.probabilities for row in cv], LEAST),
            head=_first(card),
        )

    @property
    def columns(self) -> Depths | None:
        """Which columns of a row are which; None where the head reads the last layer alone."""
        return self.backbone.card.columns if reads_blocks(self.head.setting) else None

    @property
    def seed(self) -> int:
        """The run's."""
        return self.metrics.seed

    @property
    def labels(self) -> Labels:
        """Of the training side: (n,), or (n, C) with several labels."""
        return self.photos.labels[self.learn]

    @property
    def groups(self) -> Labels:
        """Of the training side: (n,)."""
        return self.photos.groups[self.learn]

    @property
    def weight(self) -> NDArray[np.float64] | None:
        """Of the training side: (n,), or None."""
        return None if self.photos.weight is None else self.photos.weight[self.learn]

    @property
    def temperature(self) -> float:
        """What the head's logits are divided by to be probabilities."""
        return 1.0 if self.head is PLAIN else self.card.temperature

    @property
    def method(self) -> str:
        """How the run tells photos of none of its classes."""
        return self.card.unknown.method if self.card.unknown else "neighbours"

    @property
    def folds(self) -> list[Fold]:
        """Pairs (fit, score) of positions in `learn`."""
        return [
            (np.flatnonzero(self.fold != part), np.flatnonzero(self.fold == part))
            for part in np.unique(self.fold)
        ]

    @property
    def multilabel(self) -> bool:
        """True where a photo may carry several labels."""
        return self.photos.labels.ndim == 2

    @property
    def config(self) -> Config:
        """The run's choices; the defaults where it was trained from features."""
        return self.run.config or Config()

    @property
    def wanted(self) -> tuple[float | None, float | None]:
        """How sure an answer must be, and the share that shall be right, as the run was asked for it."""
        if self.run.config is None:
            return self.card.answer_above, None
        return self.config.answers.above, self.config.answers.right

    def views(self, count: int) -> tuple[View, ...]:
        """Return the photo as it is and the first of the run's policies.

        Raises:
            UsageError: for more than the run has.
        """
        policies = self.metrics.policies
        if not 0 <= count <= len(policies):
            raise UsageError(
                f"`views` must be 0 to {len(policies)}, the policies of {self.run.path}, got {count}."
            )
        return views_of([Policy.parse(policy) for policy in policies[:count]], self.seed)


def _few(fold: Labels, config: Config) -> Labels:
    """Join a run's folds two by two where nobody asked for as many: each is fine-tuned for minutes."""
    return fold % FEWER if config.heads.folds is None and fold.max() + 1 == FOLDS else fold


def _first(card: PredictorCard) -> Choice:
    """Return the head to begin with: the run's, where it is linear."""
    return Choice(card.head, card.setting) if issubclass(head_class(card.head), AffineHead) else PLAIN


def reads_blocks(setting: Setting) -> bool:
    """Tell whether a head of this setting reads more than the last layer."""
    return any(key.rpartition(".")[2] == "depths" and value != "last" for key, value in setting.items())


def _find(run: Run, card: Card, settings: Settings, progress: Progress) -> Backbone:
    """Find a run's backbone: beside it where it was fine-tuned, else in the cache, else by its name.

    Raises:
        BackboneError: for one that would have to be fetched: for that, the word of a run is not enough.
    """
    if (folder := run.path / "backbone").is_dir():
        return Backbone.open(folder)
    if here := Backbone.kept(settings.cache_dir / "backbones" / card.folder()):
        return here
    config = run.config or Config(backbone=BackboneChoice(name=card.name))
    name = card.name if config.backbone.tried else config.backbone.name
    try:
        return load_backbone(
            name,
            card=config.backbone.card,
            weights=config.backbone.weights,
            seed=config.seed,
            settings=replace(settings, offline=True),
            progress=progress,
        )
    except OfflineError as error:
        raise BackboneError(
            f"{run.path}: its backbone {name} is not on this machine. Give --backbone {name} to fetch it."
        ) from error


def _match(run: Run, data: Dataset, classes: Sequence[str], rows: Sequence[Predicted]) -> Photos:
    """Find a run's photos in a dataset.

    Raises:
        DataError: for photos that are missing or have changed, or other classes.
    """
    if tuple(data.classes) != tuple(classes):
        raise DataError(
            f"{data.root}: expected the classes of {run.path} ({', '.join(classes)}),"
            f" got {', '.join(data.classes)}. Give the photos it was trained from."
        )
    digests = {row.id: row.digest for row in rows}
    have = {sample.id: sample.digest for sample in data.samples}
    lost = sorted(name for name, digest in digests.items() if have.get(name) != digest)
    if lost:
        raise DataError(
            f"{data.root}: {len(lost)} photos of {run.path} are missing or have changed (first: {lost[0]})."
            " Give the photos it was trained from, or train again."
        )
    chosen = data.subset(digests)
    multilabel = any(sample.labels for sample in data.samples)
    labels = indicators(chosen.samples, len(classes)) if multilabel else chosen.labels
    return Photos(chosen, labels, chosen.groups, None, tuple(classes))
