"""What a photo looks like, small enough to compare all with all: finds near-duplicates before they leak.

A look is a 24 x 24 RGB thumbnail, compared in two parts, each by the correlation of what departs from its
own mean (Lewis, "Fast normalized cross-correlation", 1995): its 8 x 8 means must agree, and so must the
detail they leave out. The first is a cheap sieve; the second is the evidence, for on a plain background
the first agrees between any two things of like outline. A photo without detail shows no evidence and has
only exact twins. Another size, another JPEG quality and another brightness are found; a crop is found
only where it is very slight. Two photos that differ in one place and nowhere else are a scene and the same
scene with something in it (a fixed camera), and no near-duplicates.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import astuple, dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image as Pillow

from topgraft.fingerprint import digest
from topgraft.photos.decode import MAX_PIXELS
from topgraft.types import Image

MIN_COARSE, MIN_DETAIL = 0.97, 0.975
"""Least correlation of the 8 x 8 means and of the detail. Measured on 260 photos: all of another JPEG quality
(40, 95) or brightness (10 % up or down) and 99.6 % of those halved are found, 36 % of those cropped by 2 %,
2 % of those cropped by 3 %."""

MAX_SPOT, SPOT_RATIO = 16.0, 10.0
"""Grey levels by which one 3 x 3 spot of two thumbnails may differ once level and contrast are made equal,
and that as a multiple of the median spot's; above both, something stands in one that is not in the other. Of
160 photos none is lost saved anew, 10 % brighter or smaller; of those that look like themselves with a
square of a tenth of the side laid over them half are told apart, with a fifth of the side 11 of 12."""

MIN_CONTRAST = 1.0
"""Grey levels RMS below which either part is rounding and noise, not evidence."""

Alike = Literal["looks", "exact", "off"]
ALIKE: tuple[Alike, ...] = get_args(Alike)

COARSE, FINE = 8, 24
THUMB_BYTES = FINE * FINE * 3

MAKER = f"look 4, Pillow {PIL.__version__}, {MAX_PIXELS} pixels"
"""What a kept look depends on besides the file's bytes."""


@dataclass(frozen=True, slots=True)
class Look:
    """One photo in small.

    Attributes:
        width, height: of the upright photo, in pixels.
        thumb: the 1728 bytes of its 24 x 24 RGB thumbnail.
        reason: why it cannot be decoded; empty where it can.
        remark: what is odd about it all the same; empty where nothing is.
        pixels: content address of the decoded pixels: the same whatever stands beside them in the file.
    """

    width: int
    height: int
    thumb: bytes
    reason: str = ""
    remark: str = ""
    pixels: str = ""

    @classmethod
    def refused(cls, reason: str) -> Look:
        """Stand for a photo that cannot be decoded."""
        return cls(0, 0, b"\0" * THUMB_BYTES, reason)


def look(image: Image, remark: str = "") -> Look:
    """Look at one decoded photo, (H, W, 3) uint8."""
    height, width = image.shape[:2]
    thumb = np.asarray(Pillow.fromarray(image).resize((FINE, FINE), Pillow.Resampling.BOX))
    return Look(
        width,
        height,
        thumb.tobytes(),
        remark=remark,
        pixels=digest(np.ascontiguousarray(image).data.cast("B")),
    )


