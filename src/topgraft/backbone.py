"""A backbone: a card and the ONNX graph it describes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pydantic

from topgraft.backbones import _builtin
from topgraft.backbones._cache import CARD, GRAPH, complete, whole
from topgraft.card import Card
from topgraft.errors import BackboneError, UnknownNameError
from topgraft.settings import Settings
from topgraft.types import Progress, silent

if TYPE_CHECKING:
    from typing import Self

DEFAULT = _builtin.NAME


@dataclass(frozen=True)
class Backbone:
    """A pretrained network up to its features.

    Attributes:
        card: its facts.
        graph: an ONNX file. Input `images` (N, H, W, 3) uint8 RGB, N free, normalisation inside; outputs
            `features` (N, D) float32 and, where the card has a `map_size`, `map` (N, C, h, w) float32.
    """

    card: Card
    graph: Path

    @classmethod
    def load(cls, name: str = DEFAULT, **options: object) -> Self:
        """See `load_backbone`."""
        loaded = load_backbone(name, **options)  # type: ignore[arg-type]
        return cls(loaded.card, loaded.graph)

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open a backbone's folder.

        Raises:
            BackboneError: where a file is missing or the card is not one.
        """
        folder = Path(folder)
        if not complete(folder):
            raise BackboneError(
                f"{folder}: expected {GRAPH} and {CARD}. Write such a folder with `topgraft fetch`."
            )
        try:
            card = Card.model_validate_json((folder / CARD).read_bytes())
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise BackboneError(f"{folder / CARD}: {place}: {first['msg']}.") from error
        return cls(card, folder / GRAPH)


def load_backbone(
    name: str = DEFAULT,
    *,
    card: Path | None = None,  # noqa: ARG001
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Backbone:
    """Find or make a backbone.

    Args:
        name: the built-in `tf_efficientnet_lite0.in1k`.
        card: not used yet.
        settings: where graphs are kept.
        progress: told what is being done.
    """
    settings = settings or Settings.load()
    if Path(name).is_dir():
        return Backbone.open(name)
    if name != DEFAULT:
        raise UnknownNameError("backbone", name, [DEFAULT])
    return _default(settings, progress)


def _default(settings: Settings, progress: Progress) -> Backbone:
    card = _builtin.card()
    folder = settings.cache_dir / "backbones" / card.fingerprint()
    if not complete(folder):
        progress(f"writing {card.name}", 0, 1)
        graph = _builtin.graph().SerializeToString(deterministic=True)
        with whole(folder) as temporary:
            (temporary / GRAPH).write_bytes(graph)
            (temporary / CARD).write_text(card.model_dump_json(indent=1))
        progress(f"writing {card.name}", 1, 1)
    return Backbone.open(folder)
