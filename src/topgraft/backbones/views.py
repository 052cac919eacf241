"""From a photo's bytes to what a backbone sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from topgraft.backbones.fit import fit
from topgraft.photos.decode import read_picture
from topgraft.policies.policy import View, render_all

if TYPE_CHECKING:
    from topgraft.backbones.card import Card
    from topgraft.types import Image


def views_of_photo(raw: bytes, name: str, digest: str, views: Sequence[View], card: Card) -> list[Image]:
    """Return views of a photo: decoded and fitted to the backbone once, then warped and coloured for each.

    Args:
        raw: the photo's bytes.
        name: what to call it in an error.
        digest: of the bytes; decides, with the view, what is drawn.
        views: what to make of it.
        card: of the backbone.

    Returns:
        One (H, W, 3) uint8 a view, H and W the card's.

    Raises:
        DecodeError: where the bytes are no photo.
    """
    return render_all(fit(read_picture(raw, name), card), views, digest)
