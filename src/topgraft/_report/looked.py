"""Where it looked: photos with a line around what spoke for the class the predictor named."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from topgraft._report.facts import Facts
from topgraft._report.gallery import Shot
from topgraft._report.mistakes import shot
from topgraft._report.photos import LARGE_PX, Book, Thumb, spread
from topgraft.backbones.card import Card
from topgraft.backbones.fit import axes
from topgraft.errors import DecodeError
from topgraft.photos.decode import decode
from topgraft.run.predictions import Predicted

RIGHT, WRONG = 6, 6
LEVELS = (0.35, 0.7)
"""Lines are drawn where the map reaches these shares of its peak: about what counts, and what counts most."""
LEAST = 0.002
"""Spots that are a smaller share of the photo are left out."""
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Looked:
    """One photo, and where it was looked at.

    Attributes:
        shot: the photo and what is said of it.
        box: what of the small photo the predictor saw: left, top, width, height, px.
        lines: outlines on the small photo as SVG paths, one a level, the widest first.
    """

    shot: Shot
    box: tuple[int, int, int, int]
    lines: list[str]

    def show(self, book: Book, *, outlined: bool) -> Markup:
        """Show what the predictor saw of the photo, with or without the lines."""
        alt = f"where it looked in {self.shot.alt}" if outlined else self.shot.alt
        drawn = Markup("").join(
            Markup('<path class="under" d="{0}"/><path class="over level{1}" d="{0}"/>').format(line, level)
            for level, line in enumerate(self.lines)
            if outlined and line
        )
        return Markup(
            '<svg class="thumb" viewBox="{} {} {} {}" preserveAspectRatio="xMidYMid slice" role="img"'
            ' aria-label="{}"><use href="#{}"/>{}</svg>'
        ).format(*self.box, alt, book.thumbs[self.shot.id].key, drawn)


def looked(facts: Facts, book: Book) -> list[Looked]:
    """Draw the activation maps of some photos, mistakes first; none where photos or predictor are gone.

    Raises:
        DataError, BackboneError: for a predictor that is there and cannot be asked.
    """
    if not facts.origin.root or not (facts.run.model / "model.onnx").is_file():
        return []
    from topgraft.predictor import load
    from topgraft.predictor.saliency import activation_map

    predictor = load(facts.run.path, settings=facts.settings)
    chosen = _choose(facts)
    book.take([row.id for row in chosen], LARGE_PX)

    def look(row: Predicted) -> Looked | None:
        if not book.has(row.id):
            return None
        try:
            image = decode(facts.origin.read(row.id), row.id)
        except (OSError, DecodeError):
            return None
        light = activation_map(predictor, image, facts.classes[row.predicted])
        seen = kept(image.shape[0], image.shape[1], predictor.card.backbone)
        return outlined(shot(facts, row), book.thumbs[row.id], light, seen)

    with ThreadPoolExecutor(facts.settings.threads) as pool:
        return [found for found in pool.map(look, chosen) if found is not None]


def _choose(facts: Facts) -> list[Predicted]:
    """Take the most confident mistakes, and recognised photos from sure to unsure."""
    ranked = sorted(facts.rows, key=lambda row: (-row.probability, row.id))
    rows = {row.id: row for row in ranked if facts.origin.may_read(row.id)}
    wrong = [row for row in rows.values() if not row.right]
    right = [row for row in rows.values() if row.right]
    return wrong[:WRONG] + spread(right, RIGHT)


def kept(height: int, width: int, card: Card) -> tuple[slice, slice]:
    """Say which rows and columns of a photo of this size the fit keeps; the rest was never looked at."""
    down, across = axes(height, width, card)
    ends = [
        (axis.source * axis.low // axis.resized, axis.source * axis.high // axis.resized)
        for axis in (down, across)
    ]
    (top, bottom), (left, right) = ends
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def outlined(shot: Shot, thumb: Thumb, light: Map, seen: tuple[slice, slice]) -> Looked:
    """Outline what a map holds to be important, on a photo made small.

    Args:
        shot: what is said of the photo.
        thumb: the small photo.
        light: (H, W) in 0..1, at the size of the photo itself.
        seen: rows and columns that the predictor saw.
    """
    down, across = thumb.height / light.shape[0], thumb.width / light.shape[1]
    rows, columns = seen
    top, left = round(rows.start * down), round(columns.start * across)
    box = (
        left,
        top,
        max(round(columns.stop * across) - left, 1),
        max(round(rows.stop * down) - top, 1),
    )
    small = cv2.resize(light, (thumb.width, thumb.height), interpolation=cv2.INTER_AREA)
    # A map has about 7 cells a side: half a cell of blur takes their corners off.
    small = cv2.GaussianBlur(small, (0, 0), max(box[2:]) / 14)
    peak = float(small.max())
    return Looked(shot, box, ["".join(_around(small >= level * peak)) if peak else "" for level in LEVELS])


def _around(inside: NDArray[np.bool_]) -> Iterator[str]:
    """Trace the outlines of what is inside as closed SVG paths, px."""
    found, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for outline in found:
        if cv2.contourArea(outline) < LEAST * inside.size:
            continue
        points = cv2.approxPolyDP(outline, 0.8, closed=True)[:, 0] + 0.5
        yield "M" + "L".join(f"{x:g} {y:g}" for x, y in points.tolist()) + "Z"
