"""From photos to activations at the cut: decoded once, fitted and warped as the head's photos were."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from topgraft._finetune.cache import Activations, Key
from topgraft._finetune.cut import Cut
from topgraft._finetune.pixels import normalised
from topgraft._finetune.prefix import in_graph
from topgraft._finetune.train import TailInputs, pack
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.card import Card
from topgraft.backbones.views import views_of_photo
from topgraft.engines import open_engine
from topgraft.fingerprint import fingerprint
from topgraft.photos.dataset import Dataset
from topgraft.photos.readers import in_order, one_opencv_thread
from topgraft.policies.policy import View
from topgraft.settings import Settings
from topgraft.speed import per_second
from topgraft.store.table import PIXELS
from topgraft.text import duration
from topgraft.types import Image, Images, Progress, silent

say = logging.getLogger(__name__).info

BATCH = 8
"""Pictures pushed through the prefix at once, and rows kept at once. PyTorch is always given so many: kernels
are chosen by shape, and so are the last bits."""

Batches = Iterator[tuple[list[Key], Images]]
PrefixRows = Generator[tuple[list[Key], NDArray[np.float32]]]
RunPrefix = Callable[[Batches], PrefixRows]
"""Pushes pictures through the frozen prefix; gives a row for each."""


def activations(
    data: Dataset,
    views: Sequence[View],
    cut: Cut,
    backbone: Backbone,
    *,
    settings: Settings,
    progress: Progress = silent,
) -> TailInputs:
    """Return the activations of every view of every photo, computing those that are not kept yet.

    On a CPU OpenVINO computes them, on a GPU PyTorch does, or where the backbone's graph does not have them.

    Args:
        data: photos.
        views: the first is the photo as it is.
        cut: of the backbone's network.
        backbone: its card says how photos are fitted and normalised.
        settings: where activations are kept, and cores.
        progress: told of views done.
    """
    card, device = backbone.card, next(cut.tail.parameters()).device
    # The names of the values at the cut are numbers the tracer dealt: another version deals others.
    what = [card.fingerprint(), cut.names, cut.shapes, cut.trained, timm.__version__, torch.__version__]
    place = settings.cache_dir / "activations"
    graph = None
    if device.type == "cpu":
        graph = in_graph(backbone, cut, place / f"{fingerprint(what)}.onnx")
    kind = "openvino" if graph else device.type
    exact = any(cut.blocks) and "blocks" in card.float32
    kept = Activations(place / fingerprint([*what, kind, PIXELS]), cut.width, exact=exact)
    keys = [[(sample.digest, view.key) for sample in data.samples] for view in views]
    wanted = [key for row in keys for key in row]
    if missing := kept.missing(wanted):
        with one_opencv_thread(), _prefix(cut, card, device, graph, settings) as run, kept.writing():
            _say(cut, run, len(missing), len(set(wanted)), card, kept.kind.itemsize)
            missing, done = kept.missing(wanted), 0
            with closing(run(_batches(data, missing, views, card, settings.threads))) as stream:
                for batch, rows in stream:
                    kept.add(batch, rows)
                    done += len(batch)
                    progress("activations at the cut", done, len(missing))
    places = np.stack([kept.places(row) for row in keys])
    return TailInputs(kept.rows(), places, cut.shapes, device)


@contextmanager
def _prefix(
    cut: Cut, card: Card, device: torch.device, graph: Backbone | None, settings: Settings
) -> Iterator[RunPrefix]:
    """Open what runs the prefix."""

    def by_torch(batches: Batches) -> PrefixRows:
        for keys, images in batches:
            full = np.zeros((BATCH, *images.shape[1:]), np.uint8)
            full[: len(images)] = images
            with torch.inference_mode():
                rows = pack(cut.prefix(normalised(full, card, device)))
            yield keys, rows[: len(keys)].float().cpu().numpy()

    if graph is None:
        yield by_torch
        return
    with open_engine(graph, settings=settings) as engine:

        def by_engine(batches: Batches) -> PrefixRows:
            yield from engine.stream(batches)

        yield by_engine


def _say(cut: Cut, run: RunPrefix, missing: int, rows: int, card: Card, bytes_each: int) -> None:
    """Say how much is to be kept and how long it takes, from trying one batch."""
    black = np.zeros((BATCH, *card.input_size, 3), np.uint8)

    def batch() -> int:
        return BATCH * len(list(run(iter([([], black)]))))

    seconds = missing / per_second(batch)
    row_bytes = bytes_each * cut.width
    names = [name for name, block in zip(cut.names, cut.blocks, strict=True) if not block]
    read = len(cut.names) - len(names)
    at = (
        ", ".join(names[:2])
        + (" …" if len(names) > 2 else "")
        + (f" and {read} blocks before" if read else "")
    )
    say(
        f"activations at {at}: {row_bytes / 1024:.0f} KiB a view, {row_bytes * rows / 2**20:.0f} MiB in"
        f" all; {missing:,} views to compute, about {duration(seconds)}"
    )


def _batches(data: Dataset, missing: list[Key], views: Sequence[View], card: Card, threads: int) -> Batches:
    """Yield the missing views in batches of one size; the last may be smaller."""
    by_key = {view.key: view for view in views}
    photos: dict[str, list[View]] = {}
    for photo, key in missing:
        photos.setdefault(photo, []).append(by_key[key])
    shown = (
        ((photo, view.key), picture)
        for photo, pictures in _pictures(data, photos, card, threads)
        for view, picture in zip(photos[photo], pictures, strict=True)
    )
    while batch := list(islice(shown, BATCH)):
        yield [key for key, _ in batch], np.stack([picture for _, picture in batch])


def _pictures(
    data: Dataset, photos: dict[str, list[View]], card: Card, threads: int
) -> Iterator[tuple[str, list[Image]]]:
    """Yield photo after photo with the views it lacks, decoded in threads, a few photos ahead."""
    where = {sample.digest: i for i, sample in enumerate(data.samples)}

    def look(photo: str) -> tuple[str, list[Image]]:
        i = where[photo]
        name, views = data.samples[i].id, photos[photo]
        return photo, views_of_photo(data.read_checked(i), name, photo, views, card)

    return in_order(look, photos, threads, 2 * BATCH)
