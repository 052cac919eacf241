"""What the run's model makes of photos: features and answers, kept beside the run so that it looks once."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topgraft import files
from topgraft.errors import TopgraftError
from topgraft.photos.decode import decode
from topgraft.predictor import Predictor
from topgraft.run import Run
from topgraft.store import FeatureStore
from topgraft.types import Progress

KEPT = "review.npz"
"""In the run's folder; it can be deleted, and is made anew."""

say = logging.getLogger(__name__).info


@dataclass(frozen=True)
class Row:
    """What is known of one photo.

    Attributes:
        features: (D,) of the last layer.
        distance: how unlike the training photos it is; NaN where nobody measured.
    """

    features: NDArray[np.float32]
    distance: float = float("nan")


def rows_of(
    run: Run,
    predictor: Predictor,
    photos: Mapping[str, Callable[[], bytes]],
    threads: int,
    progress: Progress,
) -> dict[str, Row]:
    """Return rows by digest, from where they are: the run's store, what was kept before, or the model.

    Args:
        run: whose model looks.
        predictor: its model.
        photos: how to read the bytes of a photo, by digest.
        threads: that look side by side.
        progress: told of the photos looked at.
    """
    kept = _kept(run.path / KEPT, predictor)
    known = _stored(run, predictor) | kept
    new = [digest for digest in photos if digest not in known]

    def look(digest: str) -> Row | None:
        try:
            found = predictor.look(decode(photos[digest](), digest))
        except (OSError, TopgraftError):
            return None
        return Row(found["features"][0], float(found["distance"][0]))

    if new:
        predictor.check()  # opens the model once, before the threads ask for it
        with ThreadPoolExecutor(threads) as pool:
            for done, (digest, row) in enumerate(zip(new, pool.map(look, new), strict=True), start=1):
                progress("looking at photos", done, len(new))
                if row is not None:
                    known[digest] = kept[digest] = row
        _keep(run.path / KEPT, predictor, kept)
    return {digest: known[digest] for digest in photos if digest in known}


def _stored(run: Run, predictor: Predictor) -> dict[str, Row]:
    """Read the features that training left beside the run; a run from another store has none there."""
    try:
        store = FeatureStore.open(run.path / "features.zarr")
        if store.card.fingerprint() != predictor.card.backbone.fingerprint():
            return {}
        features = store.features().astype(np.float32)
    except (OSError, TopgraftError):
        return {}
    return {sample.digest: Row(row) for sample, row in zip(store.samples, features, strict=True)}


def _kept(path: Path, predictor: Predictor) -> dict[str, Row]:
    try:
        with np.load(io.BytesIO(files.read_local(path)), allow_pickle=False) as found:
            if str(found["graph"]) != predictor.card.graph:
                return {}
            return {
                str(digest): Row(row, float(distance))
                for digest, row, distance in zip(
                    found["digests"], found["features"], found["distances"], strict=True
                )
            }
    except (OSError, ValueError, KeyError):
        return {}


def _keep(path: Path, predictor: Predictor, rows: Mapping[str, Row]) -> None:
    out = io.BytesIO()
    np.savez(
        out,
        graph=np.array(predictor.card.graph),
        digests=np.array(list(rows)),
        features=np.array([row.features for row in rows.values()], np.float32),
        distances=np.array([row.distance for row in rows.values()]),
    )
    with files.guarded(path, "review again"):
        files.write(path, out.getvalue())
