"""Topgraft as a scikit-learn estimator: X is a list of photo paths."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from topgraft._check import check
from topgraft._grow import Work
from topgraft._learn import learn, options_of
from topgraft.config import Config
from topgraft.errors import DataError, UsageError
from topgraft.importers.load import DEFAULT, load_backbone
from topgraft.photos.dataset import Dataset
from topgraft.photos.entries import is_missing
from topgraft.policies.grid import draw
from topgraft.predictor import Predictor
from topgraft.run import Run
from topgraft.settings import Settings
from topgraft.splits import Split


class TopgraftClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A photo classifier with scikit-learn's manners: clone it, put it in a pipeline, cross-validate it.

    X is a sequence of N photo paths (not pixels), y their N labels. Inside `fit`, heads are compared by
    cross-validation on these photos alone, so an outer `cross_val_score` is nested and honest.

    Args:
        backbone: `architecture.tag`, or a folder that `topgraft fetch` wrote.
        policies: how many augmentation policies are drawn at most, added in steps while they pay; "16!" for
            exactly 16.
        grid: from which grid.
        heads: `linear`, `all`, or names.
        folds: of the inner cross-validation; None: 10 of up to 500 photos, 5 of more.
        seed: decides the draw, the views and the folds.
        store: a feature store to use and add to; None keeps features only while fitting. With a store,
            the outer folds of a cross-validation embed every photo once.

    Attributes:
        classes_: (C,) the labels.
        predictor_: the finished predictor.
        run_: the numbers of the inner comparison, as in metrics.json.
    """

    def __init__(
        self,
        *,
        backbone: str = DEFAULT,
        policies: int | str = 16,
        grid: str = "grid288",
        heads: str | Sequence[str] = "linear",
        folds: int | None = None,
        seed: int = 0,
        store: str | Path | None = None,
    ) -> None:
        self.backbone = backbone
        self.policies = policies
        self.grid = grid
        self.heads = heads
        self.folds = folds
        self.seed = seed
        self.store = store

    def fit(self, X: Sequence[str | Path], y: Sequence[Any], groups: Sequence[Any] | None = None) -> Self:
        """Embed the photos, compare the heads, and refit the best on all of them.

        Args:
            X: (N,) paths.
            y: (N,) labels of any type whose text is unique.
            groups: (N,) photos that must stay together.

        Raises:
            DataError: for photos that cannot be read or trained on.
        """
        paths, names, ties = _once(X, y, groups)
        classes = np.unique(np.asarray(y))
        policies, folds, seed = map(_plain, (self.policies, self.folds, self.seed))
        if len({str(label) for label in classes}) < len(classes):
            raise DataError(f"y: expected labels whose text differs, got {sorted(map(repr, classes))}.")
        data = Dataset.from_pairs(paths, names, groups=ties)
        if data.refused:
            first = data.refused[0]
            raise DataError(
                f"{len(data.refused)} of {len(X)} photos are unusable: {first.id} {first.reason}."
            )
        check(data)
        config = Config.of(policies=policies, grid=self.grid, heads=self.heads, folds=folds, seed=seed)
        settings, sides = Settings.load(), Split(train=data.ids)
        with tempfile.TemporaryDirectory(prefix="topgraft-") as folder:
            work = Work(
                config=config,
                data=data,
                sides=sides,
                backbone=load_backbone(self.backbone, settings=settings),
                policies=draw(config.policies.most, seed=config.seed, grid=self.grid),
                run=Run.create(Path(folder, "run")),
                store=self.store,
                settings=settings,
                wait=True,  # for the other folds of a cross-validation in several processes
            )
            features, lesson, brought = work.grow(time.perf_counter())
            run = learn(
                features,
                sides,
                lesson=lesson,
                brought=brought,
                heads=config.heads.names,
                **options_of(config),
                out=work.run,
                backbone=work.backbone,
                settings=settings,
            )
            self.run_ = run.metrics.as_dict()
            self.predictor_ = Predictor.load(run.model)
        self.classes_ = classes
        return self

    def predict_proba(self, X: Sequence[str | Path]) -> NDArray[np.float64]:
        """Return probabilities (N, C), columns as in `classes_`.

        Raises:
            DataError: for a photo that cannot be read.
        """
        check_is_fitted(self)
        found = self.predictor_.predict([str(path) for path in X])
        for prediction in found:
            if prediction.error:
                raise DataError(prediction.error)
        return np.array(
            [[prediction.probabilities[str(label)] for label in self.classes_] for prediction in found]
        )

    def predict(self, X: Sequence[str | Path]) -> NDArray[Any]:
        """Return the most probable label of each photo, (N,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def save(self, folder: str | Path) -> Path:
        """Write the predictor to a folder that `topgraft predict` and `tg.load` read.

        Raises:
            UsageError: where the folder is not empty.
        """
        check_is_fitted(self)
        place = Path(folder)
        if place.is_dir() and any(place.iterdir()):
            raise UsageError(f"{place}: expected an empty folder, found files in it. Choose another name.")
        self.predictor_.save(place)
        return place


def _plain(value: Any) -> Any:
    """Return a number of numpy's as Python's: a grid search gives those."""
    return value.item() if isinstance(value, np.generic) else value


def _once(
    X: Sequence[str | Path], y: Sequence[Any], groups: Sequence[Any] | None
) -> tuple[list[str], list[str], list[str | None] | None]:
    """Keep every path once, as a bootstrap draws some twice: paths, labels and groups as text.

    A group that is missing is None: the photo stands alone.

    Raises:
        DataError: for lengths that differ, a label that is missing, or one path with two labels.
    """
    for what, given in (("labels", y), ("groups", groups)):
        if given is not None and len(given) != len(X):
            raise DataError(f"expected as many {what} as paths, got {len(X)} paths and {len(given)} {what}.")
    # A column of a table (pandas.Series) is indexed by its labels, not by place.
    labels, ties = np.asarray(y, object), None if groups is None else np.asarray(groups, object)
    first: dict[str, int] = {}
    for i, path in enumerate(map(str, X)):
        if is_missing(labels[i]):
            raise DataError(f"{path}: expected a label, got {labels[i]!r}. Leave the photo out.")
        j = first.setdefault(path, i)
        if labels[i] != labels[j]:
            raise DataError(f"{path}: is listed with two labels, {labels[j]!r} and {labels[i]!r}. Keep one.")
    rows = list(first.values())
    named = None if ties is None else [None if is_missing(ties[i]) else str(ties[i]) for i in rows]
    text = np.asarray(y)  # as `classes_` has them: 1 and 2.5 are 1.0 and 2.5
    return list(first), [str(text[i]) for i in rows], named
