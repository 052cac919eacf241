"""What a photo looks like, small enough to compare all with all: finds near-duplicates before they leak.

A look is a 128-bit difference hash (Krawetz, "Kind of like that", 2013: the sign of the step between
neighbours of a 9 x 8 and an 8 x 9 grey thumbnail) and an 8 x 8 RGB thumbnail that confirms it. Two photos are
near-duplicates when at most `MAX_BITS` of the hash differ and the thumbnails differ by at most `MAX_LEVELS`
grey levels on average: another size, another JPEG quality, a slight crop or tone, not another photo.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from topgraft.types import Image

MAX_BITS = 12
MAX_LEVELS = 12.0
HASH_BYTES, THUMB_BYTES = 16, 192


@dataclass(frozen=True, slots=True)
class Look:
    """One photo in small.

    Attributes:
        width, height: of the upright photo, in pixels.
        bits: the 16 bytes of its difference hash.
        thumb: the 192 bytes of its 8 x 8 RGB thumbnail.
        reason: why it cannot be decoded; empty where it can.
    """

    width: int
    height: int
    bits: bytes
    thumb: bytes
    reason: str = ""


def look(image: Image) -> Look:
    """Look at one decoded photo, (H, W, 3) uint8."""
    height, width = image.shape[:2]
    picture = Pillow.fromarray(image)
    grey = picture.convert("L")
    rows = np.asarray(grey.resize((9, 8), Pillow.Resampling.BOX), dtype=np.int16)
    columns = np.asarray(grey.resize((8, 9), Pillow.Resampling.BOX), dtype=np.int16)
    steps = np.concatenate([(np.diff(rows, axis=1) > 0).ravel(), (np.diff(columns, axis=0) > 0).ravel()])
    thumb = np.asarray(picture.resize((8, 8), Pillow.Resampling.BOX))
    return Look(width, height, np.packbits(steps).tobytes(), thumb.tobytes())


def twins(looks: Iterable[Look], keys: Iterable[str]) -> NDArray[np.int64]:
    """Give every photo the number of its group of near-duplicates.

    Args:
        looks: N looks.
        keys: N strings; photos with equal keys are one group, whatever they look like.

    Returns:
        (N,) group numbers, the index of the group's first photo.
    """
    looks, keys = list(looks), list(keys)
    parent = list(range(len(looks)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, key in enumerate(keys):
        parent[i] = first.setdefault(key, i)
    for i, j in _close_pairs(looks):
        a, b = sorted((root(i), root(j)))
        parent[b] = a
    return np.array([root(i) for i in range(len(looks))], dtype=np.int64)


def _close_pairs(looks: list[Look], block: int = 1024) -> Iterable[tuple[int, int]]:
    """Give all pairs i < j that look alike; a product of ±1 rows counts differing bits a block at a time."""
    if len(looks) < 2:
        return
    bits = np.frombuffer(b"".join(one.bits for one in looks), dtype=np.uint8).reshape(-1, HASH_BYTES)
    signs = np.unpackbits(bits, axis=1).astype(np.float32) * 2 - 1
    thumbs = np.frombuffer(b"".join(one.thumb for one in looks), dtype=np.uint8).reshape(-1, THUMB_BYTES)
    wide = signs.shape[1]
    for start in range(0, len(looks), block):
        differing = (wide - signs[start : start + block] @ signs[start:].T) / 2
        for i, j in np.argwhere(differing <= MAX_BITS) + start:
            if i < j and np.abs(thumbs[i].astype(np.int16) - thumbs[j]).mean() <= MAX_LEVELS:
                yield int(i), int(j)


class Looks:
    """Looks kept between runs by content address, so that unchanged photos are not decoded again.

    A cache and nothing more: where it cannot be opened or written, photos are looked at again.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "looks.sqlite"

    def recall(self, digests: Iterable[str]) -> dict[str, Look]:
        """Find the looks that are known, by digest."""
        try:
            with closing(self._open()) as known:
                found = {}
                for one in set(digests):
                    row = known.execute(
                        "SELECT width, height, bits, thumb, reason FROM looks WHERE digest = ?", (one,)
                    ).fetchone()
                    if row:
                        found[one] = Look(*row)
                return found
        except (sqlite3.Error, OSError):
            return {}

    def keep(self, looks: dict[str, Look]) -> None:
        """Remember looks for the next run."""
        rows = [(key, a.width, a.height, a.bits, a.thumb, a.reason) for key, a in sorted(looks.items())]
        try:
            with closing(self._open()) as known, known:
                known.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?, ?, ?)", rows)
        except (sqlite3.Error, OSError):
            return

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        known = sqlite3.connect(self.path, timeout=10)
        known.execute(
            "CREATE TABLE IF NOT EXISTS looks"
            " (digest TEXT PRIMARY KEY, width INT, height INT, bits BLOB, thumb BLOB, reason TEXT)"
        )
        return known
