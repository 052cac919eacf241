"""Photos through the backbone, once per view, into a feature store."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from topgraft import files
from topgraft._embed.partition import BATCH, Partition, compute
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.card import Card, why_no_depths
from topgraft.config import DepthsChoice
from topgraft.engines import resolve_engine
from topgraft.errors import BackboneError, DataError, OfflineError, UnknownNameError, UsageError
from topgraft.importers.load import DEFAULT, load_backbone
from topgraft.photos.dataset import Dataset
from topgraft.policies.policy import Policy
from topgraft.progress import watched
from topgraft.settings import Settings
from topgraft.store import FeatureStore
from topgraft.store.place import Place
from topgraft.store.table import Table, views_of
from topgraft.types import Progress, auto

say = logging.getLogger(__name__).info
DEPTHS = get_args(DepthsChoice)


@watched
def embed(
    data: Dataset,
    path: str | Path,
    *,
    backbone: Backbone | str = DEFAULT,
    policies: Sequence[Policy] = (),
    plain: Iterable[str] = (),
    seed: int = 0,
    precision: str = "f32",
    depths: str = "auto",
    engine: str = "auto",
    workers: int | str | None = None,
    batch: int = BATCH,
    wait: bool = False,
    settings: Settings | None = None,
    progress: Progress = auto,
) -> FeatureStore:
    """Compute the features of all photos and views that a store does not have yet.

    The store then is of these photos and these views; rows of others stay in it until `prune`. It does not
    matter how often the work is interrupted, in which order files come, how many workers there are or how
    large a batch is: the bytes of the store are the same.

    Args:
        data: the photos.
        path: the store's folder or URL; made where there is none.
        backbone: a name, a folder, or an open backbone.
        policies: one view each, beside view 0, the photo as it is.
        plain: ids of photos that get view 0 alone, as those held out, of which nobody reads another.
        seed: of the views.
        precision: `f32`, or another the engine offers.
        depths: `all` keeps the statistics of every block beside the features, `last` does not; `auto` does
            where the backbone gives them, and says so where it does not. What a store lacks of them is added.
        engine: `auto`, `openvino`, `torch` or `fake`.
        workers: threads that decode and warp, by default the cores of `settings`; or `ray`, or `ray:ADDRESS`.
        batch: pictures handed to the engine at once.
        wait: for another process that is writing to the store, in place of an error.
        settings: cores, device and cache.
        progress: told of rows done.

    Returns:
        The store, open.

    Raises:
        BackboneError: for `all` of a backbone that gives no statistics of blocks.
        DataError: for no photos, or one that cannot be read any more: every finished block is kept.
        StoreError: where the store cannot be written, or another process is writing to it.
        UsageError: for a wrong number of workers or batch size, or a store among the photos.
        OfflineError: for a store on another machine, or Ray, where no socket may be opened.
    """
    settings = settings or Settings.load()
    readers = _readers(workers, settings)
    files.stay_here(path, offline=settings.offline)
    if settings.offline and isinstance(readers, str):
        raise OfflineError(
            f"workers={readers}: offline, and Ray's processes talk through sockets. Leave it out."
        )
    if batch < 1:
        raise UsageError(f"batch must be at least 1, got {batch}.")
    if not len(data):
        raise DataError(f"{data.root}: no photo to embed. Look at `topgraft check`.")
    data.keep_out(path)
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone, settings=settings, progress=progress)
    engine, precision = resolve_engine(engine, precision, settings)
    table = asked_for(
        data,
        backbone,
        policies,
        plain=plain,
        seed=seed,
        precision=precision,
        depths=depths,
        engine=engine,
        settings=settings,
    )
    place = Place.at(path)
    with place.locked(wait=wait):
        store = FeatureStore.create(place.path, settings=settings)
        place.sweep()
        work = store.begin(table)
        if work:
            whole = Partition(
                store.path,
                table,
                tuple(work),
                data,
                backbone,
                engine,
                precision,
                settings.threads,
                batch,
                settings,
            )
            _run(whole, readers, progress)
        store.commit(table)
    return store


def asked_for(
    data: Dataset,
    backbone: Backbone,
    policies: Sequence[Policy],
    *,
    plain: Iterable[str] = (),
    seed: int = 0,
    precision: str = "f32",
    depths: str = "auto",
    engine: str = "auto",
    settings: Settings | None = None,
) -> Table:
    """Return what `embed` of these choices asks a store for; nothing is computed."""
    engine, precision = resolve_engine(engine, precision, settings or Settings.load())
    label = precision if engine != "fake" else "fake"  # no real engine may take these rows for its own
    views = views_of(policies, seed)
    return Table.of(data, backbone.card, label, views, depths=_deep(depths, backbone.card), plain=plain)


def _deep(depths: str, card: Card) -> bool:
    """Settle whether block features are kept."""
    if depths not in DEPTHS:
        raise UnknownNameError("depths", depths, DEPTHS)
    if depths == "last" or card.depths:
        return depths != "last"
    lacking = why_no_depths(card)
    if depths == "all":
        raise BackboneError(lacking)
    if card.output == "features":
        say(f"{lacking} The last layer alone is read.")
    return False


def _readers(workers: int | str | None, settings: Settings) -> int | str:
    if workers is None:
        return settings.threads
    text = str(workers)
    if text == "ray" or text.startswith("ray:"):
        return text
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"workers must be a number from 1, `ray` or `ray:ADDRESS`, got {workers!r}.")
    return int(text)


def _run(whole: Partition, readers: int | str, progress: Progress) -> None:
    progress("embedding", 0, whole.rows)
    if isinstance(readers, str):
        from topgraft._embed.distribute import distribute

        distribute(whole, readers.partition(":")[2], progress)
    else:
        compute(replace(whole, readers=readers), lambda done: progress("embedding", done, whole.rows))
