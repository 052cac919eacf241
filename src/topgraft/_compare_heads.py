"""Compare heads on stored features, by cross-validation of what is not held out; no model is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from topgraft.progress import watched
from topgraft.run.predictions import learned
from topgraft.run.results import same_work
from topgraft.selection.compare import Comparison, compare
from topgraft.selection.source import columns_of, stack
from topgraft.settings import Settings
from topgraft.store import FeatureStore
from topgraft.types import Progress, auto


@watched
def compare_heads(
    store: FeatureStore | str | Path,
    *,
    heads: str | Sequence[str] = "all",
    maps: FeatureStore | str | Path | None = None,
    folds: int | None = None,
    repeats: int = 2,
    class_weight: str = "auto",
    depths: str = "auto",
    rule: str = "mean",
    seed: int = 0,
    with_test: bool = False,
    settings: Settings | None = None,
    progress: Progress = auto,
) -> Comparison:
    """Compare every setting of every head by repeated, grouped, stratified cross-validation.

    Args:
        store: features, or where they lie.
        heads: `all`, `linear` (those without PyTorch), or names.
        maps: a store of maps of the same photos and views, for heads that read maps (`flat`).
        folds: of the cross-validation; None: 10 of up to 500 photos, 5 of more.
        repeats: how often the folds are dealt anew.
        class_weight: `auto`, `on` or `off`.
        depths: `auto`, `last` or `all`: how deep heads read the backbone.
        rule: by which one is chosen: `mean`, `lowest` or `one-standard-error`.
        seed: of the folds and of heads that draw.
        with_test: take in photos that the run beside the store held out.
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
    photos = learned(features, with_test=with_test)
    columns = columns_of(features, depths)
    found = compare(
        stack(features, photos.rows, columns),
        photos.labels,
        photos.groups,
        maps=None if beside is None else stack(beside, photos.rows),
        heads=heads,
        folds=folds,
        repeats=repeats,
        seed=seed,
        classes=len(features.classes),
        class_weight=class_weight,
        columns=columns,
        depths=depths,
        rule=rule,
        settings=settings,
        progress=progress,
    )
    if columns is None and depths == "auto":
        found.notes.append(
            "The last layer alone is read: these features hold no other depth. Embed the photos again to have"
            " all, where the backbone names its blocks."
        )
    return found


def _opened(store: FeatureStore | str | Path, settings: Settings) -> FeatureStore:
    return store if isinstance(store, FeatureStore) else FeatureStore.open(store, settings=settings)
