"""Say what each augmentation policy is worth, from stored features."""

from __future__ import annotations

from pathlib import Path

from topgraft.progress import watched
from topgraft.run.predictions import learned
from topgraft.selection.worth import Worth
from topgraft.selection.worth import worth as measure
from topgraft.settings import Settings
from topgraft.store import FeatureStore
from topgraft.types import Progress, auto


@watched
def worth(
    store: FeatureStore | str | Path,
    *,
    folds: int = 5,
    repeats: int = 3,
    seed: int = 0,
    with_test: bool = False,
    settings: Settings | None = None,
    progress: Progress = auto,
) -> Worth:
    """Measure what each policy, and each part of the policies, adds to held-out log loss and accuracy.

    Args:
        store: features with at least one policy's view beside the photo as it is, or where they lie.
        folds: of the cross-validation.
        repeats: how often the folds are dealt anew.
        seed: of the folds.
        with_test: take in photos that the run beside the store held out.
        settings: cores.
        progress: told of every policy.

    Raises:
        UsageError: for a store without policies, or several labels per photo.
    """
    features = store if isinstance(store, FeatureStore) else FeatureStore.open(store, settings=settings)
    photos = learned(features, with_test=with_test)
    return measure(
        features,
        photos.labels,
        photos.groups,
        photos=photos.rows,
        folds=folds,
        repeats=repeats,
        seed=seed,
        settings=settings,
        progress=progress,
    )
