"""A backbone: a card and the ONNX graph it describes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pydantic

from topgraft.backbones._cache import CARD, GRAPH, complete, drop, verify
from topgraft.backbones.card import Card
from topgraft.errors import BackboneError
from topgraft.nodes import weight_elsewhere
from topgraft.text import first_mistake

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True)
class Backbone:
    """A pretrained network up to its features.

    Attributes:
        card: its facts.
        graph: an ONNX file. Input `images` (N, H, W, 3) uint8 RGB, N free, normalisation inside; outputs
            `features` (N, D) float32; where the card has a `map_size`, `map` (N, C, h, w) float32; where it
            has depths, `blocks` (N, B) float32, as `Card.columns` says.
    """

    card: Card
    graph: Path

    @classmethod
    def open(cls, folder: Path | str, *, ours: bool = False) -> Self:
        """Open a backbone's folder, as `fetch` and the cache write it, and compare it with its checksums.

        Measured for EfficientNet-Lite0: 12 ms.

        Args:
            folder: holds graph, card, and what goes with them.
            ours: it is in the cache, where we wrote it. Others may hold a stranger's graph, which is looked
                through for weights in other files.

        Raises:
            BackboneError: where a file is missing or damaged, a card is none, or a weight lies elsewhere.
        """
        folder = Path(folder)
        verify(folder)
        if not complete(folder):
            timm = (folder / "config.json").is_file()
            hint = (
                f"Did you mean local-dir:{folder}?" if timm else "Write such a folder with `topgraft fetch`."
            )
            raise BackboneError(f"{folder}: expected {GRAPH} and {CARD}. {hint}")
        try:
            card = Card.model_validate_json((folder / CARD).read_bytes())
        except pydantic.ValidationError as error:
            raise BackboneError(f"{folder / CARD}: {first_mistake(error)}.") from error
        if not ours and (weight := weight_elsewhere((folder / GRAPH).read_bytes())):
            raise BackboneError(
                f"{folder / GRAPH}: its weight {weight} lies in another file, which is not followed. Save it"
                " as one file with onnx.save(model, path)."
            )
        return cls(card, folder / GRAPH)

    @classmethod
    def kept(cls, place: Path) -> Self | None:
        """Open a folder of the cache; None where it is not there, or damaged, which is said and removed."""
        if not place.is_dir():
            return None
        try:
            return cls.open(place, ours=True)
        except BackboneError as error:
            logging.getLogger(__name__).warning("%s It is made again.", error)
            drop(place)
            return None

    def maps(self) -> Backbone:
        """Return the same backbone with its map before pooling, flattened, in place of its features.

        Raises:
            BackboneError: where it has no map.
        """
        size = self.card.map_size
        if size is None:
            raise BackboneError(f"{self.card.name}: it has no map before pooling. Embed its features.")
        return replace(
            self,
            card=self.card.model_copy(
                update={"output": "map", "features": size[0] * size[1] * size[2], "depths": ()}
            ),
        )

    @property
    def blocks(self) -> tuple[str, ...]:
        """The names of the blocks that fine-tuning can unfreeze, first to last."""
        return tuple(block.name for block in self.card.blocks)
