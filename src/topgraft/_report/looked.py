"""Where it looked: photos dimmed wherever nothing spoke for the class the predictor named."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image as Pillow

from topgraft._report.facts import Facts
from topgraft._report.mistakes import Shot, shot
from topgraft._report.photos import LARGE_PX, Book, spread
from topgraft.backbones.card import Card
from topgraft.backbones.fit import axes
from topgraft.errors import DecodeError
from topgraft.photos.decode import decode
from topgraft.run.predictions import Predicted
from topgraft.types import Image

RIGHT, WRONG = 6, 6
DIM, SOFTEN = 0.3, 0.7
"""How much of the light is left where nothing spoke for the class, and the power that lifts the middle."""


def looked(facts: Facts, book: Book) -> list[Shot]:
    """Draw the activation maps of some photos, mistakes first; none where photos or predictor are gone.

    Raises:
        DataError, BackboneError: for a predictor that is there and cannot be asked.
    """
    if not facts.origin.root or not (facts.run.model / "model.onnx").is_file():
        return []
    from topgraft.predictor import load
    from topgraft.predictor.saliency import activation_map

    predictor = load(facts.run.path, settings=facts.settings)

    def draw(row: Predicted) -> Image | None:
        try:
            image = decode(facts.origin.read(row.id), row.id)
            light = activation_map(predictor, image, facts.classes[row.predicted])
            seen = kept(image.shape[0], image.shape[1], predictor.card.backbone)
            return dimmed(image[seen], light[seen])
        except (OSError, DecodeError):
            return None

    chosen = _choose(facts)
    shots = []
    with ThreadPoolExecutor(facts.settings.threads) as pool:
        for row, image in zip(chosen, pool.map(draw, chosen), strict=True):
            if image is not None:
                key = f"looked:{row.id}"
                book.draw(key, image, LARGE_PX)
                if book.has(key):
                    said = shot(facts, row)
                    shots.append(Shot(key, said.caption, f"activation map of {said.alt}"))
    return shots


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


def dimmed(image: Image, light: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> Image:
    """Dim a photo where a map is dark.

    Args:
        image: (H, W, 3) RGB.
        light: (H, W) in 0..1.
    """
    picture = Pillow.fromarray(image)
    picture.thumbnail((LARGE_PX, LARGE_PX), Pillow.Resampling.LANCZOS)
    small = Pillow.fromarray(np.round(light * 255).astype(np.uint8)).resize(picture.size)
    share = DIM + (1 - DIM) * (np.asarray(small, np.float32)[:, :, None] / 255) ** SOFTEN
    return np.round(np.asarray(picture, np.float32) * share).astype(np.uint8)
