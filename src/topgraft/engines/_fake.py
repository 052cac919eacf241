"""A stand-in for tests: features from the picture's own colours, without any graph or library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from topgraft.engines._base import Engine
from topgraft.errors import UsageError
from topgraft.types import Features, Images

if TYPE_CHECKING:
    from topgraft.backbones.backbone import Backbone

GRID = 8  # the picture is averaged over this many cells each way


class FakeEngine(Engine):
    """Mean colours of a grid of cells, multiplied by a fixed random matrix that belongs to the card.

    Block features come of another matrix of the same seed.
    """

    name: ClassVar[str] = "fake"

    def __init__(self, backbone: Backbone, *, precision: str = "f32", depths: bool = False) -> None:
        self.card, self.precision, self.depths = backbone.card, precision, depths
        seed = int(self.card.fingerprint()[:8], 16)
        random, cells = np.random.default_rng(seed), GRID * GRID * 3
        widths = [self.card.features, *([self.card.columns.extra] if depths else [])]
        parts = [random.standard_normal((cells, width)).astype(np.float32) for width in widths]
        self._matrices: list[Any] = parts

    def stream(self, batches: Iterable[tuple[Any, Images]]) -> Iterator[tuple[Any, Features]]:
        """Turn batches into features, one after the other."""
        if not self._matrices:
            raise UsageError("fake engine: it is closed. Open another one.")
        for tag, images in batches:
            self.check(images)
            rows = [np.concatenate([_cells(image) @ matrix for matrix in self._matrices]) for image in images]
            yield tag, np.stack(rows) if rows else np.empty((0, self.width), np.float32)

    def close(self) -> None:
        """Forget the matrices."""
        self._matrices = []


def _cells(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the mean of an (H, W, 3) picture over each cell, (GRID * GRID * 3,) in -1..1."""
    bands = np.array_split(image.astype(np.float32) / 127.5 - 1, GRID)
    cells = [cell.mean(axis=(0, 1)) for band in bands for cell in np.array_split(band, GRID, axis=1)]
    return np.concatenate(cells).astype(np.float32)