def twins(looks: Iterable[Look], keys: Iterable[str], alike: Alike = "looks") -> NDArray[np.int64]:
    """Return the number of each photo's group of near-duplicates, (N,).

    Near-duplicates are not chained: each is near the first photo of its group. Only keys join such groups.

    Args:
        looks: N looks.
        keys: N strings; photos with equal keys are one group, whatever they look like.
        alike: what joins two photos of different keys: their looks, exactly the same pixels, or nothing.

    Returns:
        (N,) group numbers, the index of the group's first photo.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    looks, keys = list(looks), list(keys)
    first: dict[str, int] = {}
    firsts = [first.setdefault(key, i) for i, key in enumerate(keys)]
    n = len(looks)
    joined = np.array([*firsts, *_leaders(looks, alike)], np.int64), np.tile(np.arange(n), 2)
    graph = coo_array((np.ones(2 * n, np.bool_), joined), shape=(n, n))
    _, groups = connected_components(graph, directed=False)
    _, leaders = np.unique(groups, return_index=True)
    return np.asarray(leaders[groups], np.int64)


def _leaders(looks: list[Look], alike: Alike) -> list[int]:
    """Return for each photo the first it is a near-duplicate of and that follows no other, or itself."""
    if alike == "off":
        return list(range(len(looks)))
    same: dict[bytes | str, int] = {}
    if alike == "exact":
        return [same.setdefault(look_.pixels or look_.thumb, i) for i, look_ in enumerate(looks)]
    leaders = [same.setdefault(look_.thumb, i) for i, look_ in enumerate(looks)]
    alone = sorted(same.values())
    pairs = _close_pairs([looks[i] for i in alone])
    for i, j in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))].tolist():
        a, b = alone[i], alone[j]
        if leaders[a] == a and leaders[b] == b:
            leaders[b] = a
    return [leaders[i] for i in leaders]


def _close_pairs(looks: list[Look], block: int = 1024) -> NDArray[np.int64]:
    """Return all pairs i < j that look alike, (M, 2), block by block; detail only where it matters."""
    raw = np.frombuffer(b"".join(look_.thumb for look_ in looks), dtype=np.uint8).reshape(-1, THUMB_BYTES)
    starts = range(0, len(looks), block)
    coarse = [_coarse(raw[start : start + block]) for start in starts]
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for (n, top), (m, left) in combinations_with_replacement(enumerate(starts), 2):
        near = coarse[n] @ coarse[m].T >= MIN_COARSE
        if n == m:
            near = np.triu(near, k=1)
        i, j = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        if len(i):
            alike = near[np.ix_(i, j)] & (_detail(raw[top + i]) @ _detail(raw[left + j]).T >= MIN_DETAIL)
            a, b = np.nonzero(alike)
            if len(a):
                found = np.stack([top + i[a], left + j[b]], axis=1)
                pairs.append(found[~_differ_in_a_spot(raw[found[:, 0]], raw[found[:, 1]])])
    return np.concatenate(pairs)


def _differ_in_a_spot(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which pairs of thumbnails, (n, 1728) each, differ in one place far more than elsewhere: (n,)."""
    x, y = (raw.reshape(len(raw), FINE, FINE, 3).astype(np.float32).mean(axis=3) for raw in (ours, theirs))
    x, y = (levels - levels.mean(axis=(1, 2), keepdims=True) for levels in (x, y))
    x *= y.std(axis=(1, 2), keepdims=True) / np.maximum(x.std(axis=(1, 2), keepdims=True), 1e-6)
    spots = np.abs(_tile_means(x - y)).reshape(len(x), -1)
    largest, usual = spots.max(axis=1), np.median(spots, axis=1)
    spotted: NDArray[np.bool_] = (largest > MAX_SPOT) & (largest > SPOT_RATIO * usual)
    return spotted


def _tile_means(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    step = FINE // COARSE
    means: NDArray[np.float32] = levels.reshape(-1, COARSE, step, COARSE, step).mean(axis=(2, 4))
    return means


def _coarse(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the 8 x 8 means of thumbnails beside their level, (n, 192), as unit vectors."""
    means = _tiles(raw).mean(axis=(2, 4), keepdims=True)
    return _unit(means - means.mean(axis=(1, 3), keepdims=True))


def _detail(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what thumbnails have beside their 8 x 8 means, (n, 1728), as unit vectors."""
    tiles = _tiles(raw)
    return _unit(tiles - tiles.mean(axis=(2, 4), keepdims=True))


def _tiles(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    step = FINE // COARSE
    return raw.reshape(-1, COARSE, step, COARSE, step, 3).astype(np.float32)


def _unit(parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring each row to length 1, or to 0 where it has too little contrast to say anything."""
    rows = parts.reshape(len(parts), -1)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    enough = length >= MIN_CONTRAST * np.sqrt(rows.shape[1])
    unit: NDArray[np.float32] = np.where(enough, rows / np.maximum(length, 1e-6), 0)
    return unit


class Looks:
    """Looks kept between runs by content address and `MAKER`, so that unchanged photos are not decoded again.

    A cache and nothing more: where it cannot be opened or written, photos are looked at again.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "looks.sqlite"

    def recall(self, digests: Iterable[str]) -> dict[str, Look]:
        """Find the looks that are known, by digest."""
        try:
            with closing(self._open()) as known:
                found = {}
                for photo in set(digests):
                    row = known.execute(
                        "SELECT width, height, thumb, reason, remark, pixels, sum FROM checked"
                        " WHERE digest = ? AND maker = ?",
                        (photo, MAKER),
                    ).fetchone()
                    if row and row[-1] == _sum(kept := Look(*row[:-1])):  # SQLite notices no flipped bit
                        found[photo] = kept
                return found
        except (sqlite3.Error, OSError):
            return {}

    def keep(self, looks: dict[str, Look]) -> None:
        """Remember looks for the next run."""
        rows = [(key, MAKER, *astuple(found), _sum(found)) for key, found in sorted(looks.items())]
        try:
            with closing(self._open()) as known, known:
                known.executemany("INSERT OR REPLACE INTO checked VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        except (sqlite3.Error, OSError):
            return

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        known = sqlite3.connect(self.path, timeout=10)
        known.execute(
            "CREATE TABLE IF NOT EXISTS checked (digest TEXT PRIMARY KEY, maker TEXT,"
            " width INT, height INT, thumb BLOB, reason TEXT, remark TEXT, pixels TEXT, sum TEXT)"
        )
        return known


def _sum(found: Look) -> str:
    return digest(repr(astuple(found)).encode())
