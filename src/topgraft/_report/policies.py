"""The policies on one sheet: the same photo, once for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow

from topgraft import files
from topgraft._report.facts import Facts
from topgraft._report.photos import Book, spread
from topgraft.decode import decode
from topgraft.errors import TopgraftError
from topgraft.fingerprint import digest
from topgraft.policy import IDENTITY, Policy, render
from topgraft.store.table import views_of
from topgraft.types import Image

MOST = 32
SIDE_PX = 224
"""Policies are drawn at about the size backbones see, then made small."""


@dataclass(frozen=True)
class Look:
    """One policy: where its picture is in the book, and its name."""

    key: str
    policy: str


@dataclass(frozen=True)
class Sheet:
    """The contact sheet of one photo."""

    photo: str
    looks: list[Look]
    left_out: int


def sheet(facts: Facts, book: Book) -> Sheet | None:
    """Render an example photo with the run's policies; None where there are none, or no photo."""
    names: list[str] = facts.metrics.get("policies", [])
    source = _example(facts)
    if not names or source is None:
        return None
    photo, data, image = source
    views = views_of([Policy.parse(name) for name in names], int(facts.metrics.get("seed", 0)))
    shown = [views[0], *spread(views[1:], MOST)]
    looks = []
    for view in shown:
        book.draw(view.key, render(image, view, digest(data)), 120)
        if book.has(view.key):
            looks.append(Look(view.key, "as it is" if view.policy == IDENTITY else str(view.policy)))
    return Sheet(photo, looks, len(views) - len(shown))


def _example(facts: Facts) -> tuple[str, bytes, Image] | None:
    """The first photo that was recognised and can still be read."""
    for row in sorted(facts.rows, key=lambda row: (not row.right, row.id))[:20]:
        try:
            data = files.read(facts.photo_root, row.id)
            return row.id, data, _square(decode(data, row.id))
        except (OSError, TopgraftError):
            continue
    return None


def _square(image: Image) -> Image:
    """The middle of a photo, as a square of the size policies are drawn at."""
    picture = Pillow.fromarray(image)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    small = picture.resize(
        (SIDE_PX, SIDE_PX), Pillow.Resampling.LANCZOS, (left, top, left + side, top + side)
    )
    return np.array(small)
