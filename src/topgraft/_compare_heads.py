"""Compare heads on stored features, all photos in cross-validation; no model is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from topgraft.run.results import Side, same_work
from topgraft.selection.compare import Comparison, compare
from topgraft.settings import Settings
from topgraft.store import FeatureStore
from topgraft.types import Progress, silent


def compare_heads(
    store: FeatureStore | str | Path,
    *,
    heads: str | Sequence[str] = "all",
    maps: FeatureStore | str | Path | None = None,
    folds: int = 5,
    repeats: int = 2,
    class_weight: str = "auto",
    seed: int = 0,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Compare every setting of every head by repeated, grouped, stratified cross-validation.

    Args:
        store: features, or where they lie.
        heads: `all`, `linear` (those without PyTorch), or names.
        maps: a store of maps of the same photos and views, for heads that read maps (`flat`).
        folds: of the cross-validation.
        repeats: how often the folds are dealt anew.
        class_weight: `auto`, `on` or `off`.
        seed: of the folds and of heads that draw.
        settings: cores and device.
        progress: told of every head.

    Raises:
        DataError: for fewer than two photos that differ, or maps of other photos.
        UsageError: for options out of range.
    """
    settings = settings or Settings.load()
    features = _opened(store, settings)
    beside = None if maps is None else _opened(maps, settings)
    if beside:
        same_work(features, beside)
    photos = Side.of(features, features.ids)
    return compare(
        features,
        photos.labels,
        photos.groups,
        maps=beside,
        heads=heads,
        folds=folds,
        repeats=repeats,
        seed=seed,
        classes=len(features.classes),
        class_weight=class_weight,
        settings=settings,
        progress=progress,
    )


def _opened(store: FeatureStore | str | Path, settings: Settings) -> FeatureStore:
    return store if isinstance(store, FeatureStore) else FeatureStore.open(store, settings=settings)
