"""The abstract engine: uint8 pictures in, float32 features out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from topgraft.errors import UsageError
from topgraft.speed import per_second
from topgraft.types import Features, Images

if TYPE_CHECKING:
    from topgraft.backbones.card import Card


class Engine(ABC):
    """Runs a backbone.

    A row of features depends on its picture alone: not on the batch it came in, its place there, its
    partners, or the number of cores. The conformance suite `topgraft.testing.EngineSuite` checks it.

    Attributes:
        card: the facts of what it runs.
        precision: of the arithmetic, part of every feature's address.
        depths: whether rows hold the statistics of every block beside the features, as `Card.columns` says;
            the features are the same with and without.
    """

    name: ClassVar[str]
    card: Card
    precision: str
    depths: bool = False

    @property
    def width(self) -> int:
        """How many numbers a row has: D, or D + B with depths."""
        return self.card.columns.width if self.depths else self.card.features

    def embed(self, images: Images) -> Features:
        """Turn pictures into features.

        Args:
            images: (N, H, W, 3) uint8 RGB, N may be 0, H and W the card's.

        Returns:
            (N, D) float32, or (N, D + B) with depths.

        Raises:
            UsageError: for another shape or type, or a closed engine.
        """
        return next(features for _, features in self.stream([(None, images)]))

    def images_per_second(self, batch: int) -> float:
        """Return how many pictures a second it embeds, from a quarter of a second of trying.

        Args:
            batch: pictures handed to it at once.
        """
        noise = np.random.default_rng(0).integers(0, 256, (batch, *self.card.input_size, 3), dtype=np.uint8)
        return per_second(lambda: len(self.embed(noise)))

    @abstractmethod
    def stream(self, batches: Iterable[tuple[Any, Images]]) -> Iterator[tuple[Any, Features]]:
        """Turn batches of any sizes into features, asynchronously and in the order they came.

        Args:
            batches: pairs of a tag, handed back as it is, and pictures as for `embed`. Read ahead of
                what is given back by a bounded number of batches. Once the next is asked for, the memory of
                the last may hold other pictures.

        Yields:
            (tag, rows as of `embed`) for each batch, none dropped.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the graph. Closing twice does nothing; using a closed engine is an error."""

    def check(self, images: Images) -> None:
        """Refuse what is not (N, H, W, 3) uint8 of the card's size.

        Raises:
            UsageError: naming what was expected and what came.
        """
        height, width = self.card.input_size
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            got = getattr(images, "dtype", type(images).__name__)
            raise UsageError(
                f"{self.name} engine: pictures must be a uint8 array, got {got}. Scale to 0..255 and cast."
            )
        if images.ndim != 4 or images.shape[1:] != (height, width, 3):
            raise UsageError(
                f"{self.name} engine: pictures for {self.card.name} must be (N, {height}, {width}, 3), "
                f"got {images.shape}. Fit them to the card first."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
