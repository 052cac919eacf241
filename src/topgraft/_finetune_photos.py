"""From photos to activations at the cut: decoded once, fitted and warped as the head's photos were."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from topgraft._finetune_cache import Activations, Key
from topgraft._finetune_cut import Cut
from topgraft._finetune_train import Feed, autocast, pack
from topgraft.card import Card
from topgraft.dataset import Dataset
from topgraft.decode import decode
from topgraft.errors import DataError
from topgraft.fingerprint import digest, fingerprint
from topgraft.fit import fit
from topgraft.policy import View, render
from topgraft.settings import Settings
from topgraft.store.table import PIXELS
from topgraft.types import Images, Progress, silent

say = logging.getLogger(__name__).info

BATCH = 8
"""Pictures pushed through the prefix at once, always so many: kernels are chosen by shape, and so are the
last bits."""


def activations(
    data: Dataset,
    views: Sequence[View],
    cut: Cut,
    card: Card,
    *,
    settings: Settings,
    progress: Progress = silent,
) -> Feed:
    """Give the activations of every view of every photo, computing those that are not kept yet.

    Args:
        data: photos.
        views: the first is the photo as it is.
        cut: of the network the card belongs to.
        card: says how photos are fitted and normalised.
        settings: where activations are kept, and cores.
        progress: told of views done.
    """
    device = next(cut.tail.parameters()).device
    what = [card.fingerprint(), cut.names, cut.shapes, device.type, PIXELS]
    kept = Activations(settings.cache_dir / "activations" / fingerprint(what), cut.width)
    keys = [[(one.digest, view.key) for one in data.samples] for view in views]
    wanted = [key for row in keys for key in row]
    if missing := kept.missing(wanted):
        _say(cut, len(missing), len(set(wanted)), card, device)
        with kept.writing(), torch.inference_mode(), autocast(device):
            missing, done = kept.missing(wanted), 0
            for some, images in _batches(data, missing, views, card, settings.threads):
                rows = pack(cut.prefix(normalised(images, card, device)))
                kept.add(some, rows[: len(some)].float().cpu().numpy())
                done += len(some)
                progress("activations at the cut", done, len(missing))
    places = np.stack([kept.places(row) for row in keys])
    return Feed(kept.rows(), places, cut.shapes, device)


def _say(cut: Cut, missing: int, rows: int, card: Card, device: torch.device) -> None:
    """Say how much is to be kept and how long it takes, from trying one batch."""
    black = np.zeros((BATCH, *card.input_size, 3), np.uint8)
    with torch.inference_mode(), autocast(device):
        for _ in range(2):  # the first one prepares
            begun = time.perf_counter()
            cut.prefix(normalised(black, card, device))
    seconds = (time.perf_counter() - begun) / BATCH * missing
    each, names = 2 * cut.width, ", ".join(cut.names[:2]) + (" …" if len(cut.names) > 2 else "")
    say(
        f"activations at {names}: {each / 1024:.0f} KiB a view, {each * rows / 2**20:.0f} MiB in all;"
        f" {missing:,} views to compute, about {max(1, round(seconds))} s"
    )


def _batches(
    data: Dataset, missing: list[Key], views: Sequence[View], card: Card, threads: int
) -> Iterator[tuple[list[Key], Images]]:
    """Give the missing views in batches of one size; the last is filled up with black."""
    by_key = {view.key: view for view in views}
    photos: dict[str, list[View]] = {}
    for photo, key in missing:
        photos.setdefault(photo, []).append(by_key[key])
    shown = (
        ((photo, view.key), picture)
        for photo, pictures in _pictures(data, photos, card, threads)
        for view, picture in zip(photos[photo], pictures, strict=True)
    )
    while some := list(islice(shown, BATCH)):
        images = np.zeros((BATCH, *some[0][1].shape), np.uint8)
        images[: len(some)] = [picture for _, picture in some]
        yield [key for key, _ in some], images


def _pictures(
    data: Dataset, photos: dict[str, list[View]], card: Card, threads: int
) -> Iterator[tuple[str, Images]]:
    """Give photo after photo with the views it lacks, decoded in threads, a few photos ahead."""
    where = {one.digest: i for i, one in enumerate(data.samples)}

    def look(photo: str) -> tuple[str, Images]:
        i = where[photo]
        raw = data.read(i)
        if digest(raw) != photo:
            raise DataError(f"{data.samples[i].id}: the file changed after it was checked. Run again.")
        picture = fit(decode(raw, data.samples[i].id), card)
        return photo, np.stack([render(picture, view, photo) for view in photos[photo]])

    names = iter(photos)
    with ThreadPoolExecutor(threads, thread_name_prefix="topgraft-reader") as pool:
        ahead = deque(pool.submit(look, name) for name in islice(names, 2 * BATCH))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(look, name) for name in islice(names, 1))


def normalised(images: Images, card: Card, device: torch.device) -> Tensor:
    """Turn pictures (N, H, W, 3) into what the network takes: (N, 3, H, W) float32, channels last in memory.

    The arithmetic of the backbone's own graph, so that activations are those of the head's features.
    """
    mean, std = (
        torch.tensor(numbers, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        for numbers in (card.mean, card.std)
    )
    levels = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float()
    return (levels - mean * 255) * (1 / (std * 255))
