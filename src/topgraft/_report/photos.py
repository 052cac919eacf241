"""Thumbnails: each photo is in the page once, however often it is shown, and all of them fit a budget."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from markupsafe import Markup

from topgraft.errors import TopgraftError
from topgraft.photos.decode import decode
from topgraft.photos.shrink import shrink
from topgraft.run.origin import Origin
from topgraft.types import Image

T = TypeVar("T")
LARGE_PX, SMALL_PX = 300, 132
"""Longest side of photos in galleries, and of those behind the confusion matrix."""

MARKUP = 1_000
"""About the bytes that a photo's captions and links take."""
CHUNK, LEAST = 32, 6_000
"""Photos read at once, and the room below which none is read any more."""


@dataclass(frozen=True)
class Thumb:
    """A photo made small: its key in the page, its size in px, its WebP bytes."""

    key: str
    width: int
    height: int
    data: bytes


def budget(photos: int) -> int:
    """Return the bytes of the page that thumbnails may take: 1.1 MB up to 500 photos, 3.3 MB from 10,000 on.

    The rest of the page is under 0.4 MB, 0.6 MB for many classes, so that it stays under 1.5 MB and 4 MB.
    """
    return int(1_100_000 + min(max(photos - 500, 0), 9_500) / 9_500 * 2_200_000)


@dataclass
class Book:
    """The photos of a page, each kept once.

    Attributes:
        origin: where photos are read from.
        left: bytes of the page that may still be used.
        threads: that read photos.
        gone: ids that could not be read.
        refused: ids that may not be read.
        full: ids that found no room.
    """

    origin: Origin
    left: int
    threads: int
    gone: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    full: set[str] = field(default_factory=set)
    thumbs: dict[str, Thumb] = field(default_factory=dict)

    def take(self, ids: Iterable[str], side: int) -> None:
        """Read photos and keep them, in this order, as long as there is room."""
        wanted = [name for name in dict.fromkeys(ids) if name not in self.thumbs and name not in self.gone]
        self.refused |= {name for name in wanted if not self.origin.may_read(name)}
        wanted = [name for name in wanted if name not in self.refused]
        if not self.origin.root or not wanted:
            return

        def read(name: str) -> tuple[int, int, bytes] | None:
            try:
                return shrink(decode(self.origin.read(name), name), side)
            except (OSError, TopgraftError):
                return None

        with ThreadPoolExecutor(self.threads) as pool:
            for start in range(0, len(wanted), CHUNK):
                if self.left < LEAST:
                    self.full |= set(wanted[start:])
                    return
                chunk = wanted[start : start + CHUNK]
                for name, made in zip(chunk, pool.map(read, chunk), strict=True):
                    if made is None:
                        self.gone.append(name)
                    else:
                        self._keep(name, made)

    def draw(self, name: str, image: Image, side: int) -> None:
        """Keep a picture that was made, not read: an augmented view, an activation map."""
        self._keep(name, shrink(image, side))

    def _keep(self, name: str, made: tuple[int, int, bytes]) -> None:
        width, height, data = made
        cost = len(data) * 4 // 3 + MARKUP
        if cost > self.left:
            self.full.add(name)
            return
        self.left -= cost
        self.full.discard(name)  # smaller than when it was tried before
        self.thumbs[name] = Thumb(f"i{len(self.thumbs)}", width, height, data)

    def has(self, name: str) -> bool:
        """Tell whether a photo is in the page."""
        return name in self.thumbs

    def show(self, name: str, alt: str, *, whole: bool = False) -> Markup:
        """Show a photo that was taken: its middle as a square, or the whole of it."""
        thumb = self.thumbs[name]
        return Markup(
            '<svg class="thumb" viewBox="0 0 {} {}" preserveAspectRatio="xMidYMid {}" role="img"'
            ' aria-label="{}"><use href="#{}"/></svg>'
        ).format(thumb.width, thumb.height, "meet" if whole else "slice", alt, thumb.key)

    def sprite(self) -> Markup:
        """Return the photos themselves as one hidden SVG, to which every picture on the page refers."""
        image = Markup('<image id="{}" width="{}" height="{}" href="data:image/webp;base64,{}"/>')
        images = [
            image.format(thumb.key, thumb.width, thumb.height, base64.b64encode(thumb.data).decode())
            for thumb in self.thumbs.values()
        ]
        return Markup('<svg class="sprite" aria-hidden="true"><defs>{}</defs></svg>').format(
            Markup("\n").join(images)
        )


def spread(items: Sequence[T], most: int) -> list[T]:
    """Take at most so many items, evenly from first to last."""
    if len(items) <= most:
        return list(items)
    step = (len(items) - 1) / max(most - 1, 1)
    return [items[round(i * step)] for i in range(most)]
