"""Say what more photos would bring, from a run's stored features."""

from __future__ import annotations

from pathlib import Path

from topgraft.errors import DataError
from topgraft.progress import watched
from topgraft.run import Run
from topgraft.run.predictions import learned, learned_by
from topgraft.selection.curve import Curve
from topgraft.selection.curve import curve as measure
from topgraft.selection.source import columns_of, view_0
from topgraft.settings import Settings
from topgraft.store import FeatureStore
from topgraft.types import Progress, auto


@watched
def curve(
    run: Run | FeatureStore | str | Path,
    *,
    store: FeatureStore | str | Path | None = None,
    seed: int | None = None,
    settings: Settings | None = None,
    progress: Progress = auto,
) -> Curve:
    """Return the learning curve of a run's photos, and what more of them would bring.

    Heads are fitted on parts of the photos that the run learned from, and judged by the others; the test side
    stays out. Of a run, what is gained is told in proportion to its own cross-validated errors.

    Args:
        run: a finished run, or a feature store, or the folder of either.
        store: where the run's features lie, where they are not in its folder.
        seed: of folds and draws; None is the run's, so that its own curve comes out again, and 0 of a store.
        settings: cores.
        progress: told of repeats.

    Raises:
        DataError: for a run without features, or fewer than 20 photos that differ.
        UsageError: where photos carry several labels.
    """
    settings = settings or Settings.load()
    features, opened = _found(run, store, settings)
    photos = learned(features) if opened is None else learned_by(opened, features)
    config = opened.config if opened else None
    if seed is None:
        seed = opened.metrics.seed if opened else 0
    columns = columns_of(features, "last" if config and config.heads.depths == "last" else "auto")
    return measure(
        view_0(features, photos.rows, columns),
        photos.labels,
        photos.groups,
        classes=features.classes,
        columns=columns,
        error=None if opened is None else 1 - opened.metrics.cross_validation.accuracy.value,
        class_weight=_class_weight(opened) if opened else "auto",
        seed=seed,
        settings=settings,
        progress=progress,
    )


def _class_weight(run: Run) -> str:
    """Return how a run weighed classes; one that was trained from features has no config, but its curve."""
    if run.config:
        return run.config.heads.class_weight
    return str((run.metrics.curve or {}).get("class_weight", "auto"))


def _found(
    run: Run | FeatureStore | str | Path, store: FeatureStore | str | Path | None, settings: Settings
) -> tuple[FeatureStore, Run | None]:
    """Open the features, and the run that they are of where one was named."""
    if isinstance(run, FeatureStore):
        return run, None
    if not isinstance(run, Run) and store is None and (Path(run) / "zarr.json").is_file():
        return FeatureStore.open(run, settings=settings), None
    opened = run if isinstance(run, Run) else Run.open(run)
    if store is None:
        store = opened.path / "features.zarr"
        if not Path(store).is_dir():
            raise DataError(
                f"{opened.path}: expected features.zarr in the run, found none. Name its store with --store."
            )
    return store if isinstance(store, FeatureStore) else FeatureStore.open(store, settings=settings), opened
